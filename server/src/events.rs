//! Tells what happens to those who listen: what sessions and people do, and how far running dumps are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use api::{CoreState, CoreSummary, EventData, EventLog, SCHEMA_VERSION};
use jiff::Timestamp;

use crate::cores::LocalCores;
use crate::limits::PROGRESS_LOOK;

/// What an event says of a core.
pub(crate) fn of_core(core: &CoreSummary) -> EventData {
    EventData {
        schema_version: SCHEMA_VERSION,
        id: core.id.clone(),
        guest: core.guest.clone(),
        state: core.state,
        panic: core.panic.clone(),
        signature: core.signature.clone(),
        file_len_bytes: core.file_len_bytes,
        stored_bytes: core.stored_bytes,
        rate_bps: None,
        reason: None,
    }
}

/// Something happened now.
pub(crate) fn tell(log: &EventLog, kind: &str, data: EventData) {
    log.push(kind, Timestamp::now().to_string(), data);
}

/// The thread that looks at running dumps while somebody listens.
#[derive(Debug)]
pub(crate) struct ProgressTeller {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ProgressTeller {
    /// Starts the thread.
    pub(crate) fn start(log: Arc<EventLog>, cores: Arc<LocalCores>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let builder = thread::Builder::new().name("progress".to_owned());
        let thread = builder.spawn(move || run(&log, &cores, &stopped));
        if let Err(why) = &thread {
            tracing::error!("nobody is told of progress, the thread cannot be started: {why}");
        }
        Self {
            stop,
            thread: Mutex::new(thread.ok()),
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn run(log: &EventLog, cores: &LocalCores, stop: &AtomicBool) {
    let mut seen = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        if log.listeners() > 0 {
            look(log, &cores.running(), &mut seen, Instant::now());
        }
        thread::park_timeout(PROGRESS_LOOK);
    }
}

/// Tells of each dump that has got further since the last look.
fn look(log: &EventLog, running: &[CoreSummary], seen: &mut HashMap<String, (u64, Instant)>, now: Instant) {
    seen.retain(|id, _| running.iter().any(|core| core.id == *id));
    for core in running.iter().filter(|core| core.state == CoreState::Receiving) {
        let before = seen.insert(core.id.clone(), (core.stored_bytes, now));
        if before.is_some_and(|(bytes, _)| bytes == core.stored_bytes) {
            continue;
        }
        let rate = before.and_then(|(bytes, at)| {
            let millis = u64::try_from(now.duration_since(at).as_millis()).ok()?;
            core.stored_bytes
                .saturating_sub(bytes)
                .saturating_mul(1000)
                .checked_div(millis)
        });
        let data = EventData {
            rate_bps: rate,
            ..of_core(core)
        };
        tell(log, "dump.progress", data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn core(stored_bytes: u64) -> CoreSummary {
        CoreSummary {
            id: "a".to_owned(),
            guest: "g".to_owned(),
            client_addr: "127.0.0.1:1".to_owned(),
            received_at: String::new(),
            state: CoreState::Receiving,
            panic: None,
            signature: None,
            format: "elf".to_owned(),
            file_len_bytes: 100,
            stored_bytes,
            holes: Vec::new(),
            kernel: None,
            pinned: false,
        }
    }

    #[test]
    fn progress_is_told_when_there_is_some_with_its_rate() {
        let (log, start) = (EventLog::new("t"), Instant::now());
        let mut seen = HashMap::new();
        let mut rate_at = |half_seconds: u32, stored: u64| {
            let before = log.position(None);
            look(
                &log,
                &[core(stored)],
                &mut seen,
                start + Duration::from_millis(500) * half_seconds,
            );
            log.after(before).pop().map(|(_, event)| event.data.rate_bps)
        };
        assert_eq!(rate_at(0, 10), Some(None), "a first look knows no rate");
        assert_eq!(rate_at(1, 10), None, "nothing came");
        assert_eq!(rate_at(2, 60), Some(Some(100)));
    }
}
