//! How the dumps that brought bytes ended, and what had crashed, for the metrics.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::examine::Ending;

/// Why a dump is not a complete core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The sender said that it was done, and bytes or its header are missing.
    Holes,
    /// The sender fell silent.
    Timeout,
    /// The receiver ended amid the dump, and nobody went on with it.
    LeftOver,
    /// The bytes, or the core, could not be stored.
    Storage,
    /// A limit stood against it.
    Refused,
}

impl Failed {
    const ALL: [Self; 5] = [Self::Holes, Self::Timeout, Self::LeftOver, Self::Storage, Self::Refused];

    /// What an ending means for a core that is not complete.
    const fn of(ending: &Ending) -> Self {
        match ending {
            Ending::Finished => Self::Holes,
            Ending::Silent { .. } => Self::Timeout,
            Ending::LeftOver => Self::LeftOver,
            Ending::Storage(_) => Self::Storage,
            Ending::Refused(_) => Self::Refused,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Holes => "holes",
            Self::Timeout => "timeout",
            Self::LeftOver => "left-over",
            Self::Storage => "storage",
            Self::Refused => "refused",
        }
    }
}

/// Operating systems by the first word of what the sender says of the kernel; the last stands for all others.
const SYSTEMS: [(&str, &str); 3] = [("Linux", "linux"), ("FreeBSD", "freebsd"), ("", "other")];

/// Counts since the receiver started.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    failed: [AtomicU64; Failed::ALL.len()],
    crashes: [AtomicU64; SYSTEMS.len()],
}

impl Endings {
    /// Counts a dump that became no complete core.
    pub(crate) fn failed(&self, ending: &Ending) {
        self.failed_by(Failed::of(ending));
    }

    /// The same for a reason that is no ending.
    pub(crate) fn failed_by(&self, why: Failed) {
        if let Some(count) = self.failed.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a guest that crashed; `kernel` is its operating system and release, where known.
    pub(crate) fn crashed(&self, kernel: Option<&str>) {
        let kernel = kernel.unwrap_or_default();
        let mut systems = SYSTEMS.iter().zip(&self.crashes);
        if let Some((_, count)) = systems.find(|((word, _), _)| kernel.starts_with(word)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The numbers in the text format of Prometheus.
    pub(crate) fn render(&self, text: &mut String) {
        let failed = Failed::ALL.map(Failed::name);
        let crashes = SYSTEMS.map(|(_, name)| name);
        rows(
            text,
            "coreferry_session_failures_total",
            "Dumps that became no complete core, by reason.",
            ("reason", &failed),
            &self.failed,
        );
        rows(
            text,
            "coreferry_crashes_total",
            "Guests whose cores came, by operating system.",
            ("guest_os", &crashes),
            &self.crashes,
        );
    }
}

fn rows(text: &mut String, name: &str, help: &str, (label, values): (&str, &[&str]), counts: &[AtomicU64]) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (value, count) in values.iter().zip(counts) {
        let count = count.load(Ordering::Relaxed);
        let _ = writeln!(text, "{name}{{{label}=\"{value}\"}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_and_each_system_has_a_row_of_its_own() {
        let endings = Endings::default();
        for ending in [
            Ending::Finished,
            Ending::Silent { silent_s: 61 },
            Ending::LeftOver,
            Ending::Storage(String::new()),
            Ending::Refused(String::new()),
        ] {
            endings.failed(&ending);
        }
        endings.failed_by(Failed::Storage);
        for kernel in [Some("Linux 6.1.0-18-amd64"), Some("FreeBSD 14.1"), Some("Redox"), None] {
            endings.crashed(kernel);
        }
        let mut text = String::new();
        endings.render(&mut text);
        let rows: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            rows,
            [
                "coreferry_session_failures_total{reason=\"holes\"} 1",
                "coreferry_session_failures_total{reason=\"timeout\"} 1",
                "coreferry_session_failures_total{reason=\"left-over\"} 1",
                "coreferry_session_failures_total{reason=\"storage\"} 2",
                "coreferry_session_failures_total{reason=\"refused\"} 1",
                "coreferry_crashes_total{guest_os=\"linux\"} 1",
                "coreferry_crashes_total{guest_os=\"freebsd\"} 1",
                "coreferry_crashes_total{guest_os=\"other\"} 2",
            ]
        );
    }
}
