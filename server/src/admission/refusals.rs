//! What was refused: counted by reason, told once per source.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{REFUSAL_TOLD_AGAIN_AFTER, REFUSALS_TOLD_PER_S, REFUSED_SOURCES_MAX};

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    /// No `allow` names the network.
    NotAllowed,
    /// The source opens sessions too fast.
    SourceRate,
    /// All together open sessions too fast.
    TotalRate,
    /// Too many sessions have had nothing but a herald.
    HalfOpen,
    /// Too many sessions.
    Sessions,
    /// The dump is larger than one may be.
    DumpBytes,
    /// The cores of this guest are too large together.
    GuestBytes,
    /// All cores are too large together.
    TotalBytes,
    /// The file system is full up to the reserve.
    FreeSpace,
}

impl Refused {
    /// All reasons, in the order of [`Refused::index`].
    const ALL: [Self; 9] = [
        Self::NotAllowed,
        Self::SourceRate,
        Self::TotalRate,
        Self::HalfOpen,
        Self::Sessions,
        Self::DumpBytes,
        Self::GuestBytes,
        Self::TotalBytes,
        Self::FreeSpace,
    ];

    const fn index(self) -> usize {
        self as usize
    }

    /// Its name in the metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::NotAllowed => "not-allowed",
            Self::SourceRate => "source-rate",
            Self::TotalRate => "total-rate",
            Self::HalfOpen => "half-open",
            Self::Sessions => "sessions",
            Self::DumpBytes => "dump-bytes",
            Self::GuestBytes => "guest-bytes",
            Self::TotalBytes => "total-bytes",
            Self::FreeSpace => "free-space",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Counts refusals and remembers whose have been told.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: [AtomicU64; Refused::ALL.len()],
    told: Mutex<Told>,
    pace: Mutex<Pace>,
}

/// How much the log is told: a flood of forged sources would make whoever reads it the slowest part of the receiver.
#[derive(Debug, Default)]
struct Pace {
    second_from: Option<Instant>,
    lines: u32,
}

impl Pace {
    /// Whether one more line may be written now.
    fn allows(&mut self, now: Instant) -> bool {
        if self
            .second_from
            .is_none_or(|from| now.duration_since(from) >= Duration::from_secs(1))
        {
            (self.second_from, self.lines) = (Some(now), 0);
        }
        self.lines += 1;
        self.lines <= REFUSALS_TOLD_PER_S
    }
}

/// Which sources have been told of, for which reason.
#[derive(Debug, Default)]
struct Told {
    at: HashMap<(Ipv4Addr, Refused), Instant>,
    /// When those that are long ago were forgotten last.
    cleared: Option<Instant>,
}

impl Refusals {
    /// Counts a refusal, and says it in the log if that was not done for this source lately.
    pub(crate) fn note(&self, source: Ipv4Addr, why: Refused, sentence: &dyn fmt::Display) {
        let now = Instant::now();
        let is_news = self.count(source, why, now);
        if is_news && self.pace.lock().unwrap_or_else(PoisonError::into_inner).allows(now) {
            tracing::warn!(%source, reason = %why, "refused: {sentence}; more of this from there is only counted");
        }
    }

    /// Counts; whether it is to be told.
    fn count(&self, source: Ipv4Addr, why: Refused, now: Instant) -> bool {
        if let Some(count) = self.counts.get(why.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |at: &Instant| now.duration_since(*at) < REFUSAL_TOLD_AGAIN_AFTER;
        if told.at.get(&(source, why)).is_some_and(fresh) {
            return false;
        }
        if told.at.len() >= REFUSED_SOURCES_MAX {
            // Looking through all of them is work, which a flood may not ask for at each packet.
            if told
                .cleared
                .is_some_and(|at| now.duration_since(at) < REFUSAL_TOLD_AGAIN_AFTER)
            {
                return false;
            }
            told.cleared = Some(now);
            told.at.retain(|_, at| fresh(at));
            if told.at.len() >= REFUSED_SOURCES_MAX {
                return false;
            }
        }
        told.at.insert((source, why), now);
        true
    }

    /// How often, for all reasons together.
    #[cfg(test)]
    fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The numbers in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        let mut text = String::from(
            "# HELP coreferry_refused_total Heralds and dumps refused, by reason.\n# TYPE coreferry_refused_total counter\n",
        );
        for (why, count) in Refused::ALL.iter().zip(&self.counts) {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(text, "coreferry_refused_total{{reason=\"{why}\"}} {count}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_does_not_fill_the_log() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let told = (0..10_000).filter(|_| pace.allows(now)).count();
        assert_eq!(told, usize::try_from(REFUSALS_TOLD_PER_S).unwrap());
        assert!(pace.allows(now + Duration::from_secs(1)));
    }

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn each_is_counted_and_told_once_per_source_and_reason() {
        let refusals = Refusals::default();
        let now = Instant::now();
        assert!(refusals.count(SOURCE, Refused::NotAllowed, now));
        assert!(!refusals.count(SOURCE, Refused::NotAllowed, now));
        assert!(refusals.count(SOURCE, Refused::SourceRate, now));
        assert!(refusals.count(Ipv4Addr::new(192, 0, 2, 2), Refused::NotAllowed, now));
        assert!(!refusals.count(SOURCE, Refused::NotAllowed, now + REFUSAL_TOLD_AGAIN_AFTER / 2));
        assert!(refusals.count(SOURCE, Refused::NotAllowed, now + REFUSAL_TOLD_AGAIN_AFTER));
        assert_eq!(refusals.total(), 6);
        let text = refusals.render();
        assert!(
            text.contains("coreferry_refused_total{reason=\"not-allowed\"} 5\n"),
            "{text}"
        );
        assert!(
            text.contains("coreferry_refused_total{reason=\"free-space\"} 0\n"),
            "{text}"
        );
    }

    #[test]
    fn a_flood_of_sources_is_counted_and_remembered_in_bounds() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let flood = 0..u32::try_from(3 * REFUSED_SOURCES_MAX).unwrap();
        let told = flood.filter(|number| refusals.count(Ipv4Addr::from(*number), Refused::TotalRate, now));
        assert_eq!(told.count(), REFUSED_SOURCES_MAX);
        assert_eq!(refusals.total(), 3 * REFUSED_SOURCES_MAX as u64);
        assert_eq!(refusals.told.lock().unwrap().at.len(), REFUSED_SOURCES_MAX);
        let later = now + 2 * REFUSAL_TOLD_AGAIN_AFTER;
        assert!(refusals.count(SOURCE, Refused::TotalRate, later));
    }

    #[test]
    fn the_order_of_the_names_is_that_of_the_counts() {
        for (index, why) in Refused::ALL.iter().enumerate() {
            assert_eq!(why.index(), index);
        }
    }
}
