//! A program that is run to its end, and what it took: processor time, and memory at its largest.

use std::fs::File;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::Result;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The largest resident memory of any program run so far, in KiB: the kernel keeps no other number (getrusage(2)). Some
    /// kernels count in what this test itself has, as each program begins as a part of it.
    pub(crate) peak_kib_so_far: u64,
}

/// Runs a program to its end. No other one may run, or end, meanwhile.
pub(crate) fn run(command: &mut Command, printed: &File) -> Result<(Output, Taken)> {
    let before = cpu()?;
    let output = command.stdin(Stdio::null()).stdout(printed.try_clone()?).output()?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let taken = Taken {
        cpu: cpu()?.saturating_sub(before),
        peak_kib_so_far: u64::try_from(usage.max_rss())?,
    };
    Ok((output, taken))
}

/// Of all programs that have ended.
fn cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// This test's own.
pub(crate) fn own_peak_kib() -> Result<u64> {
    Ok(u64::try_from(getrusage(UsageWho::RUSAGE_SELF)?.max_rss())?)
}

/// Whether a program ended by itself, and without panicking.
pub(crate) fn has_survived(status: ExitStatus, said: &str) -> bool {
    status.code().is_some_and(|code| code != 101) && !said.contains("panicked")
}
