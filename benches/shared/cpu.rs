//! Processor time so far.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Of the calling thread, in nanoseconds as the scheduler counts it (Linux kernel documentation, scheduler/sched-stats). Zero where
/// the kernel does not count.
pub(crate) fn of_this_thread() -> Duration {
    scheduled("/proc/thread-self/schedstat")
}

/// Of a process with one thread, likewise.
pub(crate) fn of_single_threaded(pid: u32) -> Duration {
    scheduled(&format!("/proc/{pid}/schedstat"))
}

fn scheduled(path: &str) -> Duration {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let first = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

/// User and system time of all threads of a process, those that ended among them (proc_pid_stat(5), fields 14 and 15).
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
