use alloc::{collections::BTreeMap, vec, vec::Vec};
use core::ops::Range;

use super::{
    image::Image,
    plan::{Plan, Write},
    rng::Rng,
    world::{Receiver, SendOutcome, Sender, Violation},
};
use crate::{
    client::{Client, ClientConfig, ClientConfigError, ClientError, ClientEvent},
    extents::Extents,
    server::{
        Accepted, DisplacedPage, FinishTicket, ResumePoint, Resumed, Session, SessionEvent, SessionLimits,
        SessionState, Ticket,
    },
    time::{Duration, Instant},
    wire::{HERALD_PORT, Header, Kind},
};

/// Our [`Client`] with a plan to send.
#[derive(Debug)]
pub struct OurSender {
    client: Client<Vec<u8>>,
    writes: Vec<Write>,
    /// The write that is being pushed and how much of it was.
    at: (usize, usize),
    ended: Option<ClientEvent>,
    declared: bool,
}

impl OurSender {
    /// A client that will send `plan`.
    ///
    /// # Errors
    ///
    /// [`ClientConfigError`] if the client cannot be made so.
    pub fn new(config: ClientConfig, herald_path: &str, plan: &Plan) -> Result<Self, ClientConfigError> {
        let client = Client::new(config, herald_path, vec![0; config.window_bytes], Instant::ZERO)?;
        Ok(Self {
            client,
            writes: plan.writes.clone(),
            at: (0, 0),
            ended: None,
            declared: true,
        })
    }

    /// The same without the word in its HERALD that says that it has a window: some other sender that has one.
    #[must_use]
    pub const fn undeclared(mut self) -> Self {
        self.declared = false;
        self
    }

    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Client<Vec<u8>> {
        &self.client
    }

    /// Why the dump failed, if it did.
    #[must_use]
    pub const fn error(&self) -> Option<ClientError> {
        match self.ended {
            Some(ClientEvent::Failed(error)) => Some(error),
            _ => None,
        }
    }

    fn feed(&mut self) {
        while self.client.capacity() > 0 {
            let (index, done) = self.at;
            let Some(write) = self.writes.get(index) else {
                self.client.finish();
                return;
            };
            let rest = write.bytes.get(done..).unwrap_or_default();
            let taken = self.client.push(write.kind, write.offset + done as u64, rest);
            self.at = if taken == rest.len() {
                (index + 1, 0)
            } else {
                (index, done + taken)
            };
        }
    }
}

impl Sender for OurSender {
    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<(u16, usize)> {
        self.feed();
        let transmit = self.client.poll_transmit(now, out)?;
        if !self.declared && transmit.port == HERALD_PORT {
            out.get_mut(20..24)?.fill(0);
        }
        Some((transmit.port, transmit.len))
    }

    fn receive(&mut self, now: Instant, source_port: u16, datagram: &[u8]) {
        self.client.handle_datagram(now, source_port, datagram);
        self.timeout(now);
    }

    fn deadline(&self) -> Option<Instant> {
        self.client.poll_timeout()
    }

    fn timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        while let Some(event) = self.client.poll_event() {
            if !matches!(event, ClientEvent::Connected { .. }) {
                self.ended = Some(event);
            }
        }
    }

    fn outcome(&self) -> Option<SendOutcome> {
        match self.ended? {
            ClientEvent::Finished => Some(SendOutcome::Finished),
            ClientEvent::Failed(_) | ClientEvent::Connected { .. } => Some(SendOutcome::Failed),
        }
    }
}

/// How the storage behind a session behaves.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Time that a write takes.
    pub write: Range<Duration>,
    /// Time that making everything durable takes.
    pub commit: Range<Duration>,
    /// Bytes after which the disk is full and the session is refused.
    pub full_after_bytes: u64,
}

impl StorageConfig {
    /// Takes no time and never fills up.
    #[must_use]
    pub const fn instant() -> Self {
        let none = Duration::ZERO..Duration::ZERO;
        Self {
            write: none,
            commit: Duration::ZERO..Duration::ZERO,
            full_after_bytes: u64::MAX,
        }
    }
}

/// Our [`Session`] with an ingest of one address and a storage that takes its time.
#[derive(Debug)]
pub struct OurReceiver {
    limits: SessionLimits,
    storage: StorageConfig,
    rng: Rng,
    port: u16,
    session: Option<Session>,
    event: Option<SessionEvent>,
    images: [Image; 3],
    writes: BTreeMap<(Instant, u64), (Write, Ticket)>,
    write_count: u64,
    written_bytes: u64,
    commit: Option<(Instant, FinishTicket)>,
    durable: bool,
    rejected: u64,
    repaired: Option<DisplacedPage>,
    /// What the session's journal says of the sender's bursts.
    point: Option<ResumePoint>,
}

