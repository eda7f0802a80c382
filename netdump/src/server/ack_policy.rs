//! Which acknowledgements have to wait, and for what.
//!
//! Stock clients keep the acknowledgements of a burst in 64 bits and compute the bit of packet `i` with a 32-bit
//! `1 << i` (`debugnet_send` and `debugnet_handle_ack` in FreeBSD's `sys/net/debugnet.c`, before that
//! `sys/netinet/netdump/netdump_client.c`). Packets whose index in the burst is equal modulo 32 share a bit, so that the
//! acknowledgement of one stands for all of them and a lost one is never sent again. [`Pairing`] acknowledges none of
//! such a group before all of it is stored.
//!
//! The client sends nothing beyond a burst that it does not believe to be acknowledged. So the first packet of a burst
//! has the number after the last one of the burst before, and a burst ends with the first packet shorter than the others,
//! or with 64 KiB. Whoever sends beyond an end before it was released has a window and no such burst: then nothing is
//! held any more.

use crate::{
    extents::Extents,
    limits,
    time::Instant,
    wire::{Header, Seqno, WINDOW_MARK},
};

/// When a session acknowledges data that storage has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckPolicy {
    /// Each message at once. A stock client may then believe that a lost packet arrived.
    Immediate,
    /// Messages that share a bit in a stock client only together. Senders that are no stock clients are recognised by
    /// what they send, and get every acknowledgement at once.
    #[default]
    Paired,
}

/// Packets of a burst that are kept track of: 126 come at the smallest MTU.
const PACKETS_MAX: u32 = u128::BITS;

/// Packets that are so far apart, or a multiple of it, share a bit.
const SHARED_EVERY: u32 = 32;

/// The acknowledgements of one sender's bursts.
#[derive(Clone, Debug)]
pub(super) struct Pairing {
    active: bool,
    /// Number of the first packet of the present burst.
    start: Seqno,
    /// False before the first burst is over: a part of the HERALD may have been answered without this session.
    start_is_certain: bool,
    /// Data bytes of the longest message so far: what the sender cuts everything to.
    largest_len: u32,
    /// Settled bursts that no stock client sends, since the last one that was as such clients send it.
    strikes: u32,
    /// Whether no packet ever came before the one before it was acknowledged.
    one_at_a_time: bool,
    burst: Burst,
    /// Where the burst before began, if what came of it shows where it ended: until the next one has begun, that is enough
    /// to find this place again.
    before: Option<ResumePoint>,
}

/// Where in its sender's bursts a session is. With the ranges that storage has taken it is all that a new process needs
/// to go on holding acknowledgements as the one before did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Number of the first packet of the burst.
    pub start: Seqno,
    /// Data bytes of the sender's longest message.
    pub largest_len: u32,
    /// File offset of the first packet, once a packet of the burst has shown it.
    pub origin: Option<u64>,
    /// Whether the first packet is known for sure.
    pub start_is_certain: bool,
    /// Whether acknowledgements are held at all.
    pub is_pairing: bool,
}

/// What came of the present burst. One bit for each index.
#[derive(Clone, Debug, Default)]
struct Burst {
    seen: u128,
    stored: u128,
    held: u128,
    /// How many packets it has, once its end was seen.
    packets: Option<u32>,
    /// Data bytes of the packet that is shorter than the others, once it was seen.
    last_len: Option<u32>,
    /// File offset of the first packet, by any of full length.
    origin: Option<u64>,
    /// The same by any packet at all.
    first_offset: Option<u64>,
    /// When a packet came that had not come before.
    new_at: Instant,
    /// How often the first and the last of the held ones came again since then.
    first_again: Again,
    last_again: Again,
    /// Which of the held ones came again since then.
    again: u128,
}

/// How often a packet came again, second copies made by the network not counted: those come sooner.
#[derive(Clone, Copy, Debug, Default)]
struct Again {
    count: u32,
    at: Instant,
}

impl Again {
    fn note(&mut self, now: Instant, new_at: Instant) {
        if now.since(self.at.max(new_at)) >= limits::QUIET_AFTER {
            self.count += 1;
            self.at = now;
        }
    }
}

impl Pairing {
    /// For a sender with that first HERALD. Kernels begin with number 1, netdumpd's test client, which sends one message at
    /// a time, with 0; a sender with a window says so.
    pub(super) fn new(policy: AckPolicy, herald: &Header) -> Self {
        let is_kernel = herald.seqno == Seqno(1) || (herald.offset > 0 && herald.seqno != Seqno(0));
        let is_kernel = is_kernel && herald.aux2 != WINDOW_MARK;
        Self {
            active: policy == AckPolicy::Paired && is_kernel,
            start: Seqno(herald.seqno.0.wrapping_add(1)),
            start_is_certain: false,
            largest_len: 0,
            strikes: 0,
            one_at_a_time: true,
            burst: Burst::default(),
            before: None,
        }
    }

