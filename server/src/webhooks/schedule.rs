//! When what is tried, and how often: no I/O, the time comes in.
//!
//! ```text
//! put ─► waiting ─ due ─► tried ─ taken ─► delivered
//!           ▲                ├ failed, tries left ─► waiting, later
//!           └────────────────┘ failed for the last time, or gone ─► dead
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits::WEBHOOK_WAITING_MAX;

/// What waits for one address.
#[derive(Debug)]
pub(super) struct Schedule {
    delays: Vec<Duration>,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    tries: usize,
    due: Instant,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The other side took it.
    Taken,
    /// It did not, now.
    Failed,
    /// It never will (410, RFC 9110 section 15.5.11).
    Gone,
}

impl Outcome {
    /// What a status means. Redirects are failures: nobody is told whom nobody configured.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Taken,
            410 => Self::Gone,
            _ => Self::Failed,
        }
    }
}

/// What follows on a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is done.
    Delivered,
    /// It is tried again after this time.
    Again(Duration),
    /// It is given up.
    Dead,
}

impl Schedule {
    /// Nothing waits yet. `delays` are the waits after the first try, the second, …; one more is the last.
    pub(super) fn new(delays: Vec<Duration>) -> Self {
        Self {
            delays,
            waiting: BTreeMap::new(),
        }
    }

    /// Takes a letter that was tried `tries` times before; false when too many wait.
    pub(super) fn put(&mut self, number: u64, tries: usize, now: Instant) -> bool {
        if self.waiting.len() >= WEBHOOK_WAITING_MAX {
            return false;
        }
        self.waiting.insert(number, Waiting { tries, due: now });
        true
    }

    /// The letter to try now: of those that are due the one that has waited longest.
    pub(super) fn due(&self, now: Instant) -> Option<u64> {
        let first = self
            .waiting
            .iter()
            .min_by_key(|(number, waiting)| (waiting.due, **number));
        first
            .filter(|(_, waiting)| waiting.due <= now)
            .map(|(number, _)| *number)
    }

    /// When something is due next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// A letter was tried.
    pub(super) fn tried(&mut self, number: u64, outcome: Outcome, now: Instant) -> Step {
        let Some(waiting) = self.waiting.get_mut(&number) else {
            return Step::Dead;
        };
        let delay = self.delays.get(waiting.tries).copied();
        waiting.tries += 1;
        let step = match (outcome, delay) {
            (Outcome::Taken, _) => Step::Delivered,
            (Outcome::Failed, Some(delay)) => Step::Again(delay),
            (Outcome::Failed, None) | (Outcome::Gone, _) => Step::Dead,
        };
        match step {
            Step::Again(delay) => waiting.due = now + delay,
            Step::Delivered | Step::Dead => self.forget(number),
        }
        step
    }

    /// A letter is not there any more.
    pub(super) fn forget(&mut self, number: u64) {
        self.waiting.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_letter_is_tried_once_more_than_there_are_delays_each_time_later() {
        let start = Instant::now();
        let mut schedule = Schedule::new(vec![S, S * 7]);
        assert!(schedule.put(1, 0, start));
        assert_eq!(schedule.due(start), Some(1));
        assert_eq!(schedule.tried(1, Outcome::Failed, start), Step::Again(S));
        assert_eq!((schedule.due(start), schedule.deadline()), (None, Some(start + S)));
        assert_eq!(schedule.due(start + S), Some(1));
        assert_eq!(schedule.tried(1, Outcome::Failed, start + S), Step::Again(S * 7));
        assert_eq!(schedule.deadline(), Some(start + S * 8));
        assert_eq!(schedule.tried(1, Outcome::Failed, start + S * 8), Step::Dead);
        assert_eq!(schedule.deadline(), None);
    }

    #[test]
    fn one_that_fails_does_not_hold_up_the_next_and_comes_back_in_its_turn() {
        let start = Instant::now();
        let mut schedule = Schedule::new(vec![S]);
        for number in [1, 2, 3] {
            schedule.put(number, 0, start);
        }
        assert_eq!(schedule.tried(1, Outcome::Failed, start), Step::Again(S));
        assert_eq!(schedule.due(start), Some(2));
        assert_eq!(schedule.tried(2, Outcome::Taken, start), Step::Delivered);
        assert_eq!(schedule.due(start + S), Some(3), "it has waited longer");
        schedule.forget(3);
        assert_eq!(schedule.due(start + S), Some(1));
    }

    #[test]
    fn tries_before_a_restart_count_and_gone_is_gone() {
        let start = Instant::now();
        let mut schedule = Schedule::new(vec![S, S]);
        schedule.put(1, 2, start);
        schedule.put(2, 0, start);
        assert_eq!(schedule.tried(1, Outcome::Failed, start), Step::Dead);
        assert_eq!(schedule.tried(2, Outcome::of_status(410), start), Step::Dead);
        assert_eq!(schedule.tried(2, Outcome::Taken, start), Step::Dead, "it is not there");
    }

    #[test]
    fn only_a_success_counts_as_one() {
        for status in [200, 202, 204] {
            assert_eq!(Outcome::of_status(status), Outcome::Taken);
        }
        for status in [100, 301, 302, 307, 400, 404, 429, 500, 503] {
            assert_eq!(Outcome::of_status(status), Outcome::Failed);
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Vec::new());
        for number in 0..WEBHOOK_WAITING_MAX as u64 {
            assert!(schedule.put(number, 0, now));
        }
        assert!(!schedule.put(u64::MAX, 0, now));
    }
}
