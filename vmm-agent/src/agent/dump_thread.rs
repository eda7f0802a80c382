//! The thread that makes the dumps, one after the other, and the promise that the end of each is heard of.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use vmcore::CoreferryNote;
use vmcore::linux::filter::FilterLevel;

use super::Shared;
use super::frozen::FrozenGuest;
use super::supervisor::Input;
use crate::dump::contained::{PANICKED, contained};
use crate::dump::{DumpJob, DumpOutcome, Progress, SpoolFailure, ferry};
use crate::limits::KERNEL_SHARE_OF_TIME;

/// Something for the dump's thread to do.
pub(super) type Work = Box<dyn FnOnce() + Send>;

/// The thread. It is there before anything goes wrong, because a host that has run out of threads must not cost a core. It ends
/// when this is dropped and its work is done.
#[derive(Debug)]
pub(super) struct DumpThread(Sender<Work>);

impl DumpThread {
    pub(super) fn start() -> io::Result<Self> {
        let (give, given) = mpsc::channel::<Work>();
        let run = move || {
            for work in given {
                if contained(work).is_none() {
                    tracing::error!("the dump's thread {PANICKED}");
                }
            }
        };
        std::thread::Builder::new().name("dump".to_owned()).spawn(run)?;
        Ok(Self(give))
    }

    /// Has it do something, after what it was given before.
    pub(super) fn give(&self, work: Work) {
        if let Err(mpsc::SendError(work)) = self.0.send(work) {
            // Nothing ends that thread before its time; if something did, the evidence still comes first.
            work();
        }
    }
}

/// What one dump works with.
pub(super) struct DumpWork {
    pub(super) shared: Arc<Shared>,
    pub(super) progress: Arc<Progress>,
    pub(super) deadline: Option<Instant>,
    pub(super) filter: FilterLevel,
    pub(super) end: EndOfDump,
}

impl DumpWork {
    /// Makes the dump.
    pub(super) fn run(self, mut guest: FrozenGuest, mut note: CoreferryNote) {
        let in_time = || self.deadline.is_none_or(|deadline| Instant::now() < deadline);
        let go_on = || in_time() && !self.progress.is_cancelled();
        if contained(|| guest.look_into(&mut note, &go_on)).is_none() {
            note.troubles.push(format!("looking for VMCOREINFO {PANICKED}"));
        }
        // What is left of the time is for the memory first.
        let until = self.deadline.map(|deadline| {
            let now = Instant::now();
            now + deadline.saturating_duration_since(now) / KERNEL_SHARE_OF_TIME
        });
        if contained(|| guest.take_kernel(until, &go_on, &mut note)).is_none() {
            note.troubles.push(format!("looking at the kernel file {PANICKED}"));
        }
        if self.filter.needs_kernel() && contained(|| guest.filter(self.filter, &mut note)).is_none() {
            note.troubles.push(format!("the filter {PANICKED}"));
        }
        let config = &self.shared.config;
        let job = DumpJob {
            source: &guest,
            note: &note,
            targets: &config.targets,
            open_wire: &|| Ok(config.instruments.around(config.wire.open()?)),
            network: config.network,
            spool: config.spool.clone(),
            deadline: self.deadline,
            progress: &self.progress,
        };
        self.end.tell(ferry(&job));
    }
}

/// Tells the supervisor how the dump ended, also when its thread panicked: the policy waits for it.
pub(super) struct EndOfDump(Option<Sender<Input>>);

impl EndOfDump {
    pub(super) fn new(inputs: Sender<Input>) -> Self {
        Self(Some(inputs))
    }

    fn tell(mut self, outcome: DumpOutcome) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: DumpOutcome) {
        if let Some(inputs) = self.0.take() {
            // The supervisor waits for this before it ends, so somebody is listening.
            let _ = inputs.send(Input::DumpEnded(outcome));
        }
    }
}

impl Drop for EndOfDump {
    fn drop(&mut self) {
        // Work that was never begun has no end.
        if std::thread::panicking() {
            self.send(DumpOutcome::Lost {
                failures: Vec::new(),
                spool: SpoolFailure::Panicked,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_dump_whose_thread_panics_is_heard_of() {
        let (inputs, heard) = mpsc::channel();
        let end = EndOfDump::new(inputs);
        let thread = std::thread::spawn(move || {
            let _end = end;
            panic!("a bug on purpose, for the test of what follows");
        });
        let input = heard.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(thread.join().is_err());
        let Input::DumpEnded(outcome) = input else {
            panic!("{input:?}");
        };
        assert!(!outcome.is_safe());
        assert!(outcome.to_string().contains("bug of coreferry"), "{outcome}");
    }

    #[test]
    fn the_thread_outlives_work_that_panics() {
        let thread = DumpThread::start().unwrap();
        let (done, heard) = mpsc::channel();
        thread.give(Box::new(|| panic!("a bug on purpose, for the test of what follows")));
        thread.give(Box::new(move || {
            done.send(std::thread::current().name().map(str::to_owned)).unwrap();
        }));
        let name = heard.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(name.as_deref(), Some("dump"));
    }

    #[test]
    fn an_end_is_told_once_and_work_that_never_ran_tells_nothing() {
        let (inputs, heard) = mpsc::channel();
        EndOfDump::new(inputs.clone()).tell(DumpOutcome::Cancelled);
        drop(EndOfDump::new(inputs));
        assert!(matches!(
            heard.iter().collect::<Vec<_>>().as_slice(),
            [Input::DumpEnded(DumpOutcome::Cancelled)]
        ));
    }
}
