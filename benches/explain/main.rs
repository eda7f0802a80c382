//! How soon a core says what crashed, beside `makedumpfile --dump-dmesg`; and how fast memory is searched for VMCOREINFO, beside a
//! plain copy of it. `COREFERRY_BENCH_SHORT` takes a smaller guest and fewer rounds.
//!
//! A stock Debian guest panics under QEMU (TCG), its dump is laid out as ours and sent to a receiver. Then both programs read the
//! stored file in turn, round after round, first with the file in the page cache, then without; a ratio is the median of the ratios
//! within a round. Needs the testbed; without it the benchmark says so.

mod cold;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/tools/guest.rs"]
mod guest;
#[path = "../shared/median.rs"]
mod median;
#[path = "../../tests/tools/ours.rs"]
#[allow(dead_code, reason = "the tests of the layout ask more of it")]
mod ours;
#[path = "../../tests/tools/run.rs"]
#[allow(dead_code, reason = "only what the guest needs")]
mod run;
mod scan;
#[path = "../../tests/tools/testbed.rs"]
mod testbed;

use std::env;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use common::{Serve, path_text, run_ok};
use guest::Guest;
use median::median;
use testbed::Testbed;

/// Memory of the guest, and rounds.
const FULL: (u32, usize) = (2048, 15);
const SHORT: (u32, usize) = (512, 3);

fn main() -> ExitCode {
    let is_short = env::var_os("COREFERRY_BENCH_SHORT").is_some();
    let (mem_mib, rounds) = if is_short { SHORT } else { FULL };
    let Some(testbed) = Testbed::find() else {
        return ExitCode::SUCCESS;
    };
    match measure(&testbed, mem_mib, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("explain FAILED: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(testbed: &Testbed, mem_mib: u32, rounds: usize) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let guest = Guest {
        mem_mib,
        below_4g_mib: mem_mib / 2,
        append: format!("crash=1 fill={}", mem_mib / 4),
        ..Guest::new(testbed)
    };
    let dump = guest::panicked_core(testbed, dir.path(), &guest)?;
    let core = dir.path().join("vmcore");
    ours::rewrite(&dump, &core, ours::Notes::All)?;
    fs::remove_file(dump)?;
    let serve = Serve::start(&dir.path().join("store"));
    run_ok(&["send", path_text(&core), "--to", &serve.netdump.to_string()]);
    let cores = serve.settled_cores(1);
    let stored = serve.vmcore_path(cores[0]["id"].as_str().context("an id")?);
    let core_dir = stored.parent().context("a core is in a folder")?;
    let len_mib = stored.metadata()?.len() >> 20;

    let mut printed = Vec::new();
    let dmesg = dir.path().join("dmesg");
    let manifest = core_dir.join("manifest.json");
    for is_cold in [false, true] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let before = || {
            if is_cold {
                cold::forget(&[&stored, &manifest])
            } else {
                Ok(())
            }
        };
        // One round that does not count fills the caches.
        for round in 0..=rounds {
            before()?;
            let explained = explain(core_dir, &mut printed)?;
            before()?;
            let dumped = dump_dmesg(testbed, &stored, &dmesg)?;
            if round > 0 {
                ours.push(explained.as_secs_f64() * 1e3);
                theirs.push(dumped.as_secs_f64() * 1e3);
            }
        }
        let place = if is_cold {
            "not in the page cache"
        } else {
            "in the page cache"
        };
        println!("\na core of {len_mib} MiB explained ({rounds} rounds, file {place})");
        print(ours, theirs);
    }
    let explanation: serde_json::Value = serde_json::from_slice(&printed)?;
    let last = |text: &str| text.trim_end().lines().last().map(str::to_owned);
    let log = explanation["log"].as_str().context("an explanation has the log")?;
    ensure!(
        explanation["crash"]["kind"] == "sysrq" && last(log) == last(&fs::read_to_string(&dmesg)?),
        "what was explained is not what was dumped: {}",
        explanation["crash"]
    );
    scan::run(&stored, rounds)
}

/// The medians, and that of the ratios within a round; times in milliseconds.
fn print(ours: Vec<f64>, theirs: Vec<f64>) {
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    for (name, value, unit) in [
        ("coreferry explain-core", median(ours), "ms (median)"),
        ("makedumpfile --dump-dmesg", median(theirs), "ms (median)"),
        ("ratio", median(ratios), "(median of the rounds)"),
    ] {
        println!("{name:<40} {value:>9.3} {unit}");
    }
}

/// What the receiver runs for each core, by a pipe as there.
fn explain(core_dir: &Path, printed: &mut Vec<u8>) -> Result<Duration> {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_coreferry"))
        .arg("explain-core")
        .arg(core_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    printed.clear();
    child.stdout.take().context("a pipe")?.read_to_end(printed)?;
    let status = child.wait()?;
    ensure!(status.success(), "explain-core ended with {status}");
    Ok(start.elapsed())
}

fn dump_dmesg(testbed: &Testbed, vmcore: &Path, dmesg: &Path) -> Result<Duration> {
    // It does not overwrite.
    let _ = fs::remove_file(dmesg);
    // By its own loader, as the testbed's script does, but without the time that a shell takes.
    let libraries = ["pkgs/lib/x86_64-linux-gnu", "pkgs/usr/lib/x86_64-linux-gnu"].map(|part| testbed.path(part));
    let mut command = Command::new(testbed.path("pkgs/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(env::join_paths(libraries)?)
        .arg(testbed.path("pkgs/usr/bin/makedumpfile"));
    timed(command.arg("--dump-dmesg").arg(vmcore).arg(dmesg).stdout(Stdio::null()))
}

fn timed(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status()?;
    let took = start.elapsed();
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(took)
}
