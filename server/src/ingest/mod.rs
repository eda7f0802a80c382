//! From the sockets to the store, on plain threads.
//!
//! ```text
//! listening socket (20023) ── one thread per --listen ──► answered herald: a socket on a fresh port, no thread, no file
//!                                                          │ first data there, or (behind a translator) at the listening port
//!                                                          ▼
//!                                             session: a thread and a spool of its own
//!                                                          │ batch of datagrams ─► storage ─► acknowledgements
//!                                                          └ FINISHED ─► commit ─► acknowledged ─► lingers
//! ```

mod counters;
mod door;
mod endings;
mod half_open;
mod inbox;
mod kept;
mod session;
mod shapes;

use std::net::{SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::EventLog;
use netdump::{AckPolicy, SessionLimits};

pub(crate) use counters::Counters;
pub(crate) use door::Door;
#[cfg(feature = "fuzz")]
pub(crate) use session::label;
pub(crate) use session::{Beginning, SpoolOrLinger};

use self::inbox::Inbox;
use crate::admission::Admission;
use crate::cores::LocalCores;
use crate::explain::Explainer;
use crate::hooks::HookRunner;
use crate::limits::{EXTENTS_MAX, RECOUNT_AFTER};
use crate::store::answered::Answered;

/// How long sessions live, how many, and how they answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRules {
    /// Sessions at one time.
    pub sessions_max: usize,
    /// Silence of a stock sender that ends its session.
    pub silent_after: Duration,
    /// Silence of a sender of ours, known by the dump id in its core's note.
    pub silent_after_ours: Duration,
    /// How long FINISHED is acknowledged again.
    pub linger: Duration,
    /// When data that is stored is acknowledged.
    pub ack_policy: AckPolicy,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    pub(crate) admission: Arc<Admission>,
    pub(crate) hooks: HookRunner,
    pub(crate) explainer: Explainer,
    pub(crate) events: Arc<EventLog>,
    pub(crate) rules: SessionRules,
    pub(crate) cores: Arc<LocalCores>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: AtomicBool,
    /// Zero of the protocol's clock.
    pub(crate) epoch: Instant,
    /// Heralds that were answered, for a receiver that takes over.
    answered: Answered,
    /// Where the next one is written down.
    next_place: AtomicUsize,
    sessions: Mutex<Vec<Entry>>,
    /// When the stored cores were counted last.
    counted: Mutex<Instant>,
    /// Cores kept since the start; waited for by [`Shared::wait`].
    kept: Mutex<u64>,
    kept_changed: Condvar,
}

/// A session as the other threads see it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: String,
    pub(crate) peer: SocketAddrV4,
    /// Where its herald was sent to.
    pub(crate) dialled: SocketAddrV4,
    /// Where its data is sent to.
    pub(crate) local: SocketAddrV4,
    pub(crate) started: Instant,
    pub(crate) socket: UdpSocket,
    inbox: Option<Inbox>,
}

impl Handle {
    /// Hands on a datagram that came to the listening port.
    fn forward(&self, datagram: &[u8]) {
        if let Some(inbox) = &self.inbox {
            inbox.put(datagram);
        }
    }
}

#[derive(Debug)]
struct Entry {
    handle: Arc<Handle>,
    thread: JoinHandle<()>,
}

impl Shared {
    pub(crate) fn new(
        root: PathBuf,
        admission: Arc<Admission>,
        (hooks, explainer, events): (HookRunner, Explainer, Arc<EventLog>),
        rules: SessionRules,
        cores: Arc<LocalCores>,
        counters: Arc<Counters>,
        answered: Answered,
    ) -> Self {
        Self {
            root,
            admission,
            hooks,
            explainer,
            events,
            rules,
            cores,
            counters,
            stop: AtomicBool::new(false),
            epoch: Instant::now(),
            answered,
            next_place: AtomicUsize::new(0),
            sessions: Mutex::new(Vec::new()),
            counted: Mutex::new(Instant::now()),
            kept: Mutex::new(0),
            kept_changed: Condvar::new(),
        }
    }

    /// The protocol's time now.
    pub(crate) fn now(&self) -> netdump::Instant {
        let nanos = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        netdump::Instant::from_nanos(nanos)
    }

    /// Whether everything is to end.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until `found` gives something; looks again whenever a core was kept.
    pub(crate) fn wait<T>(&self, patience: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = found() {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.kept_changed.wait_timeout(kept, left);
            kept = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells those who wait that a core was kept.
    fn announce(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.kept_changed.notify_all();
    }

    /// Waits for the end of all sessions; they have been told to stop.
    pub(crate) fn join_sessions(&self) {
        let entries: Vec<Entry> = self.lock_sessions().drain(..).collect();
        for entry in entries {
            let _ = entry.thread.join();
        }
    }

    /// What a session may use.
    pub(crate) fn session_limits(&self) -> SessionLimits {
        SessionLimits {
            file_len_max: self.admission.file_len_max(&self.root),
            silent_after: self.rules.silent_after,
            linger: self.rules.linger,
            ack_policy: self.rules.ack_policy,
            extents_max: EXTENTS_MAX,
            ..SessionLimits::default()
        }
    }

    /// The session of this peer on this port.
    fn session_at(&self, peer: SocketAddrV4, local: SocketAddrV4) -> Option<Arc<Handle>> {
        let sessions = self.lock_sessions();
        let live = sessions.iter().filter(|entry| !entry.thread.is_finished());
        let mut found = live.map(|entry| &entry.handle).rev();
        found
            .find(|handle| (handle.peer, handle.local) == (peer, local))
            .cloned()
    }

    /// Whether all places for sessions are taken.
    fn is_full(&self) -> bool {
        let sessions = self.lock_sessions();
        let live = sessions.iter().filter(|entry| !entry.thread.is_finished());
        live.count() >= self.rules.sessions_max
    }

    /// Counts the stored cores anew for the limits on space; whether that was worth doing now.
    pub(crate) fn recount(&self) -> bool {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.elapsed() < RECOUNT_AFTER {
            return false;
        }
        *counted = Instant::now();
        self.admission.ledger.recount(self.cores.stored_bytes().into_iter());
        true
    }

    /// Counts what the kernel says to have dropped of a socket so far; `before` is what it said last.
    fn count_drops(&self, before: &mut u32, now: u32) {
        let more = now.wrapping_sub(*before);
        if more > 0 && now > *before {
            Counters::add(&self.counters.kernel_drops, u64::from(more));
            *before = now;
        }
    }

    fn lock_sessions(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
