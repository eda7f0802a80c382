use alloc::vec::Vec;

use super::{
    image::Image,
    ours::{OurReceiver, StorageConfig},
    world::Receiver,
};
use crate::{
    server::{Session, SessionLimits},
    time::Instant,
    wire::{HERALD_PORT, Header, Kind},
};

/// Our receiver with all sessions of one address: a HERALD in the middle of a dump opens another one beside it, on the
/// next port.
#[derive(Debug)]
pub struct OurIngest {
    limits: SessionLimits,
    storage: StorageConfig,
    port: u16,
    seed: u64,
    sessions: Vec<(u16, OurReceiver)>,
}

impl OurIngest {
    /// A receiver whose first session answers from `port`.
    #[must_use]
    pub const fn new(limits: SessionLimits, storage: StorageConfig, port: u16, seed: u64) -> Self {
        Self {
            limits,
            storage,
            port,
            seed,
            sessions: Vec::new(),
        }
    }

    /// All sessions that there were, the oldest first.
    pub fn sessions(&self) -> impl Iterator<Item = &OurReceiver> {
        self.sessions.iter().map(|(_, session)| session)
    }

    /// The session of the dump that is complete, else of the newest.
    #[must_use]
    pub fn judged(&self) -> Option<&OurReceiver> {
        let durable = self.sessions().find(|session| session.is_durable());
        durable.or_else(|| self.sessions().last())
    }

    /// The process dies, and another one goes on with what is in storage and in the journals.
    pub fn take_over(&mut self, now: Instant) {
        self.sessions.iter_mut().for_each(|(_, session)| session.take_over(now));
    }

    fn has_newcomer(&self, datagram: &[u8]) -> bool {
        let is_herald = Header::parse(datagram).is_ok_and(|(header, _)| header.kind == Kind::Herald);
        let newest = self.sessions().last().and_then(OurReceiver::session);
        is_herald && newest.is_none_or(Session::has_data)
    }
}

impl Receiver for OurIngest {
    fn receive(&mut self, now: Instant, port: u16, datagram: &[u8]) {
        if port == HERALD_PORT {
            if self.has_newcomer(datagram) {
                let count = self.sessions.len();
                let own_port = self.port.wrapping_add(u16::try_from(count).unwrap_or(u16::MAX));
                let session = OurReceiver::new(self.limits, self.storage.clone(), own_port, self.seed ^ count as u64);
                self.sessions.push((own_port, session));
            }
            if let Some((_, newest)) = self.sessions.last_mut() {
                newest.receive(now, port, datagram);
            }
        } else if let Some((_, session)) = self.sessions.iter_mut().find(|(own_port, _)| *own_port == port) {
            session.receive(now, port, datagram);
        }
    }

    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<(u16, usize)> {
        self.sessions
            .iter_mut()
            .find_map(|(_, session)| session.transmit(now, out))
    }

    fn deadline(&self) -> Option<Instant> {
        self.sessions().filter_map(Receiver::deadline).min()
    }

    fn timeout(&mut self, now: Instant) {
        self.sessions.iter_mut().for_each(|(_, session)| session.timeout(now));
    }

    fn is_over(&self) -> bool {
        self.sessions().all(Receiver::is_over)
    }

    fn image(&self, kind: Kind) -> Option<&Image> {
        self.judged().and_then(|session| session.image(kind))
    }

    fn is_durable(&self) -> bool {
        self.sessions().any(Receiver::is_durable)
    }

    fn holds(&self, kind: Kind, offset: u64, bytes: &[u8]) -> bool {
        self.sessions().any(|session| session.holds(kind, offset, bytes))
    }
}
