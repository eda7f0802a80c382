//! Numbers about sessions, for the metrics.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::endings::Endings;
use super::shapes::Shapes;

/// Counts since the receiver started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Sessions begun.
    pub(crate) sessions: AtomicU64,
    /// Sessions that run or linger.
    pub(crate) sessions_now: AtomicU64,
    /// Heralds that came, repeats among them.
    pub(crate) heralds: AtomicU64,
    /// Heralds that were answered and have brought no data yet.
    pub(crate) half_open_now: AtomicU64,
    /// Sessions that outlived the receiver they began with.
    pub(crate) resumed: AtomicU64,
    /// Datagrams that the kernel dropped because a socket's buffer was full.
    pub(crate) kernel_drops: AtomicU64,
    /// Datagrams of sessions.
    pub(crate) packets: AtomicU64,
    /// Datagrams that came more than once.
    pub(crate) duplicate_packets: AtomicU64,
    /// Datagrams that are no messages, or belong to no session.
    pub(crate) dropped_packets: AtomicU64,
    /// Bytes stored.
    pub(crate) received_bytes: AtomicU64,
    /// Events whose hooks were not run because too many were waiting.
    pub(crate) hooks_dropped: AtomicU64,
    /// Events that an address was told of.
    pub(crate) webhooks_delivered: AtomicU64,
    /// Tries to tell one that failed and are made again.
    pub(crate) webhooks_failed: AtomicU64,
    /// Events that an address could not be told of.
    pub(crate) webhooks_dead: AtomicU64,
    /// How dumps ended, and what had crashed.
    pub(crate) endings: Endings,
    /// How long things take, and how large they are.
    pub(crate) shapes: Shapes,
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
                "coreferry_heralds_total",
                "counter",
                "Heralds that came.",
                &self.heralds,
            ),
            (
                "coreferry_sessions_half_open",
                "gauge",
                "Heralds answered that have brought no data yet.",
                &self.half_open_now,
            ),
            (
                "coreferry_sessions_resumed_total",
                "counter",
                "Sessions that went on after a restart of the receiver.",
                &self.resumed,
            ),
            (
                "coreferry_udp_receive_drops_total",
                "counter",
                "Datagrams the kernel dropped because a socket's buffer was full.",
                &self.kernel_drops,
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
                "coreferry_dropped_packets_total",
                "counter",
                "Datagrams that are no messages, or belong to no session.",
                &self.dropped_packets,
            ),
            (
                "coreferry_received_bytes_total",
                "counter",
                "Bytes stored.",
                &self.received_bytes,
            ),
            (
                "coreferry_hooks_dropped_total",
                "counter",
                "Events whose hooks were not run because too many were waiting.",
                &self.hooks_dropped,
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, counter) in rows {
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        let name = "coreferry_webhook_deliveries_total";
        let help = "Deliveries to webhooks, by how they ended.";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for (result, counter) in [
            ("delivered", &self.webhooks_delivered),
            ("retried", &self.webhooks_failed),
            ("dead", &self.webhooks_dead),
        ] {
            let _ = writeln!(
                text,
                "{name}{{result=\"{result}\"}} {}",
                counter.load(Ordering::Relaxed)
            );
        }
        self.endings.render(&mut text);
        self.shapes.render(&mut text);
        text
    }
}
