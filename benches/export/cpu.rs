//! Processor time.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Of the calling thread, so far, in nanoseconds as the scheduler counts it (Linux kernel documentation,
/// scheduler/sched-stats). Zero where the kernel does not count.
pub(crate) fn of_this_thread() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

/// Of all threads of a process, so far, in ticks of 10 ms (proc(5), `utime` and `stime`).
pub(crate) fn of_process(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (_, behind_name) = text.rsplit_once(") ").context("no name in it")?;
    // State is field 3, utime and stime are 14 and 15.
    let ticks = behind_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(10 * ticks.sum::<Result<u64, _>>()?))
}

/// Of all children that have ended, of a shell that ran one program, as its `times` tells it: `0m0.12s 0m0.03s` in the second line.
pub(crate) fn of_children(times: &str) -> Result<Duration> {
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
