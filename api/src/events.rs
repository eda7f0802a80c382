//! What happened lately, for those who listen and for those who come back after a broken connection.
//!
//! Everything is kept in a ring; of the progress of a dump only the newest is kept, so that a long dump pushes nothing out.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::limits;
use crate::types::event::{Event, EventData};

/// The kind of event of which only the newest per dump is kept.
const PROGRESS: &str = "dump.progress";

/// The events of one run of a receiver.
#[derive(Debug)]
pub struct EventLog {
    /// Begins every id of this run, so that an id of an earlier run is known as one.
    run: String,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
    listeners: AtomicUsize,
}

#[derive(Debug, Default)]
struct Kept {
    ring: VecDeque<(u64, Arc<Event>)>,
    progress: HashMap<String, (u64, Arc<Event>)>,
    newest: u64,
}

/// A place among the listeners; dropping it gives it back.
#[derive(Debug)]
pub struct Listener(Arc<EventLog>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener {
    /// The log that is listened to.
    #[must_use]
    pub fn log(&self) -> &EventLog {
        &self.0
    }
}

impl EventLog {
    /// An empty log. `run` tells this run from all others; letters and digits.
    #[must_use]
    pub fn new(run: impl Into<String>) -> Self {
        Self {
            run: run.into(),
            kept: Mutex::new(Kept::default()),
            newest: watch::Sender::new(0),
            listeners: AtomicUsize::new(0),
        }
    }

    /// Something happened at `time` (RFC 3339).
    pub fn push(&self, kind: &str, time: String, data: EventData) -> Arc<Event> {
        let mut kept = self.lock();
        kept.newest += 1;
        let number = kept.newest;
        let event = Arc::new(Event {
            specversion: "1.0".to_owned(),
            id: format!("{}-{number}", self.run),
            source: "/coreferry/receiver".to_owned(),
            kind: kind.to_owned(),
            subject: data.id.clone(),
            time,
            datacontenttype: "application/json".to_owned(),
            data,
        });
        if kind == PROGRESS {
            kept.progress
                .insert(event.subject.clone(), (number, Arc::clone(&event)));
        } else {
            kept.progress.remove(&event.subject);
            kept.ring.push_back((number, Arc::clone(&event)));
            if kept.ring.len() > limits::EVENTS_KEPT {
                kept.ring.pop_front();
            }
        }
        drop(kept);
        self.newest.send_replace(number);
        event
    }

    /// The number after which a listener goes on: that of `last_id`, all that is kept for an id of another run, and nothing
    /// old without one.
    #[must_use]
    pub fn position(&self, last_id: Option<&str>) -> u64 {
        let Some(id) = last_id else {
            return self.lock().newest;
        };
        let number = id.strip_prefix(&self.run).and_then(|rest| rest.strip_prefix('-'));
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// The events after number `after`, oldest first, at most [`limits::EVENTS_AT_ONCE`] of them.
    #[must_use]
    pub fn after(&self, after: u64) -> Vec<(u64, Arc<Event>)> {
        let kept = self.lock();
        let from = kept.ring.partition_point(|(number, _)| *number <= after);
        let mut events: Vec<_> = kept.ring.range(from..).take(limits::EVENTS_AT_ONCE).cloned().collect();
        // Progress beyond what was cut off comes with the next batch.
        let cut_at = match events.last() {
            Some((number, _)) if events.len() == limits::EVENTS_AT_ONCE => *number,
            _ => u64::MAX,
        };
        let progress = kept
            .progress
            .values()
            .filter(|(number, _)| *number > after && *number < cut_at);
        events.extend(progress.cloned());
        drop(kept);
        events.sort_by_key(|(number, _)| *number);
        events
    }

    /// Tells the number of the newest event whenever there is one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// A place among the listeners, if there is one left.
    #[must_use]
    pub fn listen(log: &Arc<Self>) -> Option<Listener> {
        let count = log.listeners.fetch_add(1, Ordering::Relaxed);
        let listener = Listener(Arc::clone(log));
        (count < limits::LISTENERS_MAX).then_some(listener)
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::core::CoreState;

    fn data(id: &str) -> EventData {
        EventData {
            schema_version: 1,
            id: id.to_owned(),
            guest: "g".to_owned(),
            state: CoreState::Receiving,
            panic: None,
            signature: None,
            file_len_bytes: 0,
            stored_bytes: 0,
            rate_bps: None,
            reason: None,
        }
    }

    fn kinds(log: &EventLog, after: u64) -> Vec<String> {
        log.after(after).iter().map(|(_, event)| event.kind.clone()).collect()
    }

    #[test]
    fn a_listener_that_comes_back_misses_nothing_but_old_progress() {
        let log = EventLog::new("a1");
        log.push("dump.started", String::new(), data("x"));
        let seen = log.push("dump.progress", String::new(), data("x"));
        log.push("dump.progress", String::new(), data("x"));
        assert_eq!(
            kinds(&log, log.position(Some("other-9"))),
            ["dump.started", "dump.progress"]
        );
        log.push("core.complete", String::new(), data("x"));
        log.push("dump.started", String::new(), data("y"));
        assert_eq!(
            kinds(&log, log.position(Some(&seen.id))),
            ["core.complete", "dump.started"]
        );
        assert!(
            kinds(&log, log.position(None)).is_empty(),
            "who was never here hears what comes"
        );
    }

    #[test]
    fn the_ring_is_bounded_and_read_in_batches_without_gaps() {
        let log = EventLog::new("a");
        let count = limits::EVENTS_KEPT + 7;
        for _ in 0..count {
            log.push("core.changed", String::new(), data("x"));
        }
        let (mut at, mut read) = (0, 0);
        loop {
            let events = log.after(at);
            let Some((last, _)) = events.last() else { break };
            at = *last;
            read += events.len();
        }
        assert_eq!((read, at), (limits::EVENTS_KEPT, count as u64));
    }

    #[test]
    fn places_for_listeners_are_bounded_and_come_back() {
        let log = Arc::new(EventLog::new("a"));
        let mut all: Vec<_> = (0..limits::LISTENERS_MAX).map(|_| EventLog::listen(&log)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(EventLog::listen(&log).is_none());
        all.pop();
        assert!(EventLog::listen(&log).is_some());
    }
}
