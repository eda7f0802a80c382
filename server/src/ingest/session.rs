//! One session: datagrams in batches, storage, then acknowledgements.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use netdump::server::SessionState;
use netdump::{Accepted, FinishTicket, Kind, Rejected, Session, SessionEvent, Ticket};

use super::door::{Arrival, Door};
use super::inbox::Inbox;
use super::{Counters, Entry, Handle, Shared};
use crate::admission::{Refused, Short};
use crate::hooks::{Happened, HookEvent};
use crate::limits::{ALIVE_FOR, HOLD_LOOK, RESUMED_KEPT, STOP_LOOK};
use crate::os::trains::{self, Datagram, TrainSender};
use crate::store::examine::Ending;
use crate::store::journal::{Journal, SessionHead};
use crate::store::layout;
use crate::store::spool::{Spool, SpoolError};
use crate::{escape, store};

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
    /// Whether the length that the dump will have was looked at.
    expected_len_seen: bool,
    /// Whether a lack of space was told.
    no_space_told: Cell<bool>,
    acks_out: TrainSender,
}

/// Data of a batch that is contiguous in the file.
#[derive(Debug)]
struct Run<'d> {
    offset: u64,
    end: u64,
    slices: Vec<&'d [u8]>,
    tickets: Vec<Ticket>,
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
        store::forget_lingering(&self.shared.root, &id);
        self.forget_herald();
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
                self.end(Ending::Stopped);
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
                Ok(false) => self.send_acks()?,
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

    /// Stores what came and gives the tickets back. An error is how the session ends.
    fn take_batch(&mut self, buffer: &[u8], datagrams: &[Datagram]) -> Result<Next, Ending> {
        Counters::add(&self.shared.counters.packets, datagrams.len() as u64);
        let mut next = Next::GoOn;
        let before = self.session.stats().duplicate_messages;
        let mut runs: Vec<Run<'_>> = Vec::new();
        let mut finished = None;
        let mut at = 0;
        for Datagram { len, from } in datagrams {
            let datagram = buffer.get(at..at + len).unwrap_or_default();
            at += len;
            if *from != self.handle.peer {
                // It came before the socket was connected.
                self.pass_on(*from, datagram, true);
                continue;
            }
            let accepted = self.session.handle_datagram(self.now(), datagram);
            if !matches!(accepted, Ok(Accepted::Herald) | Err(_)) {
                (self.heard_at, self.is_ours, self.awaited) = (Instant::now(), None, false);
            }
            match accepted {
                // The bytes that came first count. Writing others over them would cost a slow disk its time, and let anybody
                // change what is stored.
                Ok(Accepted::Data {
                    ticket,
                    duplicate: true,
                    ..
                }) => self.give_back(ticket),
                Ok(Accepted::Data {
                    offset, bytes, ticket, ..
                }) => add_to_runs(&mut runs, offset, bytes, ticket),
                Ok(Accepted::KernelHeader { offset, bytes, ticket }) => {
                    self.spool()?
                        .kernel_header(offset, bytes)
                        .map_err(|why| self.storage(why))?;
                    self.give_back(ticket);
                }
                Ok(Accepted::Key { offset, bytes, ticket }) => {
                    self.spool()?.key(offset, bytes).map_err(|why| self.storage(why))?;
                    self.give_back(ticket);
                }
                Ok(Accepted::Finished { ticket }) => finished = Some(ticket),
                Ok(Accepted::Herald | Accepted::Repeated) => {}
                Err(Rejected::HeraldAfterData) => {
                    let over = self.is_over_for_newcomers();
                    self.pass_on(*from, datagram, over);
                    if over && self.door.is_some() {
                        next = Next::GiveWay;
                    }
                }
                Err(why) => self.note_refusal(&why),
            }
        }
        if !runs.is_empty() || self.spool.is_some() {
            let point = self.session.resume_point();
            self.spool()?.point(point).map_err(|why| self.storage(why))?;
        }
        if let Some(page) = self.session.displaced_page()
            && let Some(spool) = &mut self.spool
        {
            spool
                .first_page_is_at(page.offset, page.len_bytes)
                .map_err(|why| self.storage(why))?;
        }
        if !runs.is_empty() {
            self.held_since.get_or_insert_with(Instant::now);
        }
        for run in runs {
            self.write_run(&run)?;
            Counters::add(&self.shared.counters.received_bytes, run.end - run.offset);
            run.tickets.into_iter().for_each(|ticket| self.give_back(ticket));
        }
        self.look_at_expected_len()?;
        let duplicates = self.session.stats().duplicate_messages - before;
        Counters::add(&self.shared.counters.duplicate_packets, duplicates);
        if let Some(ticket) = finished {
            self.finish(ticket)?;
        }
        Ok(next)
    }

    /// Hands a datagram that is not this session's to the listening port, whose port this session has.
    fn pass_on(&self, peer: SocketAddrV4, datagram: &[u8], port_is_free: bool) {
        if let Some(door) = &self.door {
            door.take(&Arrival {
                peer,
                dialled: *self.handle.dialled.ip(),
                datagram,
                port_is_free,
            });
        }
    }

    /// Whether a herald of the same sender shows that this session is over: it lingers, or its sender has been silent for
    /// longer than one that lives ever is. Before that a herald ends nothing.
    fn is_over_for_newcomers(&self) -> bool {
        self.session.state() == SessionState::Lingering || self.heard_at.elapsed() >= ALIVE_FOR
    }

    /// FINISHED came: makes the core, and acknowledges when everything is on disk.
    fn finish(&mut self, ticket: FinishTicket) -> Result<(), Ending> {
        // What came with FINISHED is acknowledged now: the commit may take a while.
        let _ = self.send_acks();
        let durable = match self.spool.take() {
            // Nothing but heralds came: there is nothing to keep.
            None => true,
            Some(spool) => self.commit(spool, Ending::Finished),
        };
        if durable {
            self.session.durable(self.now(), ticket);
            Ok(())
        } else {
            Err(Ending::Storage("the core could not be made durable".to_owned()))
        }
    }

    /// Ends the session and keeps what came.
    fn end(&mut self, ending: Ending) {
        if let Some(spool) = self.spool.take() {
            if matches!(ending, Ending::Storage(_)) {
                Counters::add(&self.shared.counters.storage_failures, 1);
            }
            let ending = match (ending, self.last_refusal.take()) {
                // A sender that was refused something falls silent because of it.
                (Ending::Silent { .. }, Some(why)) => Ending::Refused(why),
                (ending, _) => ending,
            };
            self.commit(spool, ending);
        }
    }

    /// Makes a core; whether everything that came is on disk.
    fn commit(&self, spool: Spool, ending: Ending) -> bool {
        let duplicates = self.session.stats().duplicate_messages;
        let ended = ending.clone();
        match spool.commit(ending, duplicates) {
            Ok(kept) => {
                let event = || HookEvent::of_core(kept.dir.clone(), &kept.manifest, &ended);
                self.shared.hooks.happened(event);
                let summary = kept.manifest.summary();
                let reason = kept.manifest.reason.as_deref().unwrap_or_default();
                tracing::info!(core = %summary.id, guest = %summary.guest, state = %summary.state, reason, "core kept");
                self.shared.cores.insert(kept.dir.clone(), &kept.manifest);
                self.shared.explainer.kept(&kept.dir);
                self.shared.announce();
                kept.durable
            }
            Err(why) => {
                tracing::error!(session = %self.handle.id, "no core could be made, the spool is left: {why}");
                false
            }
        }
    }

    /// The session's storage, made when the first bytes come: heralds alone leave no trace on disk.
    fn spool(&mut self) -> Result<&mut Spool, Ending> {
        let spool = match self.spool.take() {
            Some(spool) => spool,
            None => {
                let spool = self.make_spool()?;
                // From here on the journal says who it is.
                self.forget_herald();
                spool
            }
        };
        Ok(self.spool.insert(spool))
    }

    /// The answered herald need not be found again.
    fn forget_herald(&mut self) {
        if let Some(place) = self.answered_at.take() {
            self.shared.answered.clear(place);
        }
    }

    /// Makes the session's storage.
    fn make_spool(&self) -> Result<Spool, Ending> {
        let make = || {
            let account = self.shared.admission.ledger.open(*self.handle.peer.ip());
            Spool::create(&self.shared.root, &self.head(), self.session.resume_point(), account)
        };
        let made = match make() {
            Err(SpoolError::Short(_)) if self.shared.recount() => make(),
            made => made,
        };
        let spool = made.map_err(|why| {
            tracing::error!(session = %self.handle.id, "dump refused: {why}");
            self.storage(why)
        })?;
        self.shared.hooks.happened(|| self.hook_event(Happened::Start));
        Ok(spool)
    }

    /// Stores a run of bytes.
    fn write_run(&mut self, run: &Run<'_>) -> Result<(), Ending> {
        let stored = match self.spool()?.write_run(run.offset, &run.slices) {
            // Cores may have been removed since they were counted.
            Err(SpoolError::Short(_)) if self.shared.recount() => self.spool()?.write_run(run.offset, &run.slices),
            stored => stored,
        };
        stored.map_err(|why| self.storage(why))
    }

    /// The ending of a session whose bytes cannot be stored.
    fn storage(&self, why: SpoolError) -> Ending {
        if let SpoolError::Short(short) = &why {
            let (peer, reason) = (self.handle.peer, short.refused());
            self.shared.admission.refuse(peer, reason, &short.to_string());
        }
        if why.is_no_space() {
            self.tell_no_space(&why.to_string(), 0);
        }
        storage(why)
    }

    /// As soon as the length of the dump is known: one that is too long is refused, and somebody is told of one for which
    /// there is no room now. There may be in time.
    fn look_at_expected_len(&mut self) -> Result<(), Ending> {
        let Some(spool) = self.spool.as_mut().filter(|_| !self.expected_len_seen) else {
            return Ok(());
        };
        let Some(len_bytes) = spool.expected_len() else {
            return Ok(());
        };
        self.expected_len_seen = true;
        let max = self.shared.admission.file_len_max(&self.shared.root);
        if len_bytes > max {
            let sentence = format!("the dump will have {len_bytes} bytes, and {max} is what one may (dump-max)");
            let peer = self.handle.peer;
            self.shared.admission.refuse(peer, Refused::DumpBytes, &sentence);
            return Err(Ending::Refused(sentence));
        }
        let mut set_aside = spool.set_aside(len_bytes);
        if set_aside.is_err() && self.shared.recount() {
            set_aside = spool.set_aside(len_bytes);
        }
        if let Err(short) = set_aside {
            tracing::warn!(session = %self.handle.id, len_bytes, "no room for all of the dump: {short}");
            self.tell_no_space(&short.to_string(), len_bytes);
        }
        Ok(())
    }

    /// Runs the command for a lack of space, once in a session.
    fn tell_no_space(&self, why: &str, file_len_bytes: u64) {
        if !self.no_space_told.replace(true) {
            self.shared.hooks.happened(|| HookEvent {
                reason: Some(why.to_owned()),
                file_len_bytes,
                ..self.hook_event(Happened::NoSpace)
            });
        }
    }

    /// What a command is told of this session.
    fn hook_event(&self, happened: Happened) -> HookEvent {
        let handle = &self.handle;
        let label = label(self.session.herald_payload());
        let dir = layout::session_dir(&self.shared.root, &handle.id);
        HookEvent::of_session(happened, &handle.id, label.as_deref(), &handle.peer.to_string(), dir)
    }

    /// What is known of the session now.
    fn head(&self) -> SessionHead {
        let age = self.handle.started.elapsed();
        let started = Timestamp::now() - jiff::SignedDuration::try_from(age).unwrap_or_default();
        SessionHead {
            id: self.handle.id.clone(),
            client_addr: self.handle.peer.to_string(),
            server_addr: self.handle.dialled.to_string(),
            session_addr: self.handle.local.to_string(),
            herald_label: label(self.session.herald_payload()),
            started_at: format!("{started:.3}"),
        }
    }

    /// Gives a ticket back to the protocol, which acknowledges.
    fn give_back(&mut self, ticket: Ticket) {
        if let Err(why) = self.session.received(ticket) {
            self.last_refusal = Some(why.to_string());
        }
    }

    /// Remembers why something was not taken.
    fn note_refusal(&mut self, why: &Rejected) {
        if matches!(why, Rejected::OutOfBounds { .. } | Rejected::TooFragmented { .. }) {
            if let Rejected::OutOfBounds { kind: Kind::Vmcore, .. } = why {
                let (peer, reason) = (self.handle.peer, Refused::DumpBytes);
                self.shared.admission.refuse(peer, reason, &why.to_string());
            } else if self.last_refusal.is_none() {
                tracing::warn!(session = %self.handle.id, "message refused: {why}");
            }
            self.last_refusal = Some(why.to_string());
        }
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

/// Adds data to the run that it continues, or begins a new one.
fn add_to_runs<'d>(runs: &mut Vec<Run<'d>>, offset: u64, bytes: &'d [u8], ticket: Ticket) {
    let end = offset.saturating_add(bytes.len() as u64);
    match runs.last_mut() {
        Some(run) if run.end == offset => {
            run.slices.push(bytes);
            run.tickets.push(ticket);
            run.end = end;
        }
        _ => runs.push(Run {
            offset,
            end,
            slices: vec![bytes],
            tickets: vec![ticket],
        }),
    }
}

/// The herald's path as a label: text up to the first NUL, escaped.
pub(crate) fn label(herald: &[u8]) -> Option<String> {
    let text = herald.split(|byte| *byte == 0).next()?;
    escape::some_line(&String::from_utf8_lossy(text))
}

/// The ending of a session whose bytes cannot be stored.
#[expect(clippy::needless_pass_by_value, reason = "used as a function of the error")]
fn storage(why: SpoolError) -> Ending {
    match why {
        SpoolError::TooFragmented | SpoolError::Short(Short::Guest { .. } | Short::Total { .. }) => {
            Ending::Refused(why.to_string())
        }
        SpoolError::Io { .. } | SpoolError::Short(Short::Free { .. }) => Ending::Storage(why.to_string()),
    }
}
