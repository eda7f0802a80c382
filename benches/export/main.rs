//! What an exported core takes, beside what others make of the same guest: our kdump-zlib and kdump-zstd at level 31 beside
//! `makedumpfile -c -d 31` of the same file, and both without a filter beside QEMU's own kdump-zlib of the same machine.
//!
//! `cargo xtask bench export`, or with `--short` for a smaller guest and fewer rounds; it runs only by name. The guest is a stock Debian kernel under QEMU
//! of the testbed (`cargo xtask testbed`); without it the benchmark says so, and in CI fails. Everyone has one thread, and what is
//! counted is processor time: of one's own thread, of makedumpfile's process, of QEMU's while the machine stands still. Each is measured
//! once a round, and a ratio is the median of the ratios within a round.
//!
//! - [`others`]: QEMU and makedumpfile
//! - [`cpu`]: processor time

#[allow(dead_code, reason = "each benchmark counts its own kinds")]
#[path = "../shared/cpu.rs"]
mod cpu;
#[path = "../../tests/tools/guest.rs"]
#[allow(dead_code, reason = "the tests have other guests too")]
mod guest;
#[path = "../shared/median.rs"]
mod median;
mod others;
#[path = "../../tests/tools/ours.rs"]
#[allow(dead_code, reason = "the tests ask more of it")]
mod ours;
#[path = "../../tests/tools/run.rs"]
#[allow(dead_code, reason = "the tests run more programs")]
mod run;
#[path = "../../tests/tools/testbed.rs"]
mod testbed;

/// What the parts that are shared with tests expect of theirs.
mod common {
    /// Something is missing: in CI that is a failure.
    pub(crate) fn skip(why: &str) {
        assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{why}");
        println!("skipped: {why}");
    }
}

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use server::VmcoreBytes;
use server::codecs::Codecs;
use server::export::{ExportFormat, ExportOptions, FileSink, Selection, export};
use vmcore::dumpfile::DumpFile;
use vmcore::linux::filter::FilterLevel;

use guest::Guest;
use median::median;
use testbed::Testbed;

/// What one of them did.
#[derive(Debug, Clone, Copy)]
struct Sample {
    cpu: Duration,
    took: Duration,
    file_len_bytes: u64,
}

/// Everything but what a debugger needs.
const ALL: u8 = 31;

fn main() -> Result<()> {
    let Some(testbed) = Testbed::find() else { return Ok(()) };
    let short = std::env::var_os("COREFERRY_BENCH_SHORT").is_some();
    let (mem_mib, rounds) = if short { (256, 3) } else { (2048, 7) };
    let dir = tempfile::tempdir()?;
    let guest = Guest {
        mem_mib,
        below_4g_mib: mem_mib,
        ..Guest::new(&testbed)
    };
    let mut samples = vec![Vec::new(); OURS.len() + 2];
    // The machine stands still all the time, so that it can be dumped again in each round.
    guest::panicked(&testbed, dir.path(), &guest, &mut |machine| {
        let dump = dir.path().join("qemu.elf");
        others::elf(machine, dir.path(), &dump)?;
        // makedumpfile does not take QEMU's own.
        let core = ours::rewrite(&dump, &dir.path().join("vmcore"), ours::Notes::All)?.path;
        std::fs::remove_file(dump)?;
        // The first round faults pages in and does not count.
        for round in 0..=rounds {
            let ours = OURS
                .iter()
                .map(|(format, level)| export_it(&core, dir.path(), format, *level));
            let made: Vec<Sample> = ours.collect::<Result<_>>()?;
            let theirs = others::makedumpfile(&testbed, dir.path(), &core, ALL)?;
            let qemu = others::qemu(machine, dir.path(), round)?;
            if round > 0 {
                for (samples, sample) in samples.iter_mut().zip(made.into_iter().chain([theirs, qemu])) {
                    samples.push(sample);
                }
            }
        }
        Ok(())
    })?;
    print(mem_mib, rounds, &samples);
    Ok(())
}

