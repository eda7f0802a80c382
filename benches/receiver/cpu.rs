//! Processor time of a process.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// User and system time of all threads so far, those that ended among them (proc_pid_stat(5), fields 14 and 15).
pub(crate) fn of_process(pid: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(')').context("a name in brackets")?.1;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || times.next().context("a field")?.context("a number");
    let ticks = next()? + next()?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}
