//! How long things take and how large they are, as histograms.

use std::fmt::Write as _;

use crate::histogram::{Histogram, Unit};
use crate::limits::{ACK_BOUNDS_NS, CORE_BOUNDS_BYTES, RECEIVE_BOUNDS_NS};
use crate::store;

/// The histograms of a receiver.
#[derive(Debug)]
pub(crate) struct Shapes {
    /// Lengths of the cores' files, holes included.
    pub(crate) core_logical: Histogram,
    /// Stored bytes of cores.
    pub(crate) core_stored: Histogram,
    /// From the first message of a dump to its core.
    pub(crate) receive: Histogram,
    /// From data that came to its acknowledgement.
    pub(crate) ack: Histogram,
}

impl Default for Shapes {
    fn default() -> Self {
        Self {
            core_logical: Histogram::new(&CORE_BOUNDS_BYTES),
            core_stored: Histogram::new(&CORE_BOUNDS_BYTES),
            receive: Histogram::new(&RECEIVE_BOUNDS_NS),
            ack: Histogram::new(&ACK_BOUNDS_NS),
        }
    }
}

impl Shapes {
    /// All of them in the text format of Prometheus, that of the store among them.
    pub(crate) fn render(&self, text: &mut String) {
        head(
            text,
            "coreferry_core_bytes",
            "Sizes of cores: of the file, and of what is stored of it.",
        );
        let bytes = [
            ("kind=\"logical\",", &self.core_logical),
            ("kind=\"stored\",", &self.core_stored),
        ];
        for (labels, sizes) in bytes {
            sizes.render(text, "coreferry_core_bytes", labels, Unit::Bytes);
        }
        for (name, help, times) in [
            (
                "coreferry_receive_duration_seconds",
                "From the first message of a dump to its core.",
                &self.receive,
            ),
            (
                "coreferry_ack_latency_seconds",
                "From data that came to its acknowledgement.",
                &self.ack,
            ),
            (
                "coreferry_fsync_duration_seconds",
                "Time that the disk takes to make a dump's bytes durable.",
                &store::FSYNC,
            ),
        ] {
            head(text, name, help);
            times.render(text, name, "", Unit::Seconds);
        }
    }
}

fn head(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
}