    /// For a sender whose session is taken over from another process; `stored` is what that one had stored.
    pub(super) fn resumed(policy: AckPolicy, point: ResumePoint, stored: &Extents) -> Self {
        let mut pairing = Self {
            active: policy == AckPolicy::Paired && point.is_pairing,
            start: point.start,
            start_is_certain: point.start_is_certain,
            largest_len: point.largest_len,
            strikes: 0,
            one_at_a_time: false,
            burst: Burst::default(),
            before: None,
        };
        if let Some(origin) = point.origin.filter(|_| pairing.active) {
            pairing.burst = Burst::found(origin, pairing.largest_len, pairing.packets_max(), stored);
            let exist = pairing.burst.packets.map(below);
            if exist.is_some_and(|exist| pairing.burst.stored == exist) {
                pairing.next_burst(pairing.burst.packets.unwrap_or(0), true);
                pairing.before = Some(point);
            }
        }
        pairing
    }

    /// Where the session is now.
    pub(super) fn point(&self) -> ResumePoint {
        if let Some(before) = self.before.filter(|_| self.active && self.burst.seen == 0) {
            return before;
        }
        ResumePoint {
            start: self.start,
            largest_len: self.largest_len,
            origin: self.burst.first_offset,
            start_is_certain: self.start_is_certain,
            is_pairing: self.active,
        }
    }

    pub(super) const fn is_active(&self) -> bool {
        self.active
    }

    /// Nothing is held from now on.
    pub(super) fn stop(&mut self) -> Released {
        self.active = false;
        self.release(self.burst.held)
    }

    /// A message came that is no data. It is a burst of its own, or a part of one, and so short that it shares no bits.
    pub(super) fn saw_other(&mut self, seqno: Seqno, len: u32) -> Released {
        let Some(index) = self.index(seqno).filter(|_| self.active) else {
            return Released::NONE;
        };
        if self.burst.seen != 0 && !self.burst.is_over(self.start_is_certain) {
            return self.stop();
        }
        self.largest_len = self.largest_len.max(len);
        self.next_burst(index.wrapping_add(1), self.start_is_certain);
        Released::NONE
    }

    /// Data came; storage has not taken it yet.
    pub(super) fn saw_data(&mut self, now: Instant, seqno: Seqno, offset: u64, len: u32) -> Released {
        if !self.active || !self.learn_length(len) {
            return self.stop();
        }
        let Some(mut index) = self.index(seqno) else {
            return Released::NONE;
        };
        if let Some(packets) = self.burst.packets.filter(|packets| index >= *packets) {
            if !self.burst.is_over(self.start_is_certain) {
                return self.stop();
            }
            self.next_burst(packets, true);
            index -= packets;
        }
        if index >= self.packets_max() {
            return self.stop();
        }
        if self.burst.seen & bit(index) != 0 {
            return self.came_again(now, index);
        }
        if self.burst.add(now, index, offset, len, self.largest_len) {
            self.one_at_a_time &= self.burst.seen.is_power_of_two();
            Released::NONE
        } else {
            self.stop()
        }
    }

    /// Storage has taken data that was seen before.
    pub(super) fn stored(&mut self, seqno: Seqno) -> Released {
        let index = self.index(seqno).filter(|index| *index < PACKETS_MAX && self.active);
        let Some(bit) = index.map(bit).filter(|bit| self.burst.seen & bit != 0) else {
            return Released {
                start: seqno,
                indices: 1,
            };
        };
        self.burst.stored |= bit;
        self.burst.held |= bit;
        let exist = below(self.burst.packets.unwrap_or_else(|| self.packets_max()));
        let there = self.burst.stored | !exist;
        let complete = (1..PACKETS_MAX / SHARED_EVERY).fold(there, |complete, place| {
            complete & there.rotate_right(place * SHARED_EVERY)
        });
        let released = self.release(self.burst.held & complete);
        if self.burst.stored == exist
            && let Some(packets) = self.burst.packets
        {
            if self.burst.last_len.is_some() {
                // It ended as only a stock client's does: what looked otherwise before were lost ends.
                self.strikes = 0;
            }
            let point = self.point();
            self.next_burst(packets, true);
            self.before = point.origin.map(|_| point);
        }
        released
    }

