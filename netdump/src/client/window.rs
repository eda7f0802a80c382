use core::fmt;

use crate::{
    time::{Duration, Instant},
    wire::{HEADER_LEN, Header, Kind, Seqno, WINDOW_MARK},
};

#[cfg(test)]
mod tests;

/// Slots of the window: one bit each in a `u64`.
const SLOTS: u64 = 64;

/// The packets between the oldest that is not acknowledged and the newest that was pushed, with their bytes in a ring.
///
/// Sequence numbers are 64 bits wide here; only their low half is sent. A packet's slot is its number modulo 64, and
/// the masks below have one bit per slot.
pub(super) struct Window<B> {
    ring: B,
    ring_len: usize,
    ring_head: usize,
    ring_used: usize,
    slots: [Slot; 64],
    packets_max: u64,
    /// The oldest packet that is not acknowledged.
    base: u64,
    /// The first that was never transmitted.
    unsent: u64,
    /// The next to be pushed.
    next: u64,
    acked: u64,
    lost: u64,
    resent: u64,
    transmissions: u64,
}

/// Without the ring: it holds a guest's memory, which belongs into no log.
impl<B> fmt::Debug for Window<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            base,
            unsent,
            next,
            acked,
            lost,
            ring_used,
            ..
        } = self;
        write!(
            f,
            "Window {{ base: {base}, unsent: {unsent}, next: {next}, acked: {acked:#x}, lost: {lost:#x}, "
        )?;
        write!(f, "ring_used: {ring_used} }}")
    }
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) offset: u64,
    pub(super) len: usize,
    ring_at: usize,
    pub(super) first_sent_at: Instant,
    pub(super) sent_at: Instant,
    /// Where its latest transmission stands among all.
    pub(super) order: u64,
    /// Retransmitted because later packets were acknowledged.
    pub(super) overtaken: bool,
}

