//! One session: datagrams in batches, storage, then acknowledgements.
//!
//! ```text
//! socket ─► batch ─► netdump::Session ─► keep: spool ─► acknowledged ─FINISHED─► keep: core ─► acknowledged, lingers
//! ```
//!
//! - this file: its thread, and the waits of its loop
//! - `batch`: what becomes of each datagram
//! - `keep`: storage, and the core at the end

mod batch;
mod keep;

#[cfg(feature = "fuzz")]
pub(crate) use self::keep::label;

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use netdump::{Session, SessionEvent};

use super::door::Door;
use super::inbox::Inbox;
use super::{Counters, Entry, Handle, Shared};
use crate::admission::Refused;
use crate::limits::{HOLD_LOOK, RESUMED_KEPT, STOP_LOOK};
use crate::os::trains::{self, Datagram, TrainSender};
use crate::store;
use crate::store::examine::Ending;
use crate::store::journal::Journal;
use crate::store::spool::Spool;

/// Room for a batch: datagrams are packed one behind the other, and a train of the largest length needs to fit.
const BATCH_BYTES: usize = 256 * 1024;
/// Acknowledgements sent by one call; the kernel takes at least 64 (UDP_MAX_SEGMENTS).
const ACKS_AT_ONCE: usize = 64;

/// A session that is about to begin, or to go on.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) id: String,
    pub(crate) peer: SocketAddrV4,
    /// Where the herald was sent to.
    pub(crate) dialled: SocketAddrV4,
    pub(crate) session: Session,
    pub(crate) socket: UdpSocket,
    /// The listening address, if the session has its port.
    pub(crate) door: Option<Arc<Door>>,
    /// Where its answered herald is written down.
    pub(crate) answered_at: Option<usize>,
    /// What an earlier receiver left of it.
    pub(crate) left_over: Option<SpoolOrLinger>,
}

/// What there is of a session that outlived its receiver.
#[derive(Debug)]
pub(crate) enum SpoolOrLinger {
    /// What it has stored.
    Spool(Box<Spool>),
    /// It is a core; this is kept as long as it answers.
    Linger(Option<Journal>),
}

impl Beginning {
    /// Starts the session's thread, if there is a place for it.
    pub(crate) fn begin(self, shared: &Arc<Shared>) -> io::Result<Arc<Handle>> {
        let SocketAddr::V4(local) = self.socket.local_addr()? else {
            return Err(io::Error::other("a session's socket has no IPv4 address"));
        };
        let handle = Arc::new(Handle {
            id: self.id,
            peer: self.peer,
            dialled: self.dialled,
            local,
            started: Instant::now(),
            socket: self.socket,
            inbox: self.door.is_some().then(Inbox::new).transpose()?,
        });
        // Under the lock, so that the session cannot be missed by the next datagram.
        let mut sessions = shared.lock_sessions();
        sessions.retain(|entry| !entry.thread.is_finished());
        if sessions.len() >= shared.rules.sessions_max {
            let places = shared.rules.sessions_max;
            let sentence = format!("all {places} places are taken");
            shared.admission.refuse(handle.peer, Refused::Sessions, &sentence);
            return Err(io::Error::other(format!("{} sessions run", shared.rules.sessions_max)));
        }
        let is_new = self.left_over.is_none();
        let (spool, linger_lock) = match self.left_over {
            Some(SpoolOrLinger::Spool(spool)) => (Some(*spool), None),
            Some(SpoolOrLinger::Linger(lock)) => (None, lock),
            None => (None, None),
        };
        let work = SessionThread {
            shared: Arc::clone(shared),
            handle: Arc::clone(&handle),
            door: self.door,
            session: self.session,
            spool,
            answered_at: self.answered_at,
            linger_lock,
            awaited: !is_new,
            heard_at: Instant::now(),
            away: Duration::ZERO,
            dropped: 0,
            is_ours: None,
            last_refusal: None,
            held_since: None,
            unanswered_since: None,
            expected_len_seen: false,
            no_space_told: Cell::new(false),
            acks_out: TrainSender::new(),
        };
        let thread = thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || work.run())?;
        Counters::add(&shared.counters.sessions, u64::from(is_new));
        Counters::add(&shared.counters.resumed, u64::from(!is_new));
        shared.counters.sessions_now.fetch_add(1, Ordering::Relaxed);
        sessions.push(Entry {
            handle: Arc::clone(&handle),
            thread,
        });
        Ok(handle)
    }
}

