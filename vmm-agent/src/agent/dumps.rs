//! The dumps of one machine as the API shows them: the one that runs, and the last ones that ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use api::types::dump::{Dump, DumpPhase, DumpState};

use crate::dump::{DumpOutcome, Phase, Progress, ProgressSnapshot};

/// Dumps that are remembered. A person asks about the last few; each takes less than a KiB.
const REMEMBERED_MAX: usize = 64;

/// Version of the API's dump object.
const SCHEMA_VERSION: u32 = 1;

/// All dumps that are remembered, oldest first.
#[derive(Debug, Default)]
pub(super) struct Dumps {
    records: VecDeque<Record>,
}

#[derive(Debug)]
struct Record {
    id: String,
    vm: String,
    idempotency_key: Option<String>,
    progress: Arc<Progress>,
    started: Instant,
    started_at: String,
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Ended {
    state: DumpState,
    at: Instant,
    spool_path: Option<String>,
    error: Option<String>,
}

impl Dumps {
    /// A dump begins.
    pub(super) fn begin(&mut self, id: &str, vm: &str, idempotency_key: Option<String>, progress: Arc<Progress>) {
        if self.records.len() == REMEMBERED_MAX {
            self.records.pop_front();
        }
        self.records.push_back(Record {
            id: id.to_owned(),
            vm: vm.to_owned(),
            idempotency_key,
            progress,
            started: Instant::now(),
            started_at: jiff::Timestamp::now().to_string(),
            ended: None,
        });
    }

    /// The dump `id` ended.
    pub(super) fn end(&mut self, id: &str, outcome: &DumpOutcome) {
        let Some(record) = self.records.iter_mut().rev().find(|record| record.id == id) else {
            return;
        };
        let (state, spool_path) = match outcome {
            DumpOutcome::Received { .. } => (DumpState::Done, None),
            DumpOutcome::Spooled { path, .. } => (DumpState::Done, Some(path.display().to_string())),
            DumpOutcome::Lost { .. } => (DumpState::Failed, None),
            DumpOutcome::Cancelled => (DumpState::Cancelled, None),
        };
        let error = (!outcome.is_safe()).then(|| outcome.to_string());
        record.ended = Some(Ended {
            state,
            at: Instant::now(),
            spool_path,
            error,
        });
    }

    /// The dump `id`.
    pub(super) fn get(&self, id: &str) -> Option<Dump> {
        self.records
            .iter()
            .rev()
            .find(|record| record.id == id)
            .map(Record::show)
    }

    /// The dump that was asked for with this key.
    pub(super) fn with_key(&self, key: &str) -> Option<Dump> {
        self.records
            .iter()
            .rev()
            .find(|record| record.idempotency_key.as_deref() == Some(key))
            .map(Record::show)
    }

    /// The dump that runs.
    pub(super) fn running(&self) -> Option<Dump> {
        self.records
            .back()
            .filter(|record| record.ended.is_none())
            .map(Record::show)
    }

    /// Id of the newest dump.
    pub(super) fn last_id(&self) -> Option<String> {
        self.records.back().map(|record| record.id.clone())
    }

    /// Asks the dump `id` to end. Returns whether it was running.
    pub(super) fn cancel(&self, id: &str) -> bool {
        let running = self
            .records
            .iter()
            .rev()
            .find(|record| record.id == id && record.ended.is_none());
        if let Some(record) = running {
            record.progress.cancel();
        }
        running.is_some()
    }
}

impl Record {
    fn show(&self) -> Dump {
        let now = self.progress.snapshot();
        let state = self.ended.as_ref().map_or(DumpState::Running, |ended| ended.state);
        let until = self.ended.as_ref().map_or_else(Instant::now, |ended| ended.at);
        let elapsed_ms = u64::try_from(until.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        Dump {
            schema_version: SCHEMA_VERSION,
            id: self.id.clone(),
            vm: self.vm.clone(),
            state,
            phase: if state.is_final() {
                DumpPhase::Ended
            } else {
                phase_of(now.phase)
            },
            bytes_total: now.bytes_total,
            bytes_sent: now.bytes_sent,
            bytes_acked: now.bytes_acked,
            retransmits: now.retransmits,
            rate_bps: per_second(now.bytes_acked, elapsed_ms),
            eta_s: if state.is_final() {
                None
            } else {
                eta_s(&now, elapsed_ms)
            },
            started_at: self.started_at.clone(),
            core_id: None,
            spool_path: self.ended.as_ref().and_then(|ended| ended.spool_path.clone()),
            error: self.ended.as_ref().and_then(|ended| ended.error.clone()),
        }
    }
}

fn phase_of(phase: Phase) -> DumpPhase {
    match phase {
        Phase::Preparing => DumpPhase::Plan,
        Phase::Connecting => DumpPhase::Connect,
        Phase::Sending => DumpPhase::Send,
        Phase::Finishing => DumpPhase::Finish,
        Phase::Spooling => DumpPhase::Spool,
        Phase::Over => DumpPhase::Ended,
    }
}

fn per_second(bytes: u64, elapsed_ms: u64) -> u64 {
    bytes.saturating_mul(1000) / elapsed_ms.max(1)
}

/// Seconds left if the file goes on at the pace so far; holes count as done the moment they are passed.
fn eta_s(now: &ProgressSnapshot, elapsed_ms: u64) -> Option<u64> {
    let left = now.bytes_total.checked_sub(now.bytes_done)?;
    let pace = per_second(now.bytes_done, elapsed_ms);
    (pace > 0).then(|| left.div_ceil(pace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(dumps: &mut Dumps, id: &str, key: Option<&str>) -> Arc<Progress> {
        let progress = Arc::new(Progress::new());
        dumps.begin(id, "web", key.map(str::to_owned), Arc::clone(&progress));
        progress
    }

    #[test]
    fn a_dump_is_found_by_id_and_by_key_and_runs_until_it_ends() {
        let mut dumps = Dumps::default();
        begun(&mut dumps, "a", Some("k"));
        assert_eq!(dumps.running().unwrap().id, "a");
        assert_eq!(dumps.with_key("k").unwrap().id, "a");
        assert!(dumps.with_key("other").is_none());
        let path = "/spool/web-a.vmcore".into();
        dumps.end(
            "a",
            &DumpOutcome::Spooled {
                path,
                failures: Vec::new(),
            },
        );
        let ended = dumps.get("a").unwrap();
        assert_eq!((ended.state, ended.phase), (DumpState::Done, DumpPhase::Ended));
        assert_eq!(ended.spool_path.as_deref(), Some("/spool/web-a.vmcore"));
        assert!(dumps.running().is_none());
    }

    #[test]
    fn cancelling_reaches_only_a_running_dump() {
        let mut dumps = Dumps::default();
        let progress = begun(&mut dumps, "a", None);
        assert!(!dumps.cancel("b"));
        assert!(dumps.cancel("a") && progress.is_cancelled());
        dumps.end("a", &DumpOutcome::Cancelled);
        assert!(!dumps.cancel("a"));
        assert_eq!(dumps.get("a").unwrap().error.as_deref(), Some("the dump was cancelled"));
    }

    #[test]
    fn only_the_newest_are_remembered() {
        let mut dumps = Dumps::default();
        for number in 0..=REMEMBERED_MAX {
            begun(&mut dumps, &number.to_string(), None);
        }
        assert!(dumps.get("0").is_none());
        assert_eq!(dumps.last_id().unwrap(), REMEMBERED_MAX.to_string());
    }
}
