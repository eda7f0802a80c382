//! What happens to the frames of one direction: a state machine on bytes and time, and the same for the same seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::FaultPlan;
use crate::net::limits::{FAULT_HELD_MAX, FAULT_REORDER_US};

/// One direction.
#[derive(Debug)]
pub struct Lane {
    plan: FaultPlan,
    random: Random,
    held: BinaryHeap<Reverse<Held>>,
    /// Frames that ever were held: equal times go in the order in which they came.
    count: u64,
    stats: LaneStats,
}

/// What was done to the frames of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneStats {
    /// Frames that came.
    pub frames: u64,
    /// Of these, left out.
    pub lost: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Sent after later ones.
    pub reordered: u64,
    /// Sent with one wrong bit.
    pub corrupted: u64,
}

/// A frame that goes at `due`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Duration,
    number: u64,
    frame: Vec<u8>,
}

impl Lane {
    /// A lane whose chances follow from `seed`.
    #[must_use]
    pub fn new(plan: FaultPlan, seed: u64) -> Self {
        Self {
            plan,
            random: Random(seed),
            held: BinaryHeap::new(),
            count: 0,
            stats: LaneStats::default(),
        }
    }

    /// Takes a frame that came at `now`.
    pub fn push(&mut self, now: Duration, frame: &[u8]) {
        self.stats.frames += 1;
        // Every chance is drawn for every frame, so that one more kind of fault leaves the others as they were.
        let [lost, twice, late, wrong] = [
            self.plan.loss,
            self.plan.duplicate,
            self.plan.reorder,
            self.plan.corrupt,
        ]
        .map(|chance| self.random.next() % PER_MILLION < u64::from(chance.0));
        let bit = self.random.next();
        if lost {
            self.stats.lost += 1;
            return;
        }
        let mut frame = frame.to_vec();
        if wrong {
            self.stats.corrupted += 1;
            flip(&mut frame, bit);
        }
        let mut due = now + self.plan.delay;
        if late {
            self.stats.reordered += 1;
            due += Duration::from_micros(FAULT_REORDER_US);
        }
        if twice {
            self.stats.duplicated += 1;
            self.hold(due, frame.clone());
        }
        self.hold(due, frame);
    }

    /// A frame that goes now.
    pub fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        let Reverse(first) = self.held.peek()?;
        if first.due > now {
            return None;
        }
        self.held.pop().map(|Reverse(held)| held.frame)
    }

    /// When the next one goes.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.held.peek().map(|Reverse(first)| first.due)
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        self.stats
    }

    fn hold(&mut self, due: Duration, frame: Vec<u8>) {
        if self.held.len() >= FAULT_HELD_MAX {
            self.stats.lost += 1;
            return;
        }
        self.count += 1;
        self.held.push(Reverse(Held {
            due,
            number: self.count,
            frame,
        }));
    }
}

/// What chances are parts of.
pub(super) const PER_MILLION: u64 = 1_000_000;

fn flip(frame: &mut [u8], random: u64) {
    let bits = frame.len() as u64 * 8;
    let Some(bit) = random.checked_rem(bits) else { return };
    let at = usize::try_from(bit / 8).unwrap_or(0);
    if let Some(byte) = frame.get_mut(at) {
        *byte ^= 1 << (bit % 8);
    }
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone, Copy)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(plan: &str, seed: u64, frames: u32) -> (Vec<Vec<u8>>, LaneStats) {
        let mut lane = Lane::new(plan.parse().unwrap(), seed);
        let mut out = Vec::new();
        for number in 0..frames {
            let now = Duration::from_micros(u64::from(number) * 100);
            lane.push(now, &number.to_be_bytes());
            while let Some(frame) = lane.pop(now) {
                out.push(frame);
            }
        }
        while let Some(due) = lane.due() {
            out.extend(lane.pop(due));
        }
        (out, lane.stats())
    }

    #[test]
    fn without_a_fault_every_frame_passes_at_once_and_in_order() {
        let (out, stats) = run("seed=1", 1, 1000);
        assert!(
            out.iter()
                .map(Vec::as_slice)
                .eq((0..1000u32).map(u32::to_be_bytes).collect::<Vec<_>>())
        );
        assert_eq!(
            stats,
            LaneStats {
                frames: 1000,
                ..LaneStats::default()
            }
        );
    }

    #[test]
    fn the_same_seed_does_the_same_and_another_seed_does_not() {
        let plan = "loss=10%,duplicate=10%,reorder=10%,corrupt=10%,delay=3ms";
        assert_eq!(run(plan, 7, 5000), run(plan, 7, 5000));
        assert_ne!(run(plan, 7, 5000).0, run(plan, 8, 5000).0);
    }

    #[test]
    fn each_fault_comes_as_often_as_was_asked_for_and_does_what_it_says() {
        let about = |count: u64| (800..1200).contains(&count);
        let (out, stats) = run("loss=10%", 3, 10_000);
        assert!(
            about(stats.lost) && out.len() as u64 == 10_000 - stats.lost,
            "{stats:?}"
        );
        let (out, stats) = run("duplicate=10%", 3, 10_000);
        assert!(
            about(stats.duplicated) && out.len() as u64 == 10_000 + stats.duplicated,
            "{stats:?}"
        );
        let (out, stats) = run("reorder=10%", 3, 10_000);
        assert!(
            about(stats.reordered) && out.len() == 10_000 && !out.is_sorted(),
            "{stats:?}"
        );
        let (out, stats) = run("corrupt=10%", 3, 10_000);
        let wrong_bits: u32 = out
            .iter()
            .zip(0u32..)
            .map(|(frame, number)| (u32::from_be_bytes(frame[..].try_into().unwrap()) ^ number).count_ones())
            .sum();
        assert!(
            about(stats.corrupted) && u64::from(wrong_bits) == stats.corrupted,
            "{stats:?}"
        );
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let mut lane = Lane::new("delay=10s,duplicate=100%".parse().unwrap(), 1);
        for _ in 0..FAULT_HELD_MAX * 2 {
            lane.push(Duration::ZERO, &[0; 60]);
        }
        assert_eq!(lane.held.len(), FAULT_HELD_MAX);
        assert_eq!(lane.due(), Some(Duration::from_secs(10)));
        assert_eq!(lane.pop(Duration::from_millis(9999)), None);
        lane.push(Duration::from_secs(10), &[]);
    }
}
