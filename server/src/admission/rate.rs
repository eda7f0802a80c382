//! How many heralds may open sessions: so many of one source, so many of all together.
//!
//! Source addresses can be forged, so that a flood of heralds uses up what all together may have. A stock client repeats
//! its herald each second for twelve seconds (netdump(4), `net.netdump.nretries`); a flood of forged ones comes from
//! everywhere and repeats nothing. So whoever was refused is remembered for a while, and who comes again has an allowance
//! that first-comers cannot use up.
//!
//! Everything stands in tables of a fixed size, addressed by a keyed hash: no flood makes them grow.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::SocketAddrV4;
use std::time::Duration;

use netdump::{Instant, Seqno};

use crate::limits::{AGAIN_AFTER, AGAIN_BEFORE, REFUSED_REMEMBERED, SOURCES_WATCHED};

/// Sessions that may be opened: `per_s` on average, `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, per second.
    pub per_s: u32,
    /// At once, after a quiet time.
    pub burst: u32,
}

/// What is said of a herald that would open a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may. `again`: it had been refused before, and came again as real clients do.
    Admitted { again: bool },
    /// Its source has opened too many.
    SourceTooFast,
    /// All together have opened too many.
    AllTooFast,
}

/// Watches the heralds.
#[derive(Debug)]
pub(crate) struct HeraldRates {
    source: Rate,
    all: Rate,
    sources: Vec<Bucket>,
    first_comers: Bucket,
    repeaters: Bucket,
    refused: Vec<Seen>,
    hasher: RandomState,
}

/// A token bucket, in thousandths of a token.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    millitokens: u64,
    at: Instant,
}

/// A herald that was refused.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    fingerprint: u32,
    at_ms: u32,
}

impl HeraldRates {
    pub(crate) fn new(source: Rate, all: Rate) -> Self {
        Self {
            source,
            all,
            sources: vec![Bucket::full(source); SOURCES_WATCHED],
            first_comers: Bucket::full(all),
            repeaters: Bucket::full(all),
            refused: vec![Seen::default(); REFUSED_REMEMBERED],
            hasher: RandomState::new(),
        }
    }

    /// A herald came that would open a session.
    pub(crate) fn herald(&mut self, now: Instant, peer: SocketAddrV4, seqno: Seqno) -> Verdict {
        let again = self.came_before(now, peer, seqno);
        let slot = index(self.hasher.hash_one(peer.ip()), self.sources.len());
        let rate = self.source;
        if !self.sources.get_mut(slot).is_none_or(|bucket| bucket.take(now, rate)) {
            return Verdict::SourceTooFast;
        }
        let rate = self.all;
        if self.first_comers.take(now, rate) || again && self.repeaters.take(now, rate) {
            return Verdict::Admitted { again };
        }
        self.refused(now, peer, seqno);
        Verdict::AllTooFast
    }

    /// Remembers a herald that was refused, here or elsewhere, because there were too many others.
    pub(crate) fn refused(&mut self, now: Instant, peer: SocketAddrV4, seqno: Seqno) {
        let (slot, fingerprint) = self.place(peer, seqno);
        if let Some(seen) = self.refused.get_mut(slot) {
            // The first time counts: a flood that repeats itself quickly is no client that waits a second.
            let fresh = seen.fingerprint != fingerprint || millis(now).wrapping_sub(seen.at_ms) > AGAIN_BEFORE_MS;
            if fresh {
                *seen = Seen {
                    fingerprint,
                    at_ms: millis(now),
                };
            }
        }
    }

    /// Whether this herald was refused some time ago.
    fn came_before(&self, now: Instant, peer: SocketAddrV4, seqno: Seqno) -> bool {
        let (slot, fingerprint) = self.place(peer, seqno);
        let seen = self.refused.get(slot).copied().unwrap_or_default();
        let age_ms = millis(now).wrapping_sub(seen.at_ms);
        seen.fingerprint == fingerprint && (AGAIN_AFTER_MS..=AGAIN_BEFORE_MS).contains(&age_ms)
    }

    /// Where a herald is remembered, and as what; never as 0, which is an empty place.
    fn place(&self, peer: SocketAddrV4, seqno: Seqno) -> (usize, u32) {
        let hash = self.hasher.hash_one((peer, seqno.0));
        let fingerprint = u32::try_from(hash >> 32).unwrap_or(0) | 1;
        (index(hash & 0xffff_ffff, self.refused.len()), fingerprint)
    }
}