/// What we make.
const OURS: [(&str, u8); 9] = [
    ("kdump-zlib", ALL),
    ("kdump-zstd", ALL),
    ("kdump-lzo", ALL),
    ("kdump-uncompressed", ALL),
    ("kdump-zlib", 0),
    ("kdump-zstd", 0),
    ("kdump-lzo", 0),
    ("kdump-snappy", 0),
    ("kdump-uncompressed", 0),
];
/// Where makedumpfile and QEMU stand behind them.
const MAKEDUMPFILE: usize = OURS.len();
const QEMU: usize = OURS.len() + 1;

/// Exports the core, as `cores export --threads 1` does.
fn export_it(core: &Path, dir: &Path, format: &str, level: u8) -> Result<Sample> {
    let target = dir.join("ours");
    let (cpu, start) = (cpu::of_this_thread(), Instant::now());
    let file = File::open(core)?;
    let len = file.metadata()?.len();
    let opened = DumpFile::open(VmcoreBytes::of(file, len, &[]), Codecs)?;
    let mut selection = Selection::of(&opened)?;
    let level = FilterLevel::new(level).context("no level")?;
    selection.filter(&opened, level).map_err(anyhow::Error::msg)?;
    let options = ExportOptions {
        format: ExportFormat::parse(format).context("no format")?,
        threads: 1,
        dump_level: level.number().into(),
        timestamp_s: 0,
    };
    let to = File::create(&target)?;
    export(&opened, &selection, &options, &mut FileSink(&to), &mut |_| {})?;
    let sample = Sample {
        cpu: cpu::of_this_thread().saturating_sub(cpu),
        took: start.elapsed(),
        file_len_bytes: to.metadata()?.len(),
    };
    std::fs::remove_file(target)?;
    Ok(sample)
}

fn print(mem_mib: u32, rounds: usize, samples: &[Vec<Sample>]) {
    println!(
        "\n{mem_mib} MiB of a Debian kernel that has just panicked, {rounds} rounds, one thread each, processor time\n"
    );
    println!(
        "{:38} {:>9} {:>9} {:>10} {:>8} {:>8}",
        "", "CPU ms", "took ms", "MiB", "size x", "speed x"
    );
    let names = OURS.iter().map(|(format, level)| format!("{format}, level {level}"));
    let names = names.chain(["makedumpfile -c -d 31".to_owned(), "QEMU's kdump-zlib".to_owned()]);
    for (index, (name, own)) in names.zip(samples).enumerate() {
        let is_whole = index == QEMU || OURS.get(index).is_some_and(|(_, level)| *level == 0);
        let Some(beside) = samples.get(if is_whole { QEMU } else { MAKEDUMPFILE }) else {
            continue;
        };
        let of = |value: &dyn Fn(&Sample) -> f64| median(own.iter().map(value));
        let ratio = |value: &dyn Fn(&Sample, &Sample) -> f64| {
            median(own.iter().zip(beside).map(|(own, other)| value(own, other)))
        };
        println!(
            "{name:38} {:>9.0} {:>9.0} {:>10.1} {:>8.3} {:>8.2}",
            of(&|sample| sample.cpu.as_secs_f64() * 1e3),
            of(&|sample| sample.took.as_secs_f64() * 1e3),
            of(&|sample| mib(sample.file_len_bytes)),
            ratio(&|own, other| mib(own.file_len_bytes) / mib(other.file_len_bytes)),
            ratio(&|own, other| other.cpu.as_secs_f64() / own.cpu.as_secs_f64()),
        );
    }
    println!(
        "\nsize and speed: level 31 beside makedumpfile, level 0 beside QEMU; speed is the other's time by one's own"
    );
}

#[allow(clippy::cast_precision_loss, reason = "lengths of files that a benchmark makes")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
