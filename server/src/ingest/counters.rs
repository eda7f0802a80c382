//! Numbers about sessions, for the metrics.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the receiver started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Sessions begun.
    pub(crate) sessions: AtomicU64,
    /// Sessions that run or linger.
    pub(crate) sessions_now: AtomicU64,
    /// Datagrams of sessions.
    pub(crate) packets: AtomicU64,
    /// Datagrams that came more than once.
    pub(crate) duplicate_packets: AtomicU64,
    /// Bytes stored.
    pub(crate) received_bytes: AtomicU64,
    /// Sessions that failed because of the storage.
    pub(crate) storage_failures: AtomicU64,
}

impl Counters {
    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// The numbers in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        let rows = [
            ("coreferry_sessions_total", "counter", "Sessions begun.", &self.sessions),
            (
                "coreferry_sessions",
                "gauge",
                "Sessions that run or linger.",
                &self.sessions_now,
            ),
            (
                "coreferry_packets_total",
                "counter",
                "Datagrams of sessions.",
                &self.packets,
            ),
            (
                "coreferry_duplicate_packets_total",
                "counter",
                "Datagrams that came more than once.",
                &self.duplicate_packets,
            ),
            (
                "coreferry_received_bytes_total",
                "counter",
                "Bytes stored.",
                &self.received_bytes,
            ),
            (
                "coreferry_session_storage_failures_total",
                "counter",
                "Sessions that failed because of the storage.",
                &self.storage_failures,
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, counter) in rows {
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        text
    }
}
