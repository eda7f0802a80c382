use alloc::{collections::BTreeMap, vec::Vec};
use core::ops::Range;

use super::rng::Rng;
use crate::{
    station::checksum::Checksum,
    time::{Duration, Instant},
};

/// What one direction of a network does to datagrams. Chances are per million.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Chance of losing a datagram by itself.
    pub loss_ppm: u32,
    /// Chance that a run of losses begins at a datagram.
    pub burst_ppm: u32,
    /// How long such a run lasts at most. It is a time, for a queue somewhere drains whether or not anything is sent.
    pub burst_for: Duration,
    /// Chance of a second copy, with a delay of its own.
    pub duplicate_ppm: u32,
    /// Chance that one bit flips; the checksum then drops the datagram.
    pub corrupt_ppm: u32,
    /// Time on the way; datagrams overtake each other as far as it varies.
    pub delay: Range<Duration>,
    /// Chance of staying `reorder_by` longer on the way.
    pub reorder_ppm: u32,
    /// How much longer.
    pub reorder_by: Duration,
    /// Bytes a second through the narrowest place; `None` for no such place.
    pub rate: Option<u64>,
    /// Bytes that wait there at most; what comes on top is lost.
    pub queue_bytes: u64,
    /// Everything sent in this time is lost.
    pub outage: Range<Instant>,
}

impl LinkConfig {
    /// A link that loses nothing and takes 100 microseconds.
    #[must_use]
    pub const fn clean() -> Self {
        Self {
            loss_ppm: 0,
            burst_ppm: 0,
            burst_for: Duration::ZERO,
            duplicate_ppm: 0,
            corrupt_ppm: 0,
            delay: Duration::from_micros(100)..Duration::from_micros(100),
            reorder_ppm: 0,
            reorder_by: Duration::ZERO,
            rate: None,
            queue_bytes: u64::MAX,
            outage: Instant::ZERO..Instant::ZERO,
        }
    }

    /// A link with some of every fault, drawn from `rng`, that still lets most datagrams through.
    #[must_use]
    pub fn faulty(rng: &mut Rng) -> Self {
        let delay = Duration::from_micros(rng.within(20..30_000));
        let jitter = Duration::from_micros(rng.below(5_000));
        Self {
            loss_ppm: fault(rng, 100_000),
            burst_ppm: fault(rng, 5_000),
            burst_for: Duration::from_micros(rng.within(100..100_000)),
            duplicate_ppm: fault(rng, 50_000),
            corrupt_ppm: fault(rng, 20_000),
            delay: delay..delay + jitter,
            reorder_ppm: fault(rng, 50_000),
            reorder_by: Duration::from_micros(rng.below(40_000)),
            rate: rng.chance(300_000).then(|| rng.within(500_000..50_000_000)),
            queue_bytes: rng.within(20_000..200_000),
            outage: Instant::ZERO..Instant::ZERO,
        }
    }
}

/// Absent half of the time, else anything up to `ppm_max`.
fn fault(rng: &mut Rng, ppm_max: u64) -> u32 {
    if rng.chance(500_000) {
        0
    } else {
        u32::try_from(rng.below(ppm_max)).unwrap_or(0)
    }
}

/// One direction of a network.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    rng: Rng,
    /// When the present run of losses ends.
    burst_until: Instant,
    /// When the narrowest place has sent everything that waits there.
    busy_until: Instant,
    on_the_way: BTreeMap<(Instant, u64), Datagram>,
    count: u64,
    stats: LinkStats,
}

/// A UDP datagram in flight, with the port that matters in its direction and the checksum its sender gave it.
#[derive(Clone, Debug)]
struct Datagram {
    port: u16,
    payload: Vec<u8>,
    checksum: Option<u16>,
}

impl Link {
    /// A link whose faults follow from `seed`.
    #[must_use]
    pub const fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            rng: Rng::new(seed),
            burst_until: Instant::ZERO,
            busy_until: Instant::ZERO,
            on_the_way: BTreeMap::new(),
            count: 0,
            stats: LinkStats {
                sent: 0,
                lost: 0,
                duplicated: 0,
                corrupted: 0,
                delivered: 0,
            },
        }
    }

    /// Puts a datagram on the link.
    pub fn send(&mut self, now: Instant, port: u16, payload: &[u8]) {
        self.stats.sent += 1;
        let Some(leaves_at) = self.queue(now, payload.len()).filter(|_| !self.loses(now)) else {
            self.stats.lost += 1;
            return;
        };
        // Only where bits flip is it looked at.
        let checksum = (self.config.corrupt_ppm > 0).then(|| Checksum::default().add(payload).finish());
        let mut datagram = Datagram {
            port,
            payload: payload.to_vec(),
            checksum,
        };
        if self.rng.chance(self.config.duplicate_ppm) {
            self.stats.duplicated += 1;
            self.deliver_later(leaves_at, datagram.clone());
        }
        if self.rng.chance(self.config.corrupt_ppm) {
            let at = self.rng.below(payload.len() as u64);
            let bit = 1 << self.rng.below(8);
            if let Some(byte) = usize::try_from(at).ok().and_then(|at| datagram.payload.get_mut(at)) {
                *byte ^= bit;
            }
        }
        self.deliver_later(leaves_at, datagram);
    }

    /// The next datagram that has arrived by `now`, with its port.
    pub fn receive(&mut self, now: Instant) -> Option<(u16, Vec<u8>)> {
        while self.next_at()? <= now {
            let (
                _,
                Datagram {
                    port,
                    payload,
                    checksum,
                },
            ) = self.on_the_way.pop_first()?;
            if checksum.is_none_or(|checksum| Checksum::default().add(&payload).finish() == checksum) {
                self.stats.delivered += 1;
                return Some((port, payload));
            }
            self.stats.corrupted += 1;
        }
        None
    }

    /// When the next datagram arrives.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.on_the_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> LinkStats {
        self.stats
    }

    fn loses(&mut self, now: Instant) -> bool {
        if now >= self.burst_until && self.rng.chance(self.config.burst_ppm) {
            self.burst_until = now + self.rng.duration(&(Duration::ZERO..self.config.burst_for));
        }
        now < self.burst_until || self.config.outage.contains(&now) || self.rng.chance(self.config.loss_ppm)
    }

    /// When a datagram of that length is through the narrowest place; `None` if it does not fit into the queue there.
    fn queue(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Some(rate) = self.config.rate else { return Some(now) };
        let waiting = u64::try_from(self.busy_until.since(now).as_nanos()).unwrap_or(u64::MAX);
        if waiting.saturating_mul(rate) / 1_000_000_000 > self.config.queue_bytes {
            return None;
        }
        let takes = Duration::from_nanos((len as u64).saturating_mul(1_000_000_000) / rate.max(1));
        self.busy_until = self.busy_until.max(now) + takes;
        Some(self.busy_until)
    }

    fn deliver_later(&mut self, leaves_at: Instant, datagram: Datagram) {
        let mut arrives_at = leaves_at + self.rng.duration(&self.config.delay);
        if self.rng.chance(self.config.reorder_ppm) {
            arrives_at = arrives_at + self.config.reorder_by;
        }
        self.count += 1;
        self.on_the_way.insert((arrives_at, self.count), datagram);
    }
}

/// Counters of a link, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Given to the link.
    pub sent: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Second copies made.
    pub duplicated: u64,
    /// Dropped at the end because of a flipped bit.
    pub corrupted: u64,
    /// Handed out.
    pub delivered: u64,
}
