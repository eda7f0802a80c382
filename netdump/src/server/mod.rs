//! The receiving end of one dump, at the level of UDP payloads.
//!
//! The caller finds the session of a datagram, stores what [`Session::handle_datagram`] hands out and gives each ticket
//! back when storage has it; acknowledgements leave through [`Session::poll_ack`]. The session relies on no order: not
//! of messages, not of sequence numbers, not of kinds. What arrived is kept as [`Extents`], so that a byte that never
//! came is known to be missing whatever the sender believes.

mod ack_policy;
mod acks;
mod displaced;
pub mod invariants;
mod limits;
mod outcome;
mod resume;

use alloc::{collections::VecDeque, vec::Vec};

use self::{
    ack_policy::Pairing,
    displaced::{Verdict, Watch},
};
pub use self::{
    ack_policy::{AckPolicy, ResumePoint},
    displaced::DisplacedPage,
    limits::SessionLimits,
    outcome::{Accepted, FinishTicket, Rejected, SessionEvent, SessionStats, Ticket},
    resume::Resumed,
};
use crate::{
    extents::{Extents, TooManyExtents},
    time::Instant,
    wire::{Header, Kind, Seqno},
};

/// Separate ranges of kernel dump header, key and HERALD: the largest comes in eight messages at the smallest MTU.
const SMALL_EXTENTS_MAX: usize = 16;

/// One dump that is being received.
#[derive(Debug)]
pub struct Session {
    limits: SessionLimits,
    state: SessionState,
    herald: Vec<u8>,
    herald_extents: Extents,
    data: Extents,
    kernel_header: Extents,
    key: Extents,
    acks: VecDeque<Seqno>,
    pairing: Pairing,
    watch: Watch,
    event: Option<SessionEvent>,
    /// When the last message was accepted, repeated HERALDs not counted.
    heard_at: Instant,
    /// When lingering ends; meaningful while lingering.
    linger_until: Instant,
    stats: SessionStats,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// HERALD came and nothing else.
    Waiting,
    /// Data, header or key came.
    Receiving,
    /// FINISHED came and is not acknowledged yet.
    Committing,
    /// FINISHED is acknowledged; repeats are answered.
    Lingering,
    /// Nothing is taken or acknowledged any more.
    Ended,
}

impl Session {
    /// A session that begins with a HERALD, which is acknowledged at once. Whether to have a session at all, and from
    /// which UDP port its acknowledgements go, is for the caller to decide.
    #[must_use]
    pub fn new(limits: SessionLimits, herald: &Header, herald_payload: &[u8], now: Instant) -> Self {
        let mut session = Self {
            limits,
            state: SessionState::Waiting,
            herald: Vec::new(),
            herald_extents: Extents::new(SMALL_EXTENTS_MAX),
            data: Extents::new(limits.extents_max),
            kernel_header: Extents::new(SMALL_EXTENTS_MAX),
            key: Extents::new(SMALL_EXTENTS_MAX),
            acks: VecDeque::new(),
            pairing: Pairing::new(limits.ack_policy, herald),
            watch: Watch::default(),
            event: None,
            heard_at: now,
            linger_until: now,
            stats: SessionStats::default(),
        };
        session.herald(herald, herald_payload);
        session
    }

