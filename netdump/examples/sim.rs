//! Plays simulated dumps, one for each seed, on all processors, and says which seed broke a rule. Then, if asked, long
//! dumps of a stock client over a link that loses one datagram in a hundred, with paired acknowledgements and without.
//!
//! `cargo run --release -p netdump --example sim -- --seeds 5000 [--from 0] [--silent-holes 1000]`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

use std::{
    num::NonZero,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use netdump::{
    AckPolicy,
    sim::{From, LongDump, Order, Scenario, StockConfig, To, long_dump},
};

/// The long dumps: a faulty client of FreeBSD 13 or later at the usual MTU.
const LONG: StockConfig = StockConfig {
    order: Order::FreeBsd13,
    mtu: 1500,
    shift_fault: true,
};
const LONG_BYTES: u64 = 64 << 20;
const LONG_LOSS_PPM: u32 = 10_000;

fn number(name: &str, default: u64) -> Result<u64, String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    match (arguments.next(), arguments.next()) {
        (None, _) => Ok(default),
        (Some(_), value) => {
            let value = value.unwrap_or_default();
            value.parse().map_err(|error| format!("{name} {value:?}: {error}"))
        }
    }
}

/// Runs `one` for each number, on all processors.
fn for_each(numbers: std::ops::Range<u64>, one: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if !numbers.contains(&number) {
                        break;
                    }
                    one(number);
                }
            });
        }
    });
}

/// What the runs of one pairing came to.
#[derive(Default)]
struct Tally {
    dumps: u64,
    finished: u64,
    with_holes: u64,
    holes: u64,
}

/// What all runs came to.
#[derive(Default)]
struct Sum {
    tallies: [Tally; 9],
    virtual_time: Duration,
    broken: u64,
}

fn pairing(scenario: &Scenario) -> usize {
    let to = match scenario.to {
        To::Ours(AckPolicy::Paired) => 0,
        To::Ours(AckPolicy::Immediate) => 1,
        To::Stock => 2,
    };
    let from = match scenario.from {
        From::Ours { .. } => 0,
        From::Stock { shift_fault: false, .. } => 1,
        From::Stock { shift_fault: true, .. } => 2,
    };
    from * 3 + to
}

/// Plays the scenarios of these seeds; gives the number of those that broke a rule.
fn scenarios(seeds: std::ops::Range<u64>) -> u64 {
    let began = Instant::now();
    let sum = Mutex::new(Sum::default());
    for_each(seeds.clone(), |seed| {
        let scenario = Scenario::of_seed(seed);
        let played = scenario.run();
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        match played {
            Ok(outcome) => {
                sum.virtual_time += outcome.took;
                if let Some(tally) = sum.tallies.get_mut(pairing(&scenario)) {
                    tally.dumps += u64::from(outcome.dumps);
                    tally.finished += u64::from(outcome.finished);
                    tally.with_holes += u64::from(outcome.holes > 0);
                    tally.holes += outcome.holes;
                }
            }
            Err(what) => {
                sum.broken += 1;
                eprintln!("seed {seed}: {what}\n  {scenario:?}");
            }
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    table(&sum.tallies);
    let dumps: u64 = sum.tallies.iter().map(|tally| tally.dumps).sum();
    let (
        Sum {
            virtual_time, broken, ..
        },
        took,
    ) = (sum, began.elapsed());
    println!(
        "seeds {}..{} in {:.1} s: {dumps} dumps, {:.0} s of virtual time, {broken} broken",
        seeds.start,
        seeds.end,
        took.as_secs_f64(),
        virtual_time.as_secs_f64(),
    );
    broken
}

fn table(tallies: &[Tally; 9]) {
    println!(
        "{:38} {:>9} {:>9} {:>10} {:>9}",
        "sender -> receiver", "dumps", "finished", "with holes", "holes"
    );
    let senders = ["ours", "stock, corrected", "stock"];
    let receivers = ["ours, paired acks", "ours, immediate", "netdumpd"];
    let names = senders
        .iter()
        .flat_map(|from| receivers.iter().map(move |to| format!("{from} -> {to}")));
    for (name, tally) in names.zip(tallies) {
        let Tally {
            dumps,
            finished,
            with_holes,
            holes,
        } = tally;
        println!("{name:38} {dumps:>9} {finished:>9} {with_holes:>10} {holes:>9}");
    }
}

/// Sends `count` long dumps; gives how many of them had holes and whether all came to their end.
fn long_dumps(count: u64, policy: AckPolicy) -> Result<u64, String> {
    let began = Instant::now();
    let sum = Mutex::new((0_u64, LongDump::default(), Vec::new()));
    for_each(0..count, |seed| {
        let played = long_dump(LONG, LONG_BYTES, LONG_LOSS_PPM, policy, seed);
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        match played {
            Ok(dump) if dump.finished => {
                sum.0 += u64::from(dump.holes > 0);
                sum.1.holes += dump.holes;
                sum.1.missing_bytes += dump.missing_bytes;
                sum.1.resent_packets += dump.resent_packets;
                sum.1.took += dump.took;
            }
            Ok(_) => sum.2.push(format!("seed {seed}: the sender gave up")),
            Err(what) => sum.2.push(what),
        }
    });
    let (with_holes, total, broken) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{count} dumps of 64 MiB, MTU 1500, 1 % loss, {policy:?}: {with_holes} with silent holes ({} ranges, {} bytes), {} packets \
         sent again, {:.0} s of virtual time each, in {:.1} s",
        total.holes,
        total.missing_bytes,
        total.resent_packets,
        total.took.as_secs_f64() / f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX)),
        began.elapsed().as_secs_f64(),
    );
    if broken.is_empty() {
        Ok(with_holes)
    } else {
        Err(broken.join("\n"))
    }
}

/// Without a hole where acknowledgements are paired; where they are not, the same run has to find them.
fn silent_holes(count: u64) -> Result<(), String> {
    match long_dumps(count, AckPolicy::Paired)? {
        0 => {}
        holed => {
            return Err(format!(
                "{holed} dumps have holes although acknowledgements were paired"
            ));
        }
    }
    match long_dumps(count, AckPolicy::Immediate)? {
        0 => Err("no dump has a hole without pairing: this run cannot see the fault".to_owned()),
        _ => Ok(()),
    }
}

fn main() -> ExitCode {
    let numbers =
        [("--from", 0), ("--seeds", 5000), ("--silent-holes", 0)].map(|(name, default)| number(name, default));
    let (first, count, long) = match numbers {
        [Ok(first), Ok(count), Ok(long)] => (first, count, long),
        [Err(error), ..] | [_, Err(error), _] | [.., Err(error)] => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let broken = scenarios(first..first.saturating_add(count));
    let holes = if long > 0 { silent_holes(long) } else { Ok(()) };
    if let Err(what) = &holes {
        eprintln!("{what}");
    }
    if broken == 0 && holes.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