impl OurReceiver {
    /// A receiver that answers from `port`: a port of its own, or 20023 for a receiver with a single socket.
    #[must_use]
    pub fn new(limits: SessionLimits, storage: StorageConfig, port: u16, seed: u64) -> Self {
        Self {
            limits,
            storage,
            rng: Rng::new(seed),
            port,
            session: None,
            event: None,
            images: [Image::default(), Image::default(), Image::default()],
            writes: BTreeMap::new(),
            write_count: 0,
            written_bytes: 0,
            commit: None,
            durable: false,
            rejected: 0,
            repaired: None,
            point: None,
        }
    }

    /// The process dies, and another one goes on with what is in storage and in the journal.
    pub fn take_over(&mut self, now: Instant) {
        self.writes.clear();
        self.commit = None;
        let begun = self.session.as_ref().is_some_and(Session::has_data);
        let ended = self.session.as_ref().map(Session::state) == Some(SessionState::Ended);
        let Some(point) = self.point.filter(|_| begun && !ended) else {
            // What is over stays over, and heralds that were answered are on record, for their sender may have heard it.
            return;
        };
        let extents = |kind| {
            let mut extents = Extents::new(self.limits.extents_max);
            let ranges = self.image(kind).map(Image::ranges).unwrap_or_default();
            for range in ranges {
                let _ = extents.insert(range);
            }
            extents
        };
        let data = extents(Kind::Vmcore);
        let first = data.iter().next().map_or(0, |range| range.start);
        let begins = self.image(Kind::Vmcore).map(|image| image.bytes(first, 32));
        let from = Resumed {
            point,
            kernel_header: extents(Kind::KernelHeader),
            key: extents(Kind::Key),
            data,
            displaced: self.repaired,
            begins: begins.unwrap_or_default(),
            is_durable: self.durable,
        };
        self.session = Some(Session::resumed(self.limits, from, now));
    }

    /// The session, once a HERALD came.
    #[must_use]
    pub const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// How the session ended.
    #[must_use]
    pub const fn event(&self) -> Option<SessionEvent> {
        self.event
    }

    /// Datagrams that the session did not take.
    #[must_use]
    pub const fn rejected(&self) -> u64 {
        self.rejected
    }

    /// The page that storage moved to offset 0.
    #[must_use]
    pub const fn repaired(&self) -> Option<DisplacedPage> {
        self.repaired
    }

    /// What of `file_len` bytes is missing, as far as the session knows: no hole is silent that is among these.
    #[must_use]
    pub fn known_lost(&self, file_len: u64) -> Vec<Range<u64>> {
        let mut repaired = Extents::new(1);
        let page = self.repaired.map_or(0..0, |page| 0..page.len_bytes);
        let session = self.session.as_ref().filter(|_| repaired.insert(page).is_ok());
        session.map_or_else(Vec::new, |session| {
            session.received_extents().lost(file_len, &repaired).collect()
        })
    }

    /// Whether the session believes to have exactly what storage holds: no lost byte goes unnoticed, none is claimed.
    ///
    /// # Errors
    ///
    /// [`Violation::Coverage`] names the kind of messages where they differ.
    pub fn check_coverage(&self) -> Result<(), Violation> {
        let Some(session) = &self.session else { return Ok(()) };
        let believed: [(Kind, &Extents); 3] = [
            (Kind::Vmcore, session.received_extents()),
            (Kind::KernelHeader, session.kernel_header_extents()),
            (Kind::Key, session.key_extents()),
        ];
        for (kind, extents) in believed {
            let mut believed = extents.clone();
            if let (Kind::Vmcore, Some(page)) = (kind, self.repaired) {
                let _ = believed.insert(0..page.len_bytes);
            }
            let held = self.image(kind).map(Image::ranges).unwrap_or_default();
            let bytes: u64 = held.iter().map(|range| range.end - range.start).sum();
            if !believed.iter().eq(held) || believed.covered_bytes() != bytes {
                return Err(Violation::Coverage { kind });
            }
        }
        Ok(())
    }

    fn store(&mut self, now: Instant, kind: Kind, offset: u64, bytes: &[u8], ticket: Ticket) {
        let at = now + self.rng.duration(&self.storage.write);
        self.write_count += 1;
        self.writes.insert(
            (at, self.write_count),
            (
                Write {
                    kind,
                    offset,
                    bytes: bytes.to_vec(),
                },
                ticket,
            ),
        );
    }

