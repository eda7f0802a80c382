//! The acknowledgements of a session: which are due, which are held, and how they leave.

use super::{AckPolicy, Session, SessionState, ack_policy::Released};
use crate::{
    time::Instant,
    wire::{self, ACK_LEN, Seqno},
};

impl Session {
    /// Writes the next acknowledgement into `out`, if there is one.
    pub fn poll_ack(&mut self, out: &mut [u8]) -> Option<usize> {
        let room = out.get_mut(..ACK_LEN)?;
        room.copy_from_slice(&wire::encode_ack(self.acks.pop_front()?));
        self.stats.acks += 1;
        Some(ACK_LEN)
    }

    /// Writes as many acknowledgements as there are and fit, back to back, four bytes each and each to be its own
    /// datagram (one call with a segment size of 4). Returns the bytes written.
    pub fn poll_acks(&mut self, out: &mut [u8]) -> usize {
        let mut len = 0;
        while let Some(room) = out.get_mut(len..) {
            match self.poll_ack(room) {
                Some(ack_len) => len += ack_len,
                None => break,
            }
        }
        len
    }

    /// When data of this sender is acknowledged: what was configured, or [`AckPolicy::Immediate`] once the sender has
    /// shown that it needs no other.
    #[must_use]
    pub const fn ack_policy(&self) -> AckPolicy {
        if self.pairing.is_active() {
            AckPolicy::Paired
        } else {
            AckPolicy::Immediate
        }
    }

    /// Acknowledges everything at once from now on: the caller knows that the sender is no stock client.
    pub fn acknowledge_at_once(&mut self) {
        let released = self.pairing.stop();
        self.acknowledge_all(released);
    }

    /// When held acknowledgements may be released although something seems to be missing.
    pub(super) fn quiet_at(&self) -> Option<Instant> {
        let receiving = self.state == SessionState::Receiving;
        self.pairing.quiet_at(self.heard_at).filter(|_| receiving)
    }

    pub(super) fn acknowledge_all(&mut self, released: Released) {
        released.for_each(|seqno| self.acknowledge(seqno));
    }

    pub(super) fn acknowledge(&mut self, seqno: Seqno) {
        if self.acks.len() < self.limits.acks_max {
            self.acks.push_back(seqno);
        } else {
            self.stats.dropped_acks += 1;
        }
    }
}
