//! A dump through the dump port, by each wire, beside a plain UDP sender and a copy of the same bytes in memory.
//!
//! `cargo xtask bench wire`, or with `--short` for a rough figure within seconds. Everything is in a network namespace of
//! its own, so it needs root; `stream` needs passt(1) of the testbed. What is missing is told, and in CI it is a failure.
//! Every case is measured once a round, and a ratio is the median of the ratios within a round.
//!
//! - [`dump`]: a machine that stands still, through the dump port
//! - [`plain`]: a UDP socket, with and without segmentation offload
//! - [`sink`]: the other end of both: takes every packet, answers it, keeps its bytes
//! - [`place`]: the namespace, its TAP, and passt
//! - [`cpu`]: processor time

#[allow(dead_code, reason = "each benchmark counts its own kinds")]
#[path = "../shared/cpu.rs"]
mod cpu;
mod dump;
#[path = "../shared/median.rs"]
mod median;
mod place;
mod plain;
mod sink;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use median::median;

use dump::Machine;
use place::Place;
use sink::Sink;

/// Processor time is told per GiB.
const GIB: f64 = (1_u64 << 30) as f64;

/// One measurement.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    bytes: u64,
    took: Duration,
    /// Of the thread that sends.
    sender_cpu: Duration,
    /// Of passt, where it stands between.
    relay_cpu: Duration,
    /// Of the thread that receives.
    sink_cpu: Duration,
}

/// What is measured.
type Case<'a> = (String, Box<dyn Fn() -> Result<Sample> + 'a>);

fn main() -> Result<()> {
    let short = std::env::var_os("COREFERRY_BENCH_SHORT").is_some();
    let (mib, rounds) = if short { (8, 3) } else { (256, 7) };
    let place = Place::enter();
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    for missing in place.missing() {
        ensure!(!in_ci, "{missing}");
        println!("skipped: {missing}");
    }
    let machine = Machine::of_len(mib << 20);
    let file = machine.file()?;
    let cases = cases(&place, &machine, &file);
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); cases.len()];
    // The first round faults pages in and does not count.
    for round in 0..=rounds {
        for ((name, measure), samples) in cases.iter().zip(&mut samples) {
            let sample = measure().with_context(|| name.clone())?;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    print(&cases, &samples, mib, rounds);
    Ok(())
}

fn cases<'a>(place: &'a Place, machine: &'a Machine, file: &'a [u8]) -> Vec<Case<'a>> {
    let mut cases: Vec<Case<'a>> = vec![("memcpy".to_owned(), Box::new(|| Ok(copy(file))))];
    cases.push(("reading the core, to nobody".to_owned(), Box::new(|| machine.read())));
    for mtu in [1500, 9000] {
        for (segmented, how) in [(false, "a call a packet"), (true, "UDP_SEGMENT")] {
            let name = format!("plain UDP, MTU {mtu}, {how}");
            cases.push((name, Box::new(move || plain_case(file, mtu, segmented))));
        }
    }
    for mtu in [1500, 9000] {
        for way in place.ways() {
            let name = format!("dump, {way}, MTU {mtu}");
            cases.push((name, Box::new(move || dump_case(place, &way, machine, file, mtu))));
        }
    }
    cases
}

fn copy(bytes: &[u8]) -> Sample {
    let mut to = vec![1_u8; bytes.len()];
    let (start, cpu) = (Instant::now(), cpu::of_this_thread());
    to.copy_from_slice(std::hint::black_box(bytes));
    std::hint::black_box(&mut to);
    Sample {
        bytes: bytes.len() as u64,
        took: start.elapsed(),
        sender_cpu: cpu::of_this_thread().saturating_sub(cpu),
        ..Sample::default()
    }
}

fn plain_case(file: &[u8], mtu: u16, segmented: bool) -> Result<Sample> {
    let sink = Sink::start(file.len())?;
    let mut sample = plain::send(sink.address(), file, mtu, segmented)?;
    sample.sink_cpu = sink.expect(file)?;
    Ok(sample)
}

fn dump_case(place: &Place, way: &place::Way, machine: &Machine, file: &[u8], mtu: u16) -> Result<Sample> {
    let sink = Sink::start(file.len())?;
    let relay = place.relay_pid();
    let before = relay.map_or(Duration::ZERO, cpu::of_single_threaded);
    let mut sample = machine.send(way, sink.address().port(), mtu)?;
    sample.sink_cpu = sink.expect(file)?;
    if way.is_relayed() {
        sample.relay_cpu = relay
            .map_or(Duration::ZERO, cpu::of_single_threaded)
            .saturating_sub(before);
    }
    Ok(sample)
}

fn print(cases: &[Case<'_>], samples: &[Vec<Sample>], mib: usize, rounds: usize) {
    println!("\n{mib} MiB, median of {rounds} rounds; processor seconds per GiB of those who send, relay and receive");
    println!(
        "{:<42} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "GB/s", "/memcpy", "/plain", "sends", "relays", "receives"
    );
    let rate = |sample: &Sample| sample.bytes as f64 / sample.took.as_secs_f64() / 1e9;
    let of = |name: &str| {
        cases
            .iter()
            .position(|(own, _)| own == name)
            .and_then(|at| samples.get(at))
    };
    for ((name, _), own) in cases.iter().zip(samples) {
        let mtu = if name.contains("9000") { 9000 } else { 1500 };
        let plain = of(&format!("plain UDP, MTU {mtu}, UDP_SEGMENT"));
        let ratio = |other: Option<&Vec<Sample>>| {
            let pairs = own.iter().zip(other.into_iter().flatten());
            median(pairs.map(|(own, other)| rate(own) / rate(other)))
        };
        let per_gib = |part: fn(&Sample) -> Duration| {
            median(
                own.iter()
                    .map(|sample| part(sample).as_secs_f64() / (sample.bytes as f64 / GIB)),
            )
        };
        println!(
            "{name:<42} {:>8.3} {:>8.4} {:>8.3} {:>8.2} {:>8.2} {:>8.2}",
            median(own.iter().map(rate)),
            ratio(of("memcpy")),
            ratio(plain),
            per_gib(|sample| sample.sender_cpu),
            per_gib(|sample| sample.relay_cpu),
            per_gib(|sample| sample.sink_cpu),
        );
    }
}