impl Slot {
    const EMPTY: Self = Self {
        seq: 0,
        kind: Kind::Herald,
        offset: 0,
        len: 0,
        ring_at: 0,
        first_sent_at: Instant::ZERO,
        sent_at: Instant::ZERO,
        order: 0,
        overtaken: false,
    };
}

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug)]
pub(super) enum AckOutcome {
    /// Of no packet that was sent.
    Unknown,
    /// Of a packet that was acknowledged before; `Some` while that one is remembered.
    Again { spurious: bool },
    /// The first one of this packet.
    New { slot: Slot, resent: bool },
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Window<B> {
    pub(super) fn new(ring: B, ring_len: usize, packets_max: u32) -> Self {
        Self {
            ring,
            ring_len,
            ring_head: 0,
            ring_used: 0,
            slots: [Slot::EMPTY; 64],
            packets_max: u64::from(packets_max),
            base: 1,
            unsent: 1,
            next: 1,
            acked: 0,
            lost: 0,
            resent: 0,
            transmissions: 0,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.base == self.next
    }

    pub(super) const fn packets_free(&self) -> u64 {
        self.packets_max.saturating_sub(self.next - self.base)
    }

    pub(super) const fn bytes_free(&self) -> usize {
        self.ring_len - self.ring_used
    }

    /// Packets that are on their way: sent, neither acknowledged nor believed lost.
    pub(super) const fn in_flight(&self) -> u32 {
        (self.sent_mask() & !self.acked & !self.lost).count_ones()
    }

    /// Packets that were sent and are not acknowledged, lost ones included.
    pub(super) const fn unacknowledged(&self) -> u32 {
        (self.sent_mask() & !self.acked).count_ones()
    }

    pub(super) fn oldest(&self) -> Option<&Slot> {
        if self.is_empty() { None } else { self.slot(self.base) }
    }

    /// Appends one packet. The caller has seen that there is room; without room nothing happens.
    pub(super) fn push(&mut self, kind: Kind, offset: u64, bytes: &[u8]) {
        if self.packets_free() == 0 || bytes.len() > self.bytes_free() {
            return;
        }
        let (seq, ring_at) = (self.next, self.ring_head);
        let until_end = bytes.len().min(self.ring_len - ring_at);
        let (front, back) = bytes.split_at(until_end);
        let ring = self.ring.as_mut();
        if let Some(room) = ring.get_mut(ring_at..ring_at + front.len()) {
            room.copy_from_slice(front);
        }
        if let Some(room) = ring.get_mut(..back.len()) {
            room.copy_from_slice(back);
        }
        self.ring_head = (ring_at + bytes.len()) % self.ring_len;
        self.ring_used += bytes.len();
        let bit = bit_of(seq);
        self.acked &= !bit;
        self.lost &= !bit;
        self.resent &= !bit;
        if let Some(slot) = self.slots.get_mut(index_of(seq)) {
            *slot = Slot {
                seq,
                kind,
                offset,
                len: bytes.len(),
                ring_at,
                ..Slot::EMPTY
            };
        }
        self.next += 1;
    }

    /// The packet to send next: the oldest lost one, else the first that was never sent.
    pub(super) fn next_to_send(&self) -> Option<u64> {
        if self.lost != 0 {
            return self.oldest_of(self.lost);
        }
        (self.unsent < self.next).then_some(self.unsent)
    }

    /// Writes the packet's message into `out`; `None` if it does not fit.
    pub(super) fn write(&self, seq: u64, out: &mut [u8]) -> Option<usize> {
        let slot = self.slot(seq)?;
        let header = Header {
            kind: slot.kind,
            seqno: Seqno(low_half(seq)),
            offset: slot.offset,
            len: u32::try_from(slot.len).ok()?,
            aux2: if slot.kind == Kind::Herald { WINDOW_MARK } else { 0 },
        };
        let message = out.get_mut(..HEADER_LEN + slot.len)?;
        let (head, data) = message.split_at_mut(HEADER_LEN);
        head.copy_from_slice(&header.encode());
        let (front, back) = data.split_at_mut(slot.len.min(self.ring_len - slot.ring_at));
        let ring = self.ring.as_ref();
        front.copy_from_slice(ring.get(slot.ring_at..slot.ring_at + front.len())?);
        back.copy_from_slice(ring.get(..back.len())?);
        Some(HEADER_LEN + slot.len)
    }

    /// The packet went out; returns whether it had before.
    pub(super) fn sent(&mut self, seq: u64, now: Instant) -> bool {
        let bit = bit_of(seq);
        let again = seq < self.unsent;
        let order = self.transmissions;
        self.transmissions += 1;
        if let Some(slot) = self.slots.get_mut(index_of(seq)) {
            slot.sent_at = now;
            slot.order = order;
            if !again {
                slot.first_sent_at = now;
            }
        }
        if again {
            self.resent |= bit;
            self.lost &= !bit;
        } else {
            self.unsent = seq + 1;
        }
        again
    }

    /// Takes an acknowledgement, and releases the packets that are no longer needed.
    pub(super) fn acknowledge(&mut self, ack: Seqno) -> AckOutcome {
        let ahead = u64::from(ack.0.wrapping_sub(low_half(self.base)));
        let seq = self.base + ahead;
        if seq >= self.unsent {
            return self.behind(ack);
        }
        let bit = bit_of(seq);
        let Some(slot) = self.slot(seq).copied() else {
            return AckOutcome::Unknown;
        };
        let resent = self.resent & bit != 0;
        if self.acked & bit != 0 {
            return AckOutcome::Again {
                spurious: resent && slot.overtaken,
            };
        }
        self.acked |= bit;
        self.lost &= !bit;
        while self.base < self.unsent && self.acked & bit_of(self.base) != 0 {
            self.ring_used -= self.slot(self.base).map_or(0, |slot| slot.len);
            self.base += 1;
        }
        AckOutcome::New { slot, resent }
    }

    /// Marks as lost what was sent at least `distance` transmissions before the one numbered `order`; returns how many.
    pub(super) fn overtake(&mut self, acked_seq: u64, order: u64, distance: u64) -> u32 {
        let older = if acked_seq > self.base {
            low_bits(acked_seq - self.base)
        } else {
            0
        };
        let suspects = older.rotate_left(turn_of(self.base)) | self.resent;
        self.mark_lost(suspects, |slot| slot.order + distance <= order, true)
    }

    /// Marks as lost what was sent `timeout` ago or longer; returns how many, and when the next would be.
    pub(super) fn time_out(&mut self, now: Instant, timeout: Duration) -> (u32, Option<Instant>) {
        let count = self.mark_lost(u64::MAX, |slot| slot.sent_at + timeout <= now, false);
        let mut rest = self.sent_mask() & !self.acked & !self.lost;
        let mut earliest: Option<Instant> = None;
        while let Some(seq) = self.oldest_of(rest) {
            rest &= !bit_of(seq);
            let due = self.slot(seq).map(|slot| slot.sent_at + timeout);
            earliest = earliest.into_iter().chain(due).min();
        }
        (count, earliest)
    }

    fn mark_lost(&mut self, suspects: u64, is_lost: impl Fn(&Slot) -> bool, overtaken: bool) -> u32 {
        let mut rest = suspects & self.sent_mask() & !self.acked & !self.lost;
        let mut count = 0;
        while let Some(seq) = self.oldest_of(rest) {
            rest &= !bit_of(seq);
            if let Some(slot) = self.slots.get_mut(index_of(seq)).filter(|slot| is_lost(slot)) {
                slot.overtaken = overtaken;
                self.lost |= bit_of(seq);
                count += 1;
            }
        }
        count
    }

    /// An acknowledgement of a packet before the window, if its slot still remembers it.
    fn behind(&self, ack: Seqno) -> AckOutcome {
        let back = u64::from(low_half(self.base).wrapping_sub(ack.0));
        let seq = self.base.wrapping_sub(back);
        match self.slot(seq) {
            Some(slot) if back <= SLOTS && seq < self.base && seq > 0 => AckOutcome::Again {
                spurious: slot.overtaken && self.resent & bit_of(seq) != 0,
            },
            _ if back > 0 && back < u64::from(u32::MAX / 2) && back < self.base => {
                AckOutcome::Again { spurious: false }
            }
            _ => AckOutcome::Unknown,
        }
    }

    fn slot(&self, seq: u64) -> Option<&Slot> {
        self.slots.get(index_of(seq)).filter(|slot| slot.seq == seq)
    }

    /// The lowest sequence number of those in a mask that is not empty.
    const fn oldest_of(&self, mask: u64) -> Option<u64> {
        if mask == 0 {
            return None;
        }
        let ahead = mask.rotate_right(turn_of(self.base)).trailing_zeros();
        Some(self.base + ahead as u64)
    }

    /// The slots from `base` up to what was sent.
    const fn sent_mask(&self) -> u64 {
        low_bits(self.unsent - self.base).rotate_left(turn_of(self.base))
    }
}

/// The half of a sequence number that is sent.
const fn low_half(seq: u64) -> u32 {
    let [.., a, b, c, d] = seq.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

const fn turn_of(seq: u64) -> u32 {
    low_half(seq % SLOTS)
}

const fn index_of(seq: u64) -> usize {
    turn_of(seq) as usize
}

const fn bit_of(seq: u64) -> u64 {
    1 << (seq % SLOTS)
}

/// A mask of the lowest `count` bits.
const fn low_bits(count: u64) -> u64 {
    if count >= SLOTS { u64::MAX } else { (1 << count) - 1 }
}