/// The thread of one session.
#[derive(Debug)]
struct SessionThread {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    door: Option<Arc<Door>>,
    session: Session,
    spool: Option<Spool>,
    answered_at: Option<usize>,
    /// Held until a session that was taken over when it lingered is over.
    linger_lock: Option<Journal>,
    /// It was taken over and its sender has not been heard since.
    awaited: bool,
    heard_at: Instant,
    /// Time spent storing.
    away: Duration,
    /// What the kernel says to have dropped so far.
    dropped: u32,
    /// Whether the sender is one of ours, once that was looked up in the present silence.
    is_ours: Option<bool>,
    last_refusal: Option<String>,
    /// Since when acknowledgements of data are held, because the disk is behind.
    held_since: Option<Instant>,
    /// Since when data waits for its acknowledgement.
    unanswered_since: Option<Instant>,
    /// Whether the length that the dump will have was looked at.
    expected_len_seen: bool,
    /// Whether a lack of space was told.
    no_space_told: Cell<bool>,
    acks_out: TrainSender,
}

/// How it goes on after a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// As before.
    GoOn,
    /// The sender has begun anew, and the listening port is wanted for that.
    GiveWay,
}

impl SessionThread {
    /// Runs until the session is over, and makes a core of what came.
    fn run(mut self) {
        let (id, peer) = (self.handle.id.clone(), self.handle.peer);
        if self.awaited {
            tracing::info!(session = %id, %peer, "session goes on");
        } else {
            tracing::info!(session = %id, %peer, "session begins");
        }
        if let Err(why) = self.serve() {
            tracing::error!(session = %id, %peer, "session failed: {why}");
            self.end(Ending::Storage(format!("the session's socket failed: {why}")));
        }
        if self.shared.stopping() {
            self.leave();
        } else {
            store::forget_lingering(&self.shared.root, &id);
            self.forget_herald();
        }
        drop(self.linger_lock.take());
        self.shared.counters.sessions_now.fetch_sub(1, Ordering::Relaxed);
        if self.dropped > 0 {
            let dropped = self.dropped;
            tracing::warn!(session = %id, %peer, dropped, "the kernel dropped datagrams: raise net.core.rmem_max");
        }
        tracing::info!(session = %id, %peer, "session over");
    }

