//! QEMU and makedumpfile.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::guest::Stopped;
use crate::testbed::Testbed;
use crate::{Sample, cpu, run};

/// The longest that anything takes here.
const LIMIT: Duration = Duration::from_secs(600);

/// Has QEMU dump its machine as ELF to `core`.
pub(crate) fn elf(machine: &mut Stopped, dir: &Path, core: &Path) -> Result<()> {
    command(machine, &format!("dump-guest-memory {}", core.display()), dir, 1)
}

/// QEMU's own compressed form of its machine, in the `round`th round.
pub(crate) fn qemu(machine: &mut Stopped, dir: &Path, round: usize) -> Result<Sample> {
    let file = dir.join("qemu.kdump");
    let dump = format!("dump-guest-memory -z {}", file.display());
    let (cpu, start) = (cpu::of_process(machine.pid)?, Instant::now());
    command(machine, &dump, dir, round + 2)?;
    let sample = Sample {
        cpu: cpu::of_process(machine.pid)?.saturating_sub(cpu),
        took: start.elapsed(),
        file_len_bytes: file.metadata()?.len(),
    };
    fs::remove_file(file)?;
    Ok(sample)
}

/// Gives the monitor a command and waits until it has answered another one behind it, the `count`th.
fn command(machine: &mut Stopped, command: &str, dir: &Path, count: usize) -> Result<()> {
    writeln!(machine.monitor, "{command}\ninfo uuid")?;
    let deadline = Instant::now() + LIMIT;
    while fs::read_to_string(dir.join("monitor.log"))?
        .matches("00000000-0000")
        .count()
        < count
    {
        ensure!(Instant::now() < deadline, "{command}: no answer");
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// `makedumpfile -c -d LEVEL`.
pub(crate) fn makedumpfile(testbed: &Testbed, dir: &Path, core: &Path, level: u8) -> Result<Sample> {
    let target = dir.join("theirs");
    let mut makedumpfile = testbed.command("makedumpfile");
    makedumpfile
        .args(["-c", "-d", &level.to_string()])
        .arg(core)
        .arg(&target);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "\"$@\" && times", "sh"])
        .arg(makedumpfile.get_program());
    shell.args(makedumpfile.get_args());
    let start = Instant::now();
    let said = run::output(&mut shell, dir, "", LIMIT)?;
    let sample = Sample {
        cpu: of_children(&said).with_context(|| said.clone())?,
        took: start.elapsed(),
        file_len_bytes: target.metadata()?.len(),
    };
    fs::remove_file(target)?;
    Ok(sample)
}

/// Processor time of all children that have ended, of a shell that ran one program, as its `times` tells it: `0m0.12s 0m0.03s` in the second line.
fn of_children(times: &str) -> Result<Duration> {
    let line = times
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .context("nothing told")?;
    let mut sum = Duration::ZERO;
    for time in line.split_whitespace() {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').context("no minutes")?;
        sum += Duration::from_secs(60 * minutes.parse::<u64>()?) + Duration::from_secs_f64(seconds.parse()?);
    }
    Ok(sum)
}
