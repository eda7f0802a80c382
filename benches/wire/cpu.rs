//! Processor time, in nanoseconds, as the scheduler counts it (Linux kernel documentation, scheduler/sched-stats).

use std::time::Duration;

/// Of the calling thread, so far.
pub(crate) fn of_this_thread() -> Duration {
    read("/proc/thread-self/schedstat")
}

/// Of a process with one thread, so far.
pub(crate) fn of_process(pid: u32) -> Duration {
    read(&format!("/proc/{pid}/schedstat"))
}

/// Zero where the kernel does not count.
fn read(path: &str) -> Duration {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let first = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}
