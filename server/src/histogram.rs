//! Histograms in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Most bounds that a histogram has.
const BOUNDS_MAX: usize = 12;

/// Counts of values up to each bound, in nanoseconds or in bytes.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bounds, ascending.
    bounds: &'static [u64],
    /// Values up to each bound and above the one before; the last is for those above all.
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum: AtomicU64,
}

/// What a histogram's numbers are shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Seconds, kept as nanoseconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Histogram {
    /// Counts nothing yet.
    pub(crate) const fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() <= BOUNDS_MAX, "there is room for no more");
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; BOUNDS_MAX + 1],
            sum: AtomicU64::new(0),
        }
    }

    /// Adds a value.
    pub(crate) fn add(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds a time.
    pub(crate) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the time since then.
    pub(crate) fn add_since(&self, began: Instant) {
        self.add_time(began.elapsed());
    }

    /// The lines of one series; `labels` is empty or ends with a comma.
    pub(crate) fn render(&self, text: &mut String, name: &str, labels: &str, unit: Unit) {
        let mut below = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}_bucket{{{labels}le=\"{}\"}} {below}", unit.show(*bound));
        }
        let above = self
            .counts
            .get(self.bounds.len())
            .map_or(0, |count| count.load(Ordering::Relaxed));
        let all = below + above;
        let _ = writeln!(text, "{name}_bucket{{{labels}le=\"+Inf\"}} {all}");
        let labels = match labels.trim_end_matches(',') {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let _ = writeln!(
            text,
            "{name}_sum{labels} {}",
            unit.show(self.sum.load(Ordering::Relaxed))
        );
        let _ = writeln!(text, "{name}_count{labels} {all}");
    }
}

impl Unit {
    /// A number in this unit, without loss.
    fn show(self, value: u64) -> String {
        const NANOS: u64 = 1_000_000_000;
        match self {
            Self::Bytes => value.to_string(),
            Self::Seconds => {
                let text = format!("{}.{:09}", value / NANOS, value % NANOS);
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_up_to_each_bound_and_summed() {
        let times = Histogram::new(&[1_000_000, 500_000_000, 2_000_000_000]);
        for time in [
            Duration::from_millis(1),
            Duration::from_millis(2),
            Duration::from_secs(3),
        ] {
            times.add_time(time);
        }
        let mut text = String::new();
        times.render(&mut text, "x", "", Unit::Seconds);
        let expected = "x_bucket{le=\"0.001\"} 1\nx_bucket{le=\"0.5\"} 2\nx_bucket{le=\"2\"} 2\n\
                        x_bucket{le=\"+Inf\"} 3\nx_sum 3.003\nx_count 3\n";
        assert_eq!(text, expected);
        let sizes = Histogram::new(&[1024]);
        sizes.add(1025);
        let mut text = String::new();
        sizes.render(&mut text, "y", "kind=\"a\",", Unit::Bytes);
        let expected = "y_bucket{kind=\"a\",le=\"1024\"} 0\ny_bucket{kind=\"a\",le=\"+Inf\"} 1\n\
                        y_sum{kind=\"a\"} 1025\ny_count{kind=\"a\"} 1\n";
        assert_eq!(text, expected);
    }
}