    /// When [`Pairing::quiet`] is to be called if nothing is heard until then.
    pub(super) fn quiet_at(&self, heard_at: Instant) -> Option<Instant> {
        let waits = self.burst.last_again.count > 0 || self.is_alone();
        (waits && self.is_settled()).then(|| heard_at + limits::QUIET_AFTER)
    }

    /// The line has been quiet: what came is the burst.
    pub(super) fn quiet(&mut self) -> Released {
        if self.is_settled() {
            self.settle()
        } else {
            Released::NONE
        }
    }

    /// The index in the present burst; `None` if the packet belongs to an earlier one.
    fn index(&self, seqno: Seqno) -> Option<u32> {
        let ahead = seqno.0.wrapping_sub(self.start.0);
        (ahead <= u32::MAX / 2).then_some(ahead)
    }

    /// Takes note of the length of a data message. False if this sender is nobody to wait for: 32 packets or fewer a
    /// burst share no bits, and in a burst only the last packet is shorter than the others.
    fn learn_length(&mut self, len: u32) -> bool {
        if len <= self.largest_len {
            return true;
        }
        let fits = self.burst.outgrown(self.largest_len);
        self.largest_len = len;
        fits && len < limits::UNSHARED_LEN_MIN
    }

    /// Indices that a burst may have, at that length of packets.
    fn packets_max(&self) -> u32 {
        let packets = limits::BURST_BYTES_MAX.div_ceil(self.largest_len.max(1));
        // A start that is set too early, by a HERALD in two parts, makes all indices larger.
        let slack = u32::from(!self.start_is_certain) * 2;
        (packets + slack).min(PACKETS_MAX)
    }

    fn came_again(&mut self, now: Instant, index: u32) -> Released {
        let Burst { held, new_at, .. } = self.burst;
        if held.trailing_zeros() == index {
            self.burst.first_again.note(now, new_at);
        }
        if held >> index == 1 {
            self.burst.last_again.note(now, new_at);
        }
        self.burst.again |= bit(index);
        let (first, last) = (self.burst.first_again.count, self.burst.last_again.count);
        let cut_off = (held & !below(PACKETS_MAX - self.burst.again.leading_zeros())).count_ones();
        let cut_short = first >= limits::ROUNDS_CUT_SHORT_MAX && cut_off >= limits::PACKETS_CUT_OFF_MIN;
        if first.max(last) >= limits::ROUNDS_MAX || cut_short {
            return self.stop();
        }
        if last >= limits::ROUNDS_WITHOUT_QUIET && self.is_settled() {
            return self.settle();
        }
        Released::NONE
    }

    /// Whether everything is stored from the first packet to the last that was seen, and yet something is held.
    fn is_settled(&self) -> bool {
        let Burst { seen, stored, held, .. } = self.burst;
        let from_start = seen & 1 != 0 || !self.start_is_certain;
        self.active && held != 0 && seen == stored && from_start && is_run(seen)
    }

    /// All that came has come again and nothing beyond it: there is no more. A stock client writes whole blocks.
    fn settle(&mut self) -> Released {
        if self
            .burst
            .len_bytes(self.largest_len)
            .is_multiple_of(limits::DUMP_BLOCK_LEN)
        {
            let released = self.release(self.burst.held);
            self.next_burst(PACKETS_MAX - self.burst.seen.leading_zeros(), true);
            return released;
        }
        self.strikes += 1;
        (self.burst.first_again, self.burst.last_again, self.burst.again) = Default::default();
        let alone = self.is_alone();
        if self.strikes >= limits::STRIKES_MAX || (alone && self.strikes >= limits::STRIKES_ALONE_MAX) {
            return self.stop();
        }
        if alone {
            let released = self.release(self.burst.held);
            self.next_burst(PACKETS_MAX - self.burst.seen.leading_zeros(), self.start_is_certain);
            return released;
        }
        Released::NONE
    }

    /// Whether this looks like a sender that waits for each acknowledgement, and which may never repeat anything. A stock
    /// client does so only if the line broke after the first packet of its first burst.
    const fn is_alone(&self) -> bool {
        self.one_at_a_time && self.burst.seen.is_power_of_two()
    }

    fn release(&mut self, indices: u128) -> Released {
        debug_assert!(indices & !self.burst.stored == 0, "what is released is stored");
        self.burst.held &= !indices;
        Released {
            start: self.start,
            indices,
        }
    }