    /// The loop. Returns when the session is over; an error is the socket's.
    fn serve(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BATCH_BYTES];
        self.send_acks()?;
        loop {
            if self.shared.stopping() {
                return Ok(());
            }
            let datagrams = self.receive_batch(&mut buffer)?;
            if datagrams.is_empty() {
                if self.is_silent_ours() {
                    self.end(self.silent());
                    return Ok(());
                }
                if self.awaited && self.heard_at.elapsed() >= RESUMED_KEPT.min(self.shared.rules.silent_after) {
                    self.end(Ending::LeftOver);
                    return Ok(());
                }
            } else {
                let began = Instant::now();
                let taken = self.take_batch(&buffer, &datagrams);
                self.away += began.elapsed();
                self.heard_at += began.elapsed();
                match taken {
                    Ok(Next::GoOn) => {}
                    Ok(Next::GiveWay) => {
                        self.end(self.silent());
                        return Ok(());
                    }
                    Err(ending) => {
                        self.session.refuse();
                        self.end(ending);
                        return Ok(());
                    }
                }
            }
            self.session.handle_timeout(self.now());
            match self.disk_is_behind() {
                Ok(true) => {}
                Ok(false) => {
                    self.send_acks()?;
                    if let Some(since) = self.unanswered_since.take() {
                        self.shared.counters.shapes.ack.add_since(since);
                    }
                }
                Err(ending) => {
                    self.session.refuse();
                    self.end(ending);
                    return Ok(());
                }
            }
            match self.session.poll_event() {
                Some(SessionEvent::LingerOver) => return Ok(()),
                Some(SessionEvent::Silent) => {
                    self.end(self.silent());
                    return Ok(());
                }
                None => {}
            }
        }
    }

    /// Leaves the session as it is to the next receiver, which goes on with it or makes a core of it.
    fn leave(&mut self) {
        if self.spool.take().is_some() {
            let (session, peer) = (&self.handle.id, self.handle.peer);
            tracing::info!(%session, %peer, "stopped amid a dump: the next receiver goes on with it, or keeps what came");
        }
    }

    /// The protocol's time, without that which was spent storing: while nobody listened, nobody was silent.
    fn now(&self) -> netdump::Instant {
        let away_ns = u64::try_from(self.away.as_nanos()).unwrap_or(u64::MAX);
        netdump::Instant::from_nanos(self.shared.now().as_nanos().saturating_sub(away_ns))
    }

    /// Waits for a datagram, then takes all that are there, up to a burst. Gives them with their lengths.
    fn receive_batch(&mut self, buffer: &mut [u8]) -> io::Result<Vec<Datagram>> {
        for waits in [true, false] {
            if let Some(inbox) = &self.handle.inbox {
                let datagrams = inbox.take(buffer, self.handle.peer);
                if !datagrams.is_empty() {
                    return Ok(datagrams);
                }
            }
            let mut dropped = self.dropped;
            let datagrams = trains::receive_batch_counting(&self.handle.socket, buffer, &mut dropped)?;
            self.shared.count_drops(&mut self.dropped, dropped);
            if !datagrams.is_empty() || !waits {
                return Ok(datagrams);
            }
            let until_deadline = self.session.poll_timeout().map(|at| at.since(self.now()));
            let look = if self.held_since.is_some() {
                HOLD_LOOK
            } else {
                STOP_LOOK
            };
            let patience = until_deadline.map_or(look, |left| left.min(look));
            let wake = self.handle.inbox.as_ref().map(Inbox::wake);
            trains::wait_any(&self.handle.socket, wake, patience)?;
        }
        Ok(Vec::new())
    }

    /// Whether acknowledgements are still to be held because the disk is behind. They are held from the moment when
    /// data came, so that each goes before its sender sends again.
    fn disk_is_behind(&mut self) -> Result<bool, Ending> {
        let hold = match &mut self.spool {
            Some(spool) => spool.turn().map_err(|why| self.storage(why))?,
            None => Duration::ZERO,
        };
        let held = self.held_since.filter(|since| since.elapsed() < hold);
        if held.is_none() {
            self.held_since = None;
        }
        Ok(held.is_some())
    }

    /// Sends the acknowledgements that are due.
    fn send_acks(&mut self) -> io::Result<()> {
        const ACK_LEN: u16 = 4;
        let mut acks = [0; ACKS_AT_ONCE * ACK_LEN as usize];
        loop {
            let len = self.session.poll_acks(&mut acks);
            if len == 0 {
                return Ok(());
            }
            let acks = acks.get(..len).unwrap_or_default();
            self.acks_out.send(&self.handle.socket, None, acks, ACK_LEN)?;
        }
    }

    /// Whether a sender of ours, which never pauses for long, has been silent for its shorter time.
    fn is_silent_ours(&mut self) -> bool {
        if self.heard_at.elapsed() < self.shared.rules.silent_after_ours {
            return false;
        }
        let Some(spool) = &self.spool else {
            return false;
        };
        *self.is_ours.get_or_insert_with(|| spool.has_dump_id())
    }

    /// The ending of a session whose sender is silent.
    fn silent(&self) -> Ending {
        Ending::Silent {
            silent_s: self.heard_at.elapsed().as_secs(),
        }
    }
}
