//! What the receiver takes of stock traffic, and what it costs: beside a sink that stores nothing, and a copy of the same
//! bytes as a file. All in one run, on the disk of the temporary folder, each receiver a process of its own.
//!
//! `cargo xtask bench receiver`, or with `--short` for a rough figure within seconds.

#[allow(dead_code, reason = "each benchmark counts its own kinds")]
#[path = "../shared/cpu.rs"]
mod cpu;
#[path = "../shared/median.rs"]
mod median;
mod sender;
mod sink;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use median::median;

/// The first argument of this program when it is to be the sink.
const SINK: &str = "sink";
/// Processor time is told per GiB.
const GIB: f64 = (1_u64 << 30) as f64;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(SINK) {
        let address = arguments.next().context("the sink needs an address")?;
        return sink::run(address.parse()?);
    }
    let short = std::env::var_os("COREFERRY_BENCH_SHORT").is_some();
    let (mib, rounds) = if short { (64, 2) } else { (1024, 5) };
    let dir = tempfile::Builder::new().prefix("coreferry-bench-").tempdir()?;
    let bytes = sender::noise(mib << 20);
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..rounds {
        for (name, case) in CASES {
            let sample = match case {
                Case::Sink(mtu) => measure_sink(&bytes, *mtu)?,
                Case::Receiver(mtu, policy) => measure_receiver(dir.path(), &bytes, *mtu, policy)?,
                Case::Copy => measure_copy(dir.path(), &bytes)?,
            };
            match rows.iter_mut().find(|row| row.name == *name) {
                Some(row) => row.samples.push(sample),
                None => rows.push(Row {
                    name,
                    samples: vec![sample],
                }),
            }
            eprintln!("round {} of {rounds}: {name}", round + 1);
        }
    }
    print(&rows, mib, rounds);
    Ok(())
}

/// What is measured.
enum Case {
    /// recvmmsg(2) and acknowledgements, and nothing stored. MTU.
    Sink(usize),
    /// `coreferry serve`: MTU, acknowledgement policy.
    Receiver(usize, &'static str),
    /// A file is copied and synced.
    Copy,
}

const CASES: &[(&str, Case)] = &[
    ("bare sink, MTU 1500", Case::Sink(1500)),
    ("receiver, MTU 1500, paired", Case::Receiver(1500, "paired")),
    ("receiver, MTU 1500, immediate", Case::Receiver(1500, "immediate")),
    ("bare sink, MTU 9000", Case::Sink(9000)),
    ("receiver, MTU 9000", Case::Receiver(9000, "paired")),
    ("file copy and sync", Case::Copy),
];

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Sample {
    packets: u64,
    bytes: usize,
    /// From the herald to the acknowledgement of FINISHED.
    took: Duration,
    /// Processor time of the receiving process meanwhile.
    cpu: Duration,
}

struct Row {
    name: &'static str,
    samples: Vec<Sample>,
}

impl Sample {
    fn mb_per_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }

    fn packets_per_s(&self) -> f64 {
        self.packets as f64 / self.took.as_secs_f64()
    }

    fn cpu_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() * GIB / self.bytes as f64
    }
}

impl Row {
    /// The median over the rounds.
    fn median(&self, of: fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(of))
    }

    /// The median over the rounds of the ratio within a round: whatever else the machine does slows both alike.
    fn beside(&self, other: &Self, of: fn(&Sample) -> f64) -> f64 {
        let pairs = self.samples.iter().zip(&other.samples);
        median(pairs.map(|(own, other)| of(own) / of(other)))
    }
}

fn measure_sink(bytes: &[u8], mtu: usize) -> Result<Sample> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([SINK, "127.0.0.1:0"]);
    let running = Running::start(command)?;
    running.measure(bytes, mtu)
}

fn measure_receiver(dir: &Path, bytes: &[u8], mtu: usize, policy: &str) -> Result<Sample> {
    let store = dir.join("store");
    let mut command = Command::new(env!("CARGO_BIN_EXE_coreferry"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    command.args(["--ack-policy", policy, "--dir"]).arg(&store);
    command.env_remove("RUST_LOG");
    let running = Running::start(command)?;
    let sample = running.measure(bytes, mtu)?;
    let mut list = Command::new(env!("CARGO_BIN_EXE_coreferry"));
    let listed = list.args(["cores", "list", "--json", "--dir"]).arg(&store).output()?;
    let cores: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
    let core = &cores[0];
    ensure!(
        core["state"] == "complete" && core["stored_bytes"] == bytes.len(),
        "not all of it is there: {core}"
    );
    drop(running);
    std::fs::remove_dir_all(&store)?;
    Ok(sample)
}

fn measure_copy(dir: &Path, bytes: &[u8]) -> Result<Sample> {
    let (from, to) = (dir.join("from"), dir.join("to"));
    std::fs::write(&from, bytes)?;
    std::fs::File::open(&from)?.sync_all()?;
    let (began, cpu) = (Instant::now(), cpu::of_process(std::process::id())?);
    std::fs::copy(&from, &to)?;
    std::fs::File::open(&to)?.sync_all()?;
    let sample = Sample {
        packets: 0,
        bytes: bytes.len(),
        took: began.elapsed(),
        cpu: cpu::of_process(std::process::id())? - cpu,
    };
    std::fs::remove_file(from)?;
    std::fs::remove_file(to)?;
    Ok(sample)
}

/// A receiving process; it ends with this.
struct Running {
    child: Child,
    address: SocketAddrV4,
}

impl Running {
    /// Starts it and waits for its line `ready netdump=ADDRESS …`.
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("a pipe")?;
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let address = line.split(' ').find_map(|word| word.strip_prefix("netdump="));
        let address = address.and_then(|address| address.trim().parse().ok());
        match (read, address) {
            (Ok(_), Some(address)) => Ok(Self { child, address }),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("no ready line: {line}")
            }
        }
    }

    fn measure(&self, bytes: &[u8], mtu: usize) -> Result<Sample> {
        let cpu = cpu::of_process(self.child.id())?;
        let began = Instant::now();
        let packets = sender::dump(self.address, bytes, mtu)?;
        Ok(Sample {
            packets,
            bytes: bytes.len(),
            took: began.elapsed(),
            cpu: cpu::of_process(self.child.id())? - cpu,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn print(rows: &[Row], mib: usize, rounds: usize) {
    println!("\nStock traffic of {mib} MiB, medians of {rounds} rounds; CPU is that of the receiving process");
    println!(
        "{:<32} {:>8} {:>11} {:>10} {:>11} {:>10}",
        "", "MB/s", "packets/s", "CPU s/GiB", "rate/sink", "CPU/sink"
    );
    for row in rows {
        let mtu = row.name.split(", ").find(|part| part.starts_with("MTU"));
        let sink = rows
            .iter()
            .find(|other| other.name.starts_with("bare sink") && mtu.is_some_and(|mtu| other.name.ends_with(mtu)));
        let beside =
            |of: fn(&Sample) -> f64| sink.map_or_else(|| "-".to_owned(), |sink| format!("{:.2}", row.beside(sink, of)));
        println!(
            "{:<32} {:>8.0} {:>11.0} {:>10.2} {:>11} {:>10}",
            row.name,
            row.median(Sample::mb_per_s),
            row.median(Sample::packets_per_s),
            row.median(Sample::cpu_per_gib),
            beside(Sample::mb_per_s),
            beside(Sample::cpu_per_gib),
        );
    }
}