    /// Takes one UDP payload of the sender.
    ///
    /// # Errors
    ///
    /// [`Rejected`] says why it was not taken; the session goes on as if it had not come.
    pub fn handle_datagram<'d>(&mut self, now: Instant, datagram: &'d [u8]) -> Result<Accepted<'d>, Rejected> {
        let accepted = self.accept(now, datagram);
        debug_assert!(self.keeps_the_rules(), "{:?} has no end", self.state);
        match &accepted {
            // A sender that only repeats its HERALD hears no answer, and one that is forged needs none: neither keeps a
            // session alive.
            Ok(Accepted::Herald) => {}
            Ok(_) => self.heard_at = self.heard_at.max(now),
            Err(_) => self.stats.rejected += 1,
        }
        accepted
    }

    /// Storage has taken what came with this ticket: its acknowledgement may leave. After FINISHED was acknowledged it
    /// no longer counts.
    ///
    /// # Errors
    ///
    /// [`TooManyExtents`] if the coverage cannot keep the range: the message is not acknowledged. This needs several
    /// tickets outstanding at the bound; otherwise [`Session::handle_datagram`] has refused before.
    #[expect(clippy::needless_pass_by_value, reason = "giving the ticket back uses it up")]
    pub fn received(&mut self, ticket: Ticket) -> Result<(), TooManyExtents> {
        if matches!(self.state, SessionState::Lingering | SessionState::Ended) {
            return Ok(());
        }
        let Ticket {
            kind,
            seqno,
            offset,
            end,
        } = ticket;
        if kind == Kind::Vmcore && self.watch.is_of_page(seqno, offset) {
            self.acknowledge(seqno);
            return Ok(());
        }
        let new_bytes = self.extents_mut(kind).insert(offset..end)?;
        self.stats.duplicate_bytes += (end - offset) - new_bytes;
        debug_assert!(
            invariants::may_acknowledge(kind, self.extents(kind).contains(&(offset..end)), false),
            "{kind} at {offset} is not stored"
        );
        if kind == Kind::Vmcore {
            let released = self.pairing.stored(seqno);
            self.stats.held_acks += u64::from(released.is_empty());
            self.acknowledge_all(released);
        } else {
            self.acknowledge(seqno);
        }
        Ok(())
    }

    /// Everything is on disk and the dump will survive a loss of power: FINISHED is acknowledged, now and when it is
    /// repeated.
    #[expect(clippy::needless_pass_by_value, reason = "giving the ticket back uses it up")]
    pub fn durable(&mut self, now: Instant, ticket: FinishTicket) {
        if self.state == SessionState::Committing {
            self.state = SessionState::Lingering;
            self.linger_until = now + self.limits.linger;
            let FinishTicket { seqno } = ticket;
            self.acknowledge(seqno);
            debug_assert!(self.keeps_the_rules(), "{:?} has no end", self.state);
        }
    }

    /// Ends the session: nothing more is taken or acknowledged, so that the sender fails and keeps its evidence.
    pub fn refuse(&mut self) {
        self.state = SessionState::Ended;
        self.acks.clear();
        self.event = None;
    }

    /// When [`Session::handle_timeout`] is to be called; `None` while the session waits for its caller, or has ended.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ends_at = self.ends_at()?;
        Some(self.quiet_at().map_or(ends_at, |quiet_at| quiet_at.min(ends_at)))
    }

    /// Ends the session if its sender has been silent for too long, or if it has lingered enough. May also release
    /// acknowledgements that were held: they are to be sent afterwards as after [`Session::received`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.quiet_at().is_some_and(|quiet_at| quiet_at <= now) {
            let released = self.pairing.quiet();
            self.acknowledge_all(released);
        }
        if self.ends_at().is_some_and(|deadline| deadline <= now) {
            let lingered = self.state == SessionState::Lingering;
            self.event = Some(if lingered {
                SessionEvent::LingerOver
            } else {
                SessionEvent::Silent
            });
            self.state = SessionState::Ended;
        }
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.event.take()
    }

    /// The first page of the dump, if it was sent to a wrong offset and none came for offset 0. To be asked after each
    /// batch of messages, and acted upon when it is there for the first time, before the data that comes next is stored.
    #[must_use]
    pub fn displaced_page(&self) -> Option<DisplacedPage> {
        self.watch.page()
    }

    /// How far the session is.
    #[must_use]
    pub const fn state(&self) -> SessionState {
        self.state
    }

    /// Whether anything but a HERALD was accepted: the sender has seen an acknowledgement.
    #[must_use]
    pub const fn has_data(&self) -> bool {
        self.stats.messages > self.stats.heralds
    }

    /// The HERALD payload as far as it came without a gap: empty, or a path with its NUL.
    #[must_use]
    pub fn herald_payload(&self) -> &[u8] {
        let len = self.herald_extents.gaps(0..u64::MAX).next().map_or(0, |gap| gap.start);
        usize::try_from(len)
            .ok()
            .and_then(|len| self.herald.get(..len))
            .unwrap_or_default()
    }

    /// What of the dump file storage has taken.
    #[must_use]
    pub const fn received_extents(&self) -> &Extents {
        &self.data
    }

    /// What of the kernel dump header storage has taken.
    #[must_use]
    pub const fn kernel_header_extents(&self) -> &Extents {
        &self.kernel_header
    }

    /// What of the encrypted key storage has taken.
    #[must_use]
    pub const fn key_extents(&self) -> &Extents {
        &self.key
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> SessionStats {
        self.stats
    }

    fn accept<'d>(&mut self, now: Instant, datagram: &'d [u8]) -> Result<Accepted<'d>, Rejected> {
        if self.state == SessionState::Ended {
            return Err(Rejected::Ended);
        }
        let (header, payload) = Header::parse(datagram)?;
        let accepted = match header.kind {
            Kind::Herald if self.has_data() => Err(Rejected::HeraldAfterData),
            Kind::Herald => {
                self.herald(&header, payload);
                return Ok(Accepted::Herald);
            }
            Kind::Finished => Ok(self.finished(header.seqno)),
            Kind::Vmcore | Kind::KernelHeader | Kind::Key => self.bytes(now, &header, payload),
        }?;
        self.stats.messages += 1;
        Ok(accepted)
    }

    fn herald(&mut self, header: &Header, payload: &[u8]) {
        self.stats.messages += 1;
        self.stats.heralds += 1;
        let released = self.pairing.saw_other(header.seqno, 0);
        self.acknowledge_all(released);
        self.acknowledge(header.seqno);
        let place = usize::try_from(header.offset).ok();
        let place = place.and_then(|start| Some(start..start.checked_add(payload.len())?));
        let Some(place) = place.filter(|place| place.end <= self.limits.herald_len_max) else {
            return;
        };
        if self
            .herald_extents
            .insert(header.offset..header.offset + payload.len() as u64)
            .is_err()
        {
            return;
        }
        if self.herald.len() < place.end {
            self.herald.resize(place.end, 0);
        }
        if let Some(room) = self.herald.get_mut(place) {
            room.copy_from_slice(payload);
        }
    }

    fn finished<'d>(&mut self, seqno: Seqno) -> Accepted<'d> {
        match self.state {
            SessionState::Waiting | SessionState::Receiving => {
                self.state = SessionState::Committing;
                self.acknowledge_at_once();
                Accepted::Finished {
                    ticket: FinishTicket { seqno },
                }
            }
            SessionState::Lingering => {
                self.acknowledge(seqno);
                Accepted::Repeated
            }
            SessionState::Committing | SessionState::Ended => Accepted::Repeated,
        }
    }

    fn bytes<'d>(&mut self, now: Instant, header: &Header, bytes: &'d [u8]) -> Result<Accepted<'d>, Rejected> {
        let Header {
            kind,
            seqno,
            offset,
            len,
            ..
        } = *header;
        let limit = match kind {
            Kind::KernelHeader => self.limits.kernel_header_len_max,
            Kind::Key => self.limits.key_len_max,
            Kind::Vmcore | Kind::Herald | Kind::Finished => self.limits.file_len_max,
        };
        let end = offset.checked_add(u64::from(len)).filter(|end| *end <= limit);
        let end = end.ok_or(Rejected::OutOfBounds {
            kind,
            offset,
            len,
            limit,
        })?;
        let extents = self.extents(kind);
        let duplicate = extents.contains(&(offset..end));
        if !duplicate && !extents.fits(&(offset..end)) {
            return Err(Rejected::TooFragmented {
                kind,
                offset,
                extents_max: extents.extents_max(),
            });
        }
        if duplicate {
            self.stats.duplicate_messages += 1;
        }
        match self.state {
            SessionState::Waiting => self.state = SessionState::Receiving,
            SessionState::Receiving => {}
            SessionState::Committing | SessionState::Lingering | SessionState::Ended if duplicate => {
                self.acknowledge(seqno);
                return Ok(Accepted::Repeated);
            }
            SessionState::Committing | SessionState::Lingering | SessionState::Ended => {
                return Err(Rejected::AfterFinished { kind, offset });
            }
        }
        self.stats.largest_data_len = self.stats.largest_data_len.max(len);
        if kind == Kind::Vmcore {
            match self.watch.saw(seqno, offset, bytes, &self.data) {
                Verdict::Take => {}
                Verdict::Displaces => self.data = Extents::new(self.limits.extents_max),
                Verdict::Drop => {
                    self.acknowledge(seqno);
                    return Ok(Accepted::Repeated);
                }
            }
        }
        let released = match kind {
            Kind::Vmcore => self.pairing.saw_data(now, seqno, offset, len),
            _ => self.pairing.saw_other(seqno, len),
        };
        self.acknowledge_all(released);
        let ticket = Ticket {
            kind,
            seqno,
            offset,
            end,
        };
        Ok(match kind {
            Kind::KernelHeader => Accepted::KernelHeader { offset, bytes, ticket },
            Kind::Key => Accepted::Key { offset, bytes, ticket },
            Kind::Vmcore | Kind::Herald | Kind::Finished => Accepted::Data {
                offset,
                bytes,
                ticket,
                duplicate,
            },
        })
    }

    const fn extents(&self, kind: Kind) -> &Extents {
        match kind {
            Kind::KernelHeader => &self.kernel_header,
            Kind::Key => &self.key,
            Kind::Vmcore | Kind::Herald | Kind::Finished => &self.data,
        }
    }

    const fn extents_mut(&mut self, kind: Kind) -> &mut Extents {
        match kind {
            Kind::KernelHeader => &mut self.kernel_header,
            Kind::Key => &mut self.key,
            Kind::Vmcore | Kind::Herald | Kind::Finished => &mut self.data,
        }
    }

    /// When the session ends by itself.
    fn ends_at(&self) -> Option<Instant> {
        match self.state {
            SessionState::Waiting | SessionState::Receiving => Some(self.heard_at + self.limits.silent_after),
            SessionState::Lingering => Some(self.linger_until),
            SessionState::Committing | SessionState::Ended => None,
        }
    }
}
