//! One session: datagrams in batches, storage, then acknowledgements.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use netdump::{Accepted, FinishTicket, Kind, Rejected, Session, SessionEvent, Ticket};

use super::{Counters, Handle, Shared};
use crate::admission::{Refused, Short};
use crate::escape;
use crate::limits::{HOLD_LOOK, STOP_LOOK};
use crate::os::trains::{self, Datagram, TrainSender};
use crate::store::examine::Ending;
use crate::store::journal::SessionHead;
use crate::store::spool::{Spool, SpoolError};

/// Room for a batch: datagrams are packed one behind the other, and a train of the largest length needs to fit.
const BATCH_BYTES: usize = 256 * 1024;
/// Acknowledgements sent by one call; the kernel takes at least 64 (UDP_MAX_SEGMENTS).
const ACKS_AT_ONCE: usize = 64;

/// The thread of one session.
#[derive(Debug)]
pub(super) struct SessionThread {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    session: Session,
    spool: Option<Spool>,
    heard_at: Instant,
    /// Whether the sender is one of ours, once that was looked up in the present silence.
    is_ours: Option<bool>,
    last_refusal: Option<String>,
    /// Since when acknowledgements of data are held, because the disk is behind.
    held_since: Option<Instant>,
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

impl SessionThread {
    pub(super) fn new(shared: Arc<Shared>, handle: Arc<Handle>, session: Session) -> Self {
        Self {
            shared,
            handle,
            session,
            spool: None,
            heard_at: Instant::now(),
            is_ours: None,
            last_refusal: None,
            held_since: None,
            acks_out: TrainSender::new(),
        }
    }

    /// Runs until the session is over, and makes a core of what came.
    pub(super) fn run(mut self) {
        let (id, peer) = (self.handle.id.clone(), self.handle.peer);
        tracing::info!(session = %id, %peer, "session begins");
        if let Err(why) = self.serve() {
            tracing::error!(session = %id, %peer, "session failed: {why}");
            self.end(Ending::Storage(format!("the session's socket failed: {why}")));
        }
        self.shared.counters.sessions_now.fetch_sub(1, Ordering::Relaxed);
        tracing::info!(session = %id, %peer, "session over");
    }

