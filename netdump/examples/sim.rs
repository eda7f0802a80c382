//! Plays simulated dumps, one for each seed, and says which seed broke a rule.
//!
//! `cargo run --release -p netdump --example sim -- --seeds 5000 [--from 0] [--seconds 300]`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

use std::{process::ExitCode, time::Instant};

use netdump::{
    AckPolicy,
    sim::{From, Scenario, To},
};

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

/// What the runs of one pairing came to.
#[derive(Default)]
struct Tally {
    dumps: u64,
    finished: u64,
    with_holes: u64,
    holes: u64,
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

fn main() -> ExitCode {
    let numbers =
        [("--from", 0), ("--seeds", 5000), ("--seconds", u64::MAX)].map(|(name, default)| number(name, default));
    let (first, count, seconds) = match numbers {
        [Ok(first), Ok(count), Ok(seconds)] => (first, count, seconds),
        [Err(error), ..] | [_, Err(error), _] | [.., Err(error)] => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let mut tallies: [Tally; 9] = Default::default();
    let mut virtual_s = 0.0;
    let mut broken = 0;
    let mut played = 0;
    for seed in first..first.saturating_add(count) {
        if began.elapsed().as_secs() >= seconds {
            break;
        }
        played += 1;
        let scenario = Scenario::of_seed(seed);
        match scenario.run() {
            Ok(outcome) => {
                virtual_s += outcome.took.as_secs_f64();
                if let Some(tally) = tallies.get_mut(pairing(&scenario)) {
                    tally.dumps += u64::from(outcome.dumps);
                    tally.finished += u64::from(outcome.finished);
                    tally.with_holes += u64::from(outcome.holes > 0);
                    tally.holes += outcome.holes;
                }
            }
            Err(what) => {
                broken += 1;
                eprintln!("seed {seed}: {what}\n  {scenario:?}");
            }
        }
    }
    let took = began.elapsed();
    println!(
        "{:38} {:>9} {:>9} {:>10} {:>9}",
        "sender -> receiver", "dumps", "finished", "with holes", "holes"
    );
    let senders = ["ours", "stock, corrected", "stock"];
    let receivers = ["ours, paired acks", "ours, immediate", "netdumpd"];
    let names = senders
        .iter()
        .flat_map(|from| receivers.iter().map(move |to| format!("{from} -> {to}")));
    for (
        name,
        Tally {
            dumps,
            finished,
            with_holes,
            holes,
        },
    ) in names.zip(&tallies)
    {
        println!("{name:38} {dumps:>9} {finished:>9} {with_holes:>10} {holes:>9}");
    }
    let dumps: u64 = tallies.iter().map(|tally| tally.dumps).sum();
    println!(
        "seeds {first}..{} in {:.1} s ({:.0} a second): {dumps} dumps, {virtual_s:.0} s of virtual time, {broken} broken",
        first.saturating_add(played),
        took.as_secs_f64(),
        (played as f64) / took.as_secs_f64().max(1e-9),
    );
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