impl Bucket {
    fn full(rate: Rate) -> Self {
        Self {
            millitokens: u64::from(rate.burst) * 1000,
            at: Instant::ZERO,
        }
    }

    /// Takes a token if there is one.
    fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let passed_ms = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        if passed_ms > 0 {
            let filled = self
                .millitokens
                .saturating_add(passed_ms.saturating_mul(u64::from(rate.per_s)));
            self.millitokens = filled.min(u64::from(rate.burst) * 1000);
            self.at = self.at + Duration::from_millis(passed_ms);
        }
        match self.millitokens.checked_sub(1000) {
            Some(left) => {
                self.millitokens = left;
                true
            }
            None => false,
        }
    }
}

const AGAIN_AFTER_MS: u32 = small_millis(AGAIN_AFTER);
const AGAIN_BEFORE_MS: u32 = small_millis(AGAIN_BEFORE);

/// Milliseconds of a constant of a few seconds.
const fn small_millis(time: Duration) -> u32 {
    let millis = time.as_millis();
    assert!(millis < u32::MAX as u128, "a constant of a few seconds");
    #[expect(clippy::cast_possible_truncation, reason = "just checked; TryFrom is not const")]
    {
        millis as u32
    }
}

/// Milliseconds of a clock that may wrap after 49 days; only differences are looked at.
fn millis(now: Instant) -> u32 {
    u32::try_from(now.as_nanos() / 1_000_000 % (1 << 32)).unwrap_or(0)
}

/// A place in a table.
fn index(hash: u64, len: usize) -> usize {
    usize::try_from(hash % u64::try_from(len.max(1)).unwrap_or(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SOURCE: Rate = Rate { per_s: 5, burst: 20 };
    const ALL: Rate = Rate { per_s: 200, burst: 400 };

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn peer(number: u32) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 + number), 20024)
    }

    fn admitted(rates: &mut HeraldRates, now: Instant, number: u32) -> bool {
        let verdict = rates.herald(now, peer(number), Seqno(1));
        matches!(verdict, Verdict::Admitted { .. })
    }

    #[test]
    fn one_source_has_a_burst_and_then_its_rate() {
        let mut rates = HeraldRates::new(SOURCE, ALL);
        let at_once = (0..100).filter(|_| admitted(&mut rates, at(0), 1)).count();
        assert_eq!(at_once, 20);
        assert_eq!(rates.herald(at(100), peer(1), Seqno(1)), Verdict::SourceTooFast);
        let later = (0..100).filter(|_| admitted(&mut rates, at(2000), 1)).count();
        assert_eq!(later, 10, "five a second");
        assert!(admitted(&mut rates, at(2000), 2), "another source is not concerned");
    }

    #[test]
    fn all_together_have_a_burst_and_then_their_rate() {
        let mut rates = HeraldRates::new(SOURCE, ALL);
        let at_once = (0..10_000)
            .filter(|number| admitted(&mut rates, at(0), *number))
            .count();
        assert_eq!(at_once, 400);
        let later = (20_000..30_000).filter(|number| admitted(&mut rates, at(1000), *number));
        assert_eq!(later.count(), 200);
    }

    #[test]
    fn a_client_that_comes_again_passes_a_flood_that_does_not() {
        let mut rates = HeraldRates::new(SOURCE, ALL);
        let mut flood = 1_000_000;
        let mut clients: Vec<u32> = (0..50).collect();
        for second in 0..12_u64 {
            for slice in 0..100 {
                let now = at(second * 1000 + slice * 10);
                for _ in 0..1000 {
                    flood += 1;
                    let _ = rates.herald(now, peer(flood), Seqno(1));
                }
                if slice == 50 {
                    clients.retain(|client| !admitted(&mut rates, now, *client));
                }
            }
        }
        assert!(clients.is_empty(), "{} clients never got in", clients.len());
    }

    #[test]
    fn a_flood_that_repeats_itself_at_once_does_not_come_again() {
        let mut rates = HeraldRates::new(SOURCE, Rate { per_s: 0, burst: 1 });
        assert!(admitted(&mut rates, at(0), 0));
        for ms in 0..300 {
            let verdict = rates.herald(at(ms), peer(1), Seqno(1));
            assert!(!matches!(verdict, Verdict::Admitted { .. }), "after {ms} ms");
        }
    }
}