    /// The loop. Returns when the session is over; an error is the socket's.
    fn serve(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BATCH_BYTES];
        self.send_acks()?;
        loop {
            if self.shared.stopping() || self.handle.evicted.load(Ordering::Acquire) {
                self.end(Ending::Stopped);
                return Ok(());
            }
            let datagrams = self.receive_batch(&mut buffer)?;
            if !datagrams.is_empty() {
                self.heard_at = Instant::now();
                self.is_ours = None;
                if let Err(ending) = self.take_batch(&buffer, &datagrams) {
                    self.session.refuse();
                    self.end(ending);
                    return Ok(());
                }
            } else if self.is_silent_ours() {
                self.end(self.silent());
                return Ok(());
            }
            self.session.handle_timeout(self.shared.now());
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

    /// Waits for a datagram, then takes all that are there, up to a burst. Gives them with their lengths.
    fn receive_batch(&self, buffer: &mut [u8]) -> io::Result<Vec<Datagram>> {
        let datagrams = trains::receive_batch(&self.handle.socket, buffer)?;
        if !datagrams.is_empty() {
            return Ok(datagrams);
        }
        let until_deadline = self.session.poll_timeout().map(|at| at.since(self.shared.now()));
        let look = if self.held_since.is_some() {
            HOLD_LOOK
        } else {
            STOP_LOOK
        };
        let patience = until_deadline.map_or(look, |left| left.min(look));
        trains::wait(&self.handle.socket, patience)?;
        trains::receive_batch(&self.handle.socket, buffer)
    }

    /// Whether acknowledgements are still to be held because the disk is behind. They are held from the moment when
    /// data came, so that each goes before its sender sends again.
    fn disk_is_behind(&mut self) -> Result<bool, Ending> {
        let hold = match &mut self.spool {
            Some(spool) => spool.turn().map_err(storage)?,
            None => Duration::ZERO,
        };
        let held = self.held_since.filter(|since| since.elapsed() < hold);
        if held.is_none() {
            self.held_since = None;
        }
        Ok(held.is_some())
    }

    /// Stores what came and gives the tickets back. An error is how the session ends.
    fn take_batch(&mut self, buffer: &[u8], datagrams: &[Datagram]) -> Result<(), Ending> {
        Counters::add(&self.shared.counters.packets, datagrams.len() as u64);
        let before = self.session.stats().duplicate_messages;
        let mut runs: Vec<Run<'_>> = Vec::new();
        let mut finished = None;
        let mut at = 0;
        for Datagram { len, .. } in datagrams {
            let datagram = buffer.get(at..at + len).unwrap_or_default();
            at += len;
            match self.session.handle_datagram(self.shared.now(), datagram) {
                Ok(Accepted::Data {
                    offset, bytes, ticket, ..
                }) => add_to_runs(&mut runs, offset, bytes, ticket),
                Ok(Accepted::KernelHeader { offset, bytes, ticket }) => {
                    self.spool()?.kernel_header(offset, bytes).map_err(storage)?;
                    self.give_back(ticket);
                }
                Ok(Accepted::Key { offset, bytes, ticket }) => {
                    self.spool()?.key(offset, bytes).map_err(storage)?;
                    self.give_back(ticket);
                }
                Ok(Accepted::Finished { ticket }) => finished = Some(ticket),
                Ok(Accepted::Herald | Accepted::Repeated) => {}
                Err(why) => self.note_refusal(&why),
            }
        }
        if let Some(page) = self.session.displaced_page()
            && let Some(spool) = &mut self.spool
        {
            spool.first_page_is_at(page.offset, page.len_bytes).map_err(storage)?;
        }
        if !runs.is_empty() {
            self.held_since.get_or_insert_with(Instant::now);
        }
        for run in runs {
            self.write_run(&run)?;
            Counters::add(&self.shared.counters.received_bytes, run.end - run.offset);
            run.tickets.into_iter().for_each(|ticket| self.give_back(ticket));
        }
        let duplicates = self.session.stats().duplicate_messages - before;
        Counters::add(&self.shared.counters.duplicate_packets, duplicates);
        if self.session.has_data() {
            self.handle.has_data.store(true, Ordering::Release);
        }
        match finished {
            Some(ticket) => self.finish(ticket),
            None => Ok(()),
        }
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
            self.session.durable(self.shared.now(), ticket);
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
        match spool.commit(ending, duplicates) {
            Ok(kept) => {
                let summary = kept.manifest.summary();
                let reason = kept.manifest.reason.as_deref().unwrap_or_default();
                tracing::info!(core = %summary.id, guest = %summary.guest, state = %summary.state, reason, "core kept");
                self.shared.cores.insert(kept.dir, &kept.manifest);
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
            None => self.make_spool()?,
        };
        Ok(self.spool.insert(spool))
    }

    /// Makes the session's storage.
    fn make_spool(&self) -> Result<Spool, Ending> {
        let make = || {
            let account = self.shared.admission.ledger.open(*self.handle.peer.ip());
            Spool::create(&self.shared.root, &self.head(), account)
        };
        let made = match make() {
            Err(SpoolError::Short(_)) if self.shared.recount() => make(),
            made => made,
        };
        made.map_err(|why| {
            tracing::error!(session = %self.handle.id, "dump refused: {why}");
            self.storage(why)
        })
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
        storage(why)
    }

    /// What is known of the session now.
    fn head(&self) -> SessionHead {
        let age = self.handle.started.elapsed();
        let started = Timestamp::now() - jiff::SignedDuration::try_from(age).unwrap_or_default();
        SessionHead {
            id: self.handle.id.clone(),
            client_addr: self.handle.peer.to_string(),
            server_addr: self.handle.dialled.to_string(),
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
fn label(herald: &[u8]) -> Option<String> {
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
