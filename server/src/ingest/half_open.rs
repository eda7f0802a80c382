//! Heralds that were answered and have brought no data yet. Each is a socket at most, and no thread and no file.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use netdump::{Seqno, Session};

use crate::admission::Again;
use crate::limits::HALF_OPEN_KEPT;

/// Whom a herald came from, and which address of the host it dialled.
pub(super) type Key = (SocketAddrV4, Ipv4Addr);

/// A herald that was answered.
#[derive(Debug)]
pub(super) struct HalfOpen {
    pub(super) key: Key,
    /// Number and payload of the herald: a repeated one has the same.
    pub(super) seqno: Seqno,
    pub(super) payload: Vec<u8>,
    pub(super) session: Session,
    /// The socket that answered, on a port of its own; none if the listening port has to do.
    pub(super) socket: Option<UdpSocket>,
    /// Whether the listening port has answered, too.
    pub(super) by_door: bool,
    pub(super) since: Instant,
    /// It was let in when it came again.
    pub(super) again: Again,
    /// Where it is written down.
    pub(super) place: usize,
}

/// All places are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoPlace;

/// All of one listening address, the oldest first.
#[derive(Debug, Default)]
pub(super) struct HalfOpens {
    by_id: BTreeMap<u64, HalfOpen>,
    ids: HashMap<Key, u64>,
    next_id: u64,
}

impl HalfOpens {
    /// The number that the next one will have.
    pub(super) const fn next_id(&self) -> u64 {
        self.next_id
    }

    /// The one of this sender.
    pub(super) fn of(&mut self, key: &Key) -> Option<&mut HalfOpen> {
        self.by_id.get_mut(self.ids.get(key)?)
    }

    /// Finds a place for a newcomer; gives whoever leaves for it. When all `count_max` are taken, the oldest goes that has
    /// waited longer than clients do, or any that did not come again if the newcomer did.
    pub(super) fn find_place(&mut self, again: Again, count_max: usize) -> Result<Option<HalfOpen>, NoPlace> {
        if self.by_id.len() < count_max {
            return Ok(None);
        }
        let gives_way =
            |one: &HalfOpen| one.since.elapsed() >= HALF_OPEN_KEPT || again == Again(true) && one.again == Again(false);
        let found = self.by_id.iter().find(|(_, one)| gives_way(one)).map(|(id, _)| *id);
        found.map(|id| self.take(id)).ok_or(NoPlace)
    }

    /// Adds one; gives an earlier one of the same sender.
    pub(super) fn add(&mut self, half_open: HalfOpen) -> Option<HalfOpen> {
        let earlier = self.take_of(&half_open.key);
        self.ids.insert(half_open.key, self.next_id);
        self.by_id.insert(self.next_id, half_open);
        self.next_id += 1;
        earlier
    }

    /// Clears what the network said of the socket of this number: the ICMP message that nobody listens there.
    pub(super) fn forget_error(&self, id: u64) {
        let socket = self.by_id.get(&id).and_then(|one| one.socket.as_ref());
        let _ = socket.map(UdpSocket::take_error);
    }

    /// Takes the one of this number out.
    pub(super) fn take(&mut self, id: u64) -> Option<HalfOpen> {
        let half_open = self.by_id.remove(&id)?;
        self.ids.remove(&half_open.key);
        Some(half_open)
    }

    /// Takes the one of this sender out.
    pub(super) fn take_of(&mut self, key: &Key) -> Option<HalfOpen> {
        self.take(*self.ids.get(key)?)
    }

    /// Takes those out that are older than this.
    pub(super) fn take_older(&mut self, than: Duration) -> Vec<HalfOpen> {
        let mut gone = Vec::new();
        while let Some((id, oldest)) = self.by_id.first_key_value()
            && oldest.since.elapsed() >= than
        {
            let id = *id;
            gone.extend(self.take(id));
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use netdump::{Header, Kind, SessionLimits};

    use super::*;

    fn half_open(host: u8) -> HalfOpen {
        let header = Header {
            kind: Kind::Herald,
            seqno: Seqno(1),
            offset: 0,
            len: 0,
            aux2: 0,
        };
        HalfOpen {
            key: (SocketAddrV4::new([192, 0, 2, host].into(), 20024), Ipv4Addr::LOCALHOST),
            seqno: Seqno(1),
            payload: Vec::new(),
            session: Session::new(SessionLimits::default(), &header, &[], netdump::Instant::ZERO),
            socket: None,
            by_door: true,
            since: Instant::now(),
            again: Again(host.is_multiple_of(2)),
            place: 0,
        }
    }

    #[test]
    fn whoever_comes_again_gets_the_place_of_one_that_did_not() {
        let mut all = HalfOpens::default();
        for host in 0..4 {
            assert!(all.find_place(Again(false), 4).is_ok_and(|gone| gone.is_none()));
            assert_eq!(all.next_id(), u64::from(host));
            assert!(all.add(half_open(host)).is_none());
        }
        assert!(all.find_place(Again(false), 4).is_err());
        for host in [1, 3] {
            let gone = all.find_place(Again(true), 4).unwrap().unwrap();
            assert_eq!(gone.key, half_open(host).key, "the oldest that did not come again");
            assert!(all.add(half_open(10 + 2 * host)).is_none());
        }
        assert!(all.find_place(Again(true), 4).is_err(), "all of them came again");
        assert!(all.take_of(&half_open(3).key).is_none());
        assert!(all.take(0).is_some() && all.take(0).is_none());
        assert_eq!(all.take_older(Duration::ZERO).len(), 3);
        assert!(all.by_id.is_empty() && all.ids.is_empty());
    }

    #[test]
    fn a_sender_has_one_only() {
        let mut all = HalfOpens::default();
        assert!(all.add(half_open(1)).is_none());
        assert!(all.add(half_open(1)).is_some());
        assert_eq!(all.by_id.len(), 1);
    }
}