    fn work(&mut self, now: Instant) {
        let Some(session) = &mut self.session else { return };
        while let Some(entry) = self.writes.first_entry().filter(|entry| entry.key().0 <= now) {
            let (Write { kind, offset, bytes }, ticket) = entry.remove();
            self.written_bytes += bytes.len() as u64;
            if self.written_bytes > self.storage.full_after_bytes {
                session.refuse();
            } else if session.received(ticket).is_ok()
                && !matches!(session.state(), SessionState::Ended | SessionState::Lingering)
                && let Some(image) = self.images.get_mut(place(kind))
            {
                image.write(offset, &bytes);
            }
        }
        // Storage works in order: what was handed to it before FINISHED is written before the commit.
        if self.writes.is_empty()
            && let Some((_, ticket)) = self.commit.take_if(|(at, _)| *at <= now)
        {
            self.durable = true;
            session.durable(now, ticket);
        }
    }
}

impl Receiver for OurReceiver {
    fn receive(&mut self, now: Instant, port: u16, datagram: &[u8]) {
        self.work(now);
        let Some(session) = &mut self.session else {
            if let Ok((header, payload)) = Header::parse(datagram)
                && header.kind == Kind::Herald
                && port == HERALD_PORT
            {
                self.session = Some(Session::new(self.limits, &header, payload, now));
            }
            return;
        };
        let to_newcomer = port == HERALD_PORT && self.port != HERALD_PORT && session.has_data();
        if to_newcomer || (port != HERALD_PORT && port != self.port) {
            return;
        }
        match session.handle_datagram(now, datagram) {
            Ok(Accepted::Data {
                offset, bytes, ticket, ..
            }) => self.store(now, Kind::Vmcore, offset, bytes, ticket),
            Ok(Accepted::KernelHeader { offset, bytes, ticket }) => {
                self.store(now, Kind::KernelHeader, offset, bytes, ticket);
            }
            Ok(Accepted::Key { offset, bytes, ticket }) => self.store(now, Kind::Key, offset, bytes, ticket),
            Ok(Accepted::Finished { ticket }) => {
                self.commit = Some((now + self.rng.duration(&self.storage.commit), ticket));
            }
            Ok(Accepted::Herald | Accepted::Repeated) => {}
            Err(_) => self.rejected += 1,
        }
        self.point = self.session.as_ref().map(Session::resume_point);
        let displaced = self.session.as_ref().and_then(Session::displaced_page);
        if let Some(page) = displaced.filter(|_| self.repaired.is_none()) {
            self.repaired = displaced;
            if let Some(image) = self.images.get_mut(place(Kind::Vmcore)) {
                image.move_page(page.offset, 0);
            }
            // Copies of its packets that are still to be written must not come to the old place any more.
            let is_of_page = |write: &Write| write.offset >= page.offset && write.offset - page.offset < page.len_bytes;
            let late = self.writes.values_mut().filter(|(write, _)| is_of_page(write));
            late.for_each(|(write, _)| write.bytes.clear());
        }
        self.work(now);
    }

    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<(u16, usize)> {
        self.work(now);
        let len = self.session.as_mut()?.poll_ack(out)?;
        Some((self.port, len))
    }

    fn deadline(&self) -> Option<Instant> {
        let session = self.session.as_ref().and_then(Session::poll_timeout);
        let write = self.writes.first_key_value().map(|((at, _), _)| *at);
        let commit = self
            .commit
            .as_ref()
            .filter(|_| self.writes.is_empty())
            .map(|(at, _)| *at);
        [session, write, commit].into_iter().flatten().min()
    }

    fn timeout(&mut self, now: Instant) {
        self.work(now);
        if let Some(session) = &mut self.session {
            session.handle_timeout(now);
            self.event = session.poll_event().or(self.event);
        }
    }

    fn is_over(&self) -> bool {
        self.session
            .as_ref()
            .is_none_or(|session| session.state() == SessionState::Ended)
            && self.writes.is_empty()
    }

    fn image(&self, kind: Kind) -> Option<&Image> {
        self.images.get(place(kind))
    }

    fn is_durable(&self) -> bool {
        self.durable
    }

    fn holds(&self, kind: Kind, offset: u64, bytes: &[u8]) -> bool {
        let image = self.image(kind);
        let holds = |offset| image.is_some_and(|image| image.holds(offset, bytes));
        let page = self.repaired.filter(|_| kind == Kind::Vmcore);
        let moved_to = page.and_then(|page| offset.checked_sub(page.offset).filter(|at| *at < page.len_bytes));
        holds(offset) || moved_to.is_some_and(holds)
    }
}

pub(super) const fn place(kind: Kind) -> usize {
    match kind {
        Kind::Vmcore => 0,
        Kind::KernelHeader => 1,
        Kind::Key => 2,
        Kind::Herald | Kind::Finished => usize::MAX,
    }
}
