//! From the sockets to the store, on plain threads.
//!
//! ```text
//! herald socket (20023) ── one thread per --listen ──► new session: socket on a fresh port, a thread of its own
//!                                                      │ batch of datagrams ─► storage ─► acknowledgements
//!                                                      └ FINISHED ─► commit ─► acknowledged ─► lingers
//! ```

mod counters;
mod herald;
mod session;

use std::net::{SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netdump::{AckPolicy, Seqno};

pub(crate) use counters::Counters;
pub(crate) use herald::listen;

use crate::admission::{Admission, Again, Refused};
use crate::cores::LocalCores;
use crate::limits::{HALF_OPEN_KEPT, RECOUNT_AFTER};

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
    pub(crate) rules: SessionRules,
    pub(crate) cores: Arc<LocalCores>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: AtomicBool,
    /// Zero of the protocol's clock.
    pub(crate) epoch: Instant,
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
    pub(crate) dialled: SocketAddrV4,
    pub(crate) seqno: Seqno,
    pub(crate) herald: Vec<u8>,
    pub(crate) started: Instant,
    pub(crate) socket: UdpSocket,
    /// It was let in when it came again.
    pub(crate) again: Again,
    /// Data, header, key or FINISHED came.
    pub(crate) has_data: AtomicBool,
    /// It is to give its place to another one.
    pub(crate) evicted: AtomicBool,
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
        rules: SessionRules,
        cores: Arc<LocalCores>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            root,
            admission,
            rules,
            cores,
            counters,
            stop: AtomicBool::new(false),
            epoch: Instant::now(),
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

    /// The session that has had nothing but a herald from this peer to this address.
    fn waiting_session(&self, peer: SocketAddrV4, dialled: SocketAddrV4) -> Option<Arc<Handle>> {
        let sessions = self.lock_sessions();
        let live = sessions
            .iter()
            .filter(|entry| !entry.thread.is_finished())
            .map(|entry| &entry.handle);
        live.rev()
            .find(|handle| {
                let same = handle.peer == peer && handle.dialled == dialled;
                same && !handle.has_data.load(Ordering::Acquire) && !handle.evicted.load(Ordering::Acquire)
            })
            .map(Arc::clone)
    }

    /// Finds a place for a newcomer. When all are taken, the oldest session without data gives up its own: one that has
    /// waited longer than clients do, or any that did not come again if the newcomer did. Those that were told to go are
    /// gone within a moment, and no longer count.
    fn find_place(&self, again: Again) -> Result<(), (Refused, usize)> {
        let mut sessions = self.lock_sessions();
        sessions.retain(|entry| !entry.thread.is_finished());
        let stays = |entry: &&Entry| !entry.handle.evicted.load(Ordering::Acquire);
        let is_half_open = |entry: &&Entry| stays(entry) && !entry.handle.has_data.load(Ordering::Acquire);
        let half_open_max = self.admission.limits.half_open_max;
        let short = if sessions.iter().filter(stays).count() >= self.rules.sessions_max {
            (Refused::Sessions, self.rules.sessions_max)
        } else if sessions.iter().filter(is_half_open).count() >= half_open_max {
            (Refused::HalfOpen, half_open_max)
        } else {
            return Ok(());
        };
        let gives_way = |handle: &&Arc<Handle>| {
            handle.started.elapsed() >= HALF_OPEN_KEPT || again == Again(true) && handle.again == Again(false)
        };
        let mut half_open = sessions.iter().filter(is_half_open).map(|entry| &entry.handle);
        let handle = half_open.find(gives_way).ok_or(short)?;
        handle.evicted.store(true, Ordering::Release);
        Ok(())
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

    fn lock_sessions(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