    fn next_burst(&mut self, packets: u32, start_is_certain: bool) {
        self.start = Seqno(self.start.0.wrapping_add(packets));
        self.start_is_certain = start_is_certain;
        self.burst = Burst::default();
        self.before = None;
    }
}

impl Burst {
    /// What was stored of a burst that begins at `origin`. Its end is known if its last packet is there.
    fn found(origin: u64, largest_len: u32, packets_max: u32, stored: &Extents) -> Self {
        let mut burst = Self {
            origin: Some(origin),
            first_offset: Some(origin),
            ..Self::default()
        };
        let len = u64::from(largest_len.max(1));
        for index in 0..packets_max.min(PACKETS_MAX) {
            let start = origin.saturating_add(u64::from(index) * len);
            let whole = start..start.saturating_add(len);
            let missing_at = stored.gaps(whole.clone()).next().map_or(whole.end, |gap| gap.start);
            if missing_at > start {
                burst.seen |= bit(index);
            }
            let is_short = missing_at > start && missing_at < whole.end;
            if is_short {
                burst.last_len = u32::try_from(missing_at - start).ok();
            }
            if is_short || (missing_at == whole.end && whole.end - origin == u64::from(limits::BURST_BYTES_MAX)) {
                burst.packets = Some(index + 1);
                break;
            }
        }
        burst.stored = burst.seen;
        burst
    }

    /// Adds a packet. False if no stock client has such a one there.
    fn add(&mut self, now: Instant, index: u32, offset: u64, len: u32, largest_len: u32) -> bool {
        self.seen |= bit(index);
        (self.new_at, self.again) = (now, 0);
        (self.first_again, self.last_again) = Default::default();
        if len < largest_len {
            self.last_len = Some(len);
            let before = u64::from(index) * u64::from(largest_len);
            self.first_offset = self.first_offset.or_else(|| offset.checked_sub(before));
            let fits = self.packets.is_none_or(|packets| packets == index + 1) && self.seen >> index == 1;
            self.packets = Some(index + 1);
            return fits;
        }
        let before = u64::from(index) * u64::from(len);
        let end = before + u64::from(len);
        let origin = offset.wrapping_sub(before);
        self.first_offset = Some(origin);
        if end == u64::from(limits::BURST_BYTES_MAX) {
            self.packets = Some(index + 1);
        }
        end <= u64::from(limits::BURST_BYTES_MAX) && *self.origin.get_or_insert(origin) == origin
    }

    /// A longer packet came than any before, so that what came of this burst was its last packet. False if it was more.
    fn outgrown(&mut self, largest_len: u32) -> bool {
        if self.seen != 0 && self.packets.is_none() {
            self.last_len = Some(largest_len);
            self.packets = Some(PACKETS_MAX - self.seen.leading_zeros());
            (self.origin, self.first_offset) = (None, None);
        }
        self.seen.count_ones() <= 1
    }

    /// Whether all of it is stored and released, as far as its start is known.
    fn is_over(&self, start_is_certain: bool) -> bool {
        let whole = self.packets.is_some_and(|packets| self.seen >> (packets - 1) == 1);
        whole && self.seen == self.stored && self.held == 0 && is_run(self.seen) && !start_is_certain
    }

    fn len_bytes(&self, largest_len: u32) -> u32 {
        let packets = self.seen.count_ones();
        match self.last_len {
            Some(last_len) => packets.saturating_sub(1) * largest_len + last_len,
            None => packets * largest_len,
        }
    }
}

const fn bit(index: u32) -> u128 {
    1 << index
}

const fn below(index: u32) -> u128 {
    if index >= PACKETS_MAX {
        u128::MAX
    } else {
        (1 << index) - 1
    }
}

/// Whether the bits that are set are one run.
const fn is_run(bits: u128) -> bool {
    bits != 0 && (bits >> bits.trailing_zeros()).trailing_ones() == bits.count_ones()
}

/// Messages that may be acknowledged now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "what is released and not sent is never acknowledged"]
pub(super) struct Released {
    start: Seqno,
    indices: u128,
}

impl Released {
    const NONE: Self = Self {
        start: Seqno(0),
        indices: 0,
    };

    pub(super) const fn is_empty(&self) -> bool {
        self.indices == 0
    }
}

impl Iterator for Released {
    type Item = Seqno;

    fn next(&mut self) -> Option<Seqno> {
        if self.indices == 0 {
            return None;
        }
        let index = self.indices.trailing_zeros();
        self.indices &= self.indices - 1;
        Some(Seqno(self.start.0.wrapping_add(index)))
    }
}
