//! The transmit ring: descriptors in, frames out (SDM 3.3 and 3.4).
//!
//! ```text
//!   idle ─data─► collecting ─data…─► collecting ─EOP─► finished ─► ready ─► sink, then DD
//!     ▲ context: kept            │ bad address, oversize: skip to EOP, drop
//!     └──────────────────────────┴──────────────────────────────────────┘
//! ```
//!
//! One pass over the descriptors, each read once. The context that holds for a packet is the one at its first data
//! descriptor. All frames of a batch lie in one arena; a frame that is not finished when a batch ends moves to its start.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::effects::{ChecksumOffload, Dma, FrameSink, Offload, Offloads, Segmentation, TxFrame};
use super::filter::{VLAN_AT, VLAN_LEN};
use super::irq::Interrupts;
use super::offload::{Checksum, Plan};
use super::registers::RegisterFile;
use super::ring::Ring;
use super::rx::Loopback;
use super::{Faults, stats};
use crate::bits::{index, len16, len32};
use crate::limits::{
    BYTES_PER_SEND, BYTES_PER_TRANSMIT, ETHERNET_HEADER_LEN, FRAME_LEN_MAX, FRAME_LEN_MIN, FRAMES_PER_SEND,
    SEGMENTATION_HEADER_LEN_MAX, SEGMENTATION_LEN_MAX,
};
use crate::spec::descriptors::{DESCRIPTOR_LEN, STATUS_DD, TxContext, TxDescriptor, TxKind, command, popts};
use crate::spec::registers::{self as reg, cause, ctrl, statistics as stat};

/// The transmitter's memory.
#[derive(Debug)]
pub(super) struct Transmitter {
    /// Finished frames, then the one being collected.
    arena: Box<[u8]>,
    /// Where the frame being collected starts; room for a VLAN tag lies before it.
    start: usize,
    /// Where it ends so far.
    end: usize,
    ready: Vec<Ready>,
    /// Status fields to write once the batch is out: address and value.
    write_backs: Vec<(u64, [u8; 4])>,
    /// Segments cut in software; empty until the first is needed.
    segments: Vec<u8>,
    /// The packet being collected.
    pub(super) packet: Option<Packet>,
    /// The context for checksums, and the one for segmentation.
    pub(super) contexts: [TxContext; 2],
}

/// A packet between its first descriptor and EOP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The context that held at the first data descriptor; none in legacy packets.
    pub context: Option<TxContext>,
    /// Options of the first data descriptor.
    pub options: u8,
    /// It is to be cut into segments.
    pub segmentation: bool,
    /// It will be dropped at its end.
    pub broken: bool,
    /// The VLAN tag to insert.
    pub vlan: Option<u16>,
}

/// Where frames go, and everything of the device that sending changes.
pub(super) struct Path<'a> {
    pub(super) registers: &'a mut RegisterFile,
    pub(super) irq: &'a mut Interrupts,
    pub(super) faults: &'a mut Faults,
    pub(super) now_ns: u64,
    pub(super) dma: &'a mut dyn Dma,
    pub(super) exit: Exit<'a>,
}

/// Where frames go.
pub(super) enum Exit<'a> {
    /// To the wire.
    Sink(&'a mut dyn FrameSink, Offloads),
    /// Back to our own receiver.
    Loopback(&'a mut Loopback),
    /// Nowhere: there is no link.
    Nowhere,
}

impl Exit<'_> {
    fn offloads(&self) -> Offloads {
        match self {
            Self::Sink(_, offloads) => *offloads,
            _ => Offloads::default(),
        }
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        match self {
            Self::Sink(sink, _) => sink.send(frames),
            Self::Loopback(queue) => frames.iter().for_each(|frame| queue.push(frame.bytes)),
            Self::Nowhere => {}
        }
    }
}

/// A finished frame in the arena.
#[derive(Debug, Clone, Copy)]
struct Ready {
    start: usize,
    end: usize,
    offload: Offload,
}

impl Transmitter {
    pub(super) fn new() -> Self {
        Self {
            arena: vec![0; ARENA_LEN].into_boxed_slice(),
            start: VLAN_LEN,
            end: VLAN_LEN,
            ready: Vec::with_capacity(FRAMES_PER_SEND),
            write_backs: Vec::with_capacity(WRITE_BACKS_MAX),
            segments: Vec::new(),
            packet: None,
            contexts: [TxContext::default(); 2],
        }
    }

    /// Drops the packet being collected and both contexts.
    pub(super) fn reset(&mut self) {
        (self.start, self.end) = (VLAN_LEN, VLAN_LEN);
        self.packet = None;
        self.contexts = [TxContext::default(); 2];
    }

    /// What was collected of the packet so far.
    pub(super) fn partial(&self) -> &[u8] {
        self.arena.get(self.start..self.end).unwrap_or_default()
    }

    /// Continues with a packet of which `bytes` were collected.
    pub(super) fn restore(&mut self, packet: Option<Packet>, bytes: &[u8], contexts: [TxContext; 2]) {
        self.reset();
        self.packet = packet;
        self.contexts = contexts;
        if let Some(room) = self.arena.get_mut(self.start..self.start + bytes.len()) {
            room.copy_from_slice(bytes);
            self.end = self.start + bytes.len();
        }
    }

    /// Takes descriptors from `ring` until it is empty or enough bytes moved; returns how many it took.
    pub(super) fn run(&mut self, path: &mut Path<'_>, mut ring: Ring) -> usize {
        let (mut taken, mut moved) = (0, 0);
        let (mut written, mut delayed) = (false, false);
        while ring.available() > 0 && moved < BYTES_PER_TRANSMIT {
            let at = ring.gpa(0);
            ring.advance(1);
            taken += 1;
            let mut bytes = [0; DESCRIPTOR_LEN];
            if path.dma.read(at, &mut bytes).is_err() {
                path.faults.dma += 1;
                continue;
            }
            let descriptor = TxDescriptor::decode(&bytes);
            moved += self.take(path, &descriptor);
            if descriptor.has(command::RS | command::RPS) {
                let status = (descriptor.upper & !STATUS_MASK) | u32::from(STATUS_DD);
                self.write_backs.push((at + STATUS_AT, status.to_le_bytes()));
                if descriptor.has(command::IDE) {
                    delayed = true;
                } else {
                    written = true;
                }
            }
            if self.write_backs.len() >= WRITE_BACKS_MAX {
                self.flush(path);
            }
        }
        self.flush(path);
        path.registers.set(reg::TDH, ring.head);
        let delay = path.registers.get(reg::TIDV);
        if written || (delayed && delay == 0) {
            path.irq.raise(cause::TXDW);
        } else if delayed {
            path.irq
                .transmit
                .restart(path.now_ns, delay, path.registers.get(reg::TADV));
        }
        if taken > 0 && ring.available() == 0 {
            path.irq.raise(cause::TXQE);
        }
        taken
    }

    /// One descriptor; returns the bytes that it moved.
    fn take(&mut self, path: &mut Path<'_>, descriptor: &TxDescriptor) -> usize {
        match descriptor.kind() {
            TxKind::Context => {
                let context = TxContext::decode(descriptor);
                let [checksum, segmentation] = &mut self.contexts;
                *(if context.segmentation { segmentation } else { checksum }) = context;
                0
            }
            TxKind::Legacy | TxKind::Data => self.data(path, descriptor),
            TxKind::Unknown => 0,
        }
    }

    fn data(&mut self, path: &mut Path<'_>, descriptor: &TxDescriptor) -> usize {
        let mut packet = match self.packet.take() {
            Some(packet) => packet,
            None => self.begin(path, descriptor),
        };
        let before = self.end;
        self.append(path, &mut packet, descriptor);
        let moved = self.end - before;
        if descriptor.has(command::VLE) && path.registers.has(reg::CTRL, ctrl::VME) {
            packet.vlan = Some(descriptor.special());
        }
        if !descriptor.has(command::EOP) {
            self.packet = Some(packet);
            return moved;
        }
        let sent = !packet.broken && self.end - self.start >= ETHERNET_HEADER_LEN && {
            if packet.segmentation {
                self.finish_segmentation(path, &packet).is_some()
            } else {
                self.finish_frame(path, &packet, descriptor);
                true
            }
        };
        if !sent {
            path.faults.tx_dropped += 1;
            if packet.segmentation {
                stats::add(path.registers, stat::TSCTFC, 1);
            }
        }
        let end = self.ready.last().map_or(0, |ready| ready.end);
        (self.start, self.end) = (end + VLAN_LEN, end + VLAN_LEN);
        moved
    }

    /// Starts a packet: latches its context and makes sure that the longest one fits the arena.
    fn begin(&mut self, path: &mut Path<'_>, descriptor: &TxDescriptor) -> Packet {
        if self.ready.len() == FRAMES_PER_SEND || self.start > BYTES_PER_SEND {
            self.flush(path);
        }
        let data = descriptor.kind() == TxKind::Data;
        let segmentation = data && descriptor.has(command::TSE);
        let [for_checksum, for_segmentation] = self.contexts;
        let context = if segmentation { for_segmentation } else { for_checksum };
        let options = descriptor.popts();
        Packet {
            context: data.then_some(context),
            options,
            segmentation,
            broken: segmentation && Plan::new(context, options).is_none(),
            vlan: None,
        }
    }

    /// Copies a descriptor's buffer behind what was collected. A null buffer holds nothing.
    fn append(&mut self, path: &mut Path<'_>, packet: &mut Packet, descriptor: &TxDescriptor) {
        let len = index(descriptor.len_bytes());
        if packet.broken || descriptor.address == 0 || len == 0 {
            return;
        }
        let limit = match (packet.segmentation, &packet.context) {
            (true, Some(context)) => usize::from(context.header_len) + index(context.payload_len),
            _ => FRAME_LEN_MAX,
        };
        let room = limit.saturating_sub(self.end - self.start);
        if len > room && !packet.segmentation {
            packet.broken = true;
            return;
        }
        let len = len.min(room);
        let room = self.arena.get_mut(self.end..self.end + len);
        if room.is_some_and(|to| path.dma.read(descriptor.address, to).is_ok()) {
            self.end += len;
        } else {
            path.faults.dma += 1;
            packet.broken = true;
        }
    }

    /// Completes a frame that is not cut: checksums, VLAN tag, padding.
    fn finish_frame(&mut self, path: &mut Path<'_>, packet: &Packet, last: &TxDescriptor) {
        let mut offload = Offload::default();
        if let Some(frame) = self.arena.get_mut(self.start..self.end) {
            match &packet.context {
                Some(context) => {
                    offload.checksum = insert_checksums(frame, context, packet.options, path.exit.offloads());
                }
                None if last.has(command::IC) => {
                    let (start, at) = (usize::from(last.css()), usize::from(last.cso()));
                    Checksum {
                        start,
                        at,
                        last: 0,
                        udp: false,
                    }
                    .insert(frame);
                }
                None => {}
            }
        }
        if let Some(tag) = packet.vlan {
            self.insert_vlan(path.registers, tag);
            if let Some(checksum) = &mut offload.checksum {
                checksum.start += len16(VLAN_LEN);
            }
        }
        let padded = self.end.max(self.start + FRAME_LEN_MIN);
        if let Some(padding) = self.arena.get_mut(self.end..padded) {
            padding.fill(0);
        }
        self.end = padded;
        stats::transmitted(path.registers, destination(self.partial()), self.end - self.start, 1);
        self.ready.push(Ready {
            start: self.start,
            end: self.end,
            offload,
        });
    }

    /// Sends a packet that is to be cut, uncut if the sink can cut; `None` if it cannot be sent.
    fn finish_segmentation(&mut self, path: &mut Path<'_>, packet: &Packet) -> Option<()> {
        let mut plan = Plan::new(packet.context?, packet.options)?;
        let payload_len = (self.end - self.start).checked_sub(plan.header_len())?;
        let count = plan.segments(payload_len)?;
        if let Some(tag) = packet.vlan {
            self.insert_vlan(path.registers, tag);
            plan = plan.shifted(VLAN_LEN);
        }
        let full = plan.header_len() + payload_len.min(plan.mss());
        let last = plan.header_len() + payload_len - (count - 1) * plan.mss();
        let to = destination(self.partial());
        stats::add(path.registers, stat::TSCTC, 1);
        stats::transmitted(path.registers, to, full.max(FRAME_LEN_MIN), len32(count - 1));
        stats::transmitted(path.registers, to, last.max(FRAME_LEN_MIN), 1);
        match plan.for_sink(path.exit.offloads()) {
            Some(kind) if count > 1 => {
                plan.prepare_for_sink(self.arena.get_mut(self.start..self.end)?, payload_len);
                let (size, header_len) = (len16(plan.mss()), len16(plan.header_len()));
                let checksum = ChecksumOffload {
                    start: len16(plan.l4_start()),
                    offset: TCP_CHECKSUM_AT,
                };
                let segmentation = Segmentation { kind, size, header_len };
                let offload = Offload {
                    checksum: Some(checksum),
                    segmentation: Some(segmentation),
                };
                self.ready.push(Ready {
                    start: self.start,
                    end: self.end,
                    offload,
                });
            }
            _ => self.cut(path, &plan)?,
        }
        Some(())
    }

    /// Cuts the collected packet in software and sends the segments in batches.
    fn cut(&mut self, path: &mut Path<'_>, plan: &Plan) -> Option<()> {
        self.flush(path); // what came before goes first; the packet moves to the arena's start
        self.segments.resize(SEGMENTS_LEN, 0);
        let (header, payload) = self
            .arena
            .get(self.start..self.end)?
            .split_at_checked(plan.header_len())?;
        let count = payload.len().div_ceil(plan.mss()).max(1);
        let mut batch = [(0, 0); FRAMES_PER_SEND];
        let (mut frames, mut filled) = (0, 0);
        for number in 0..count {
            let from = number * plan.mss();
            let piece = payload.get(from..payload.len().min(from + plan.mss()))?;
            let len = header.len() + piece.len();
            let padded = len.max(FRAME_LEN_MIN);
            let room = self.segments.get_mut(filled..filled + padded)?;
            let (segment, padding) = room.split_at_mut_checked(len)?;
            let (head, body) = segment.split_at_mut_checked(header.len())?;
            head.copy_from_slice(header);
            body.copy_from_slice(piece);
            plan.complete(segment, number, piece.len(), number + 1 == count);
            padding.fill(0);
            *batch.get_mut(frames)? = (filled, filled + padded);
            frames += 1;
            filled += padded;
            if frames == FRAMES_PER_SEND || filled > BYTES_PER_SEND {
                send_segments(&mut path.exit, &self.segments, batch.get(..frames)?);
                (frames, filled) = (0, 0);
            }
        }
        send_segments(&mut path.exit, &self.segments, batch.get(..frames)?);
        Some(())
    }

    /// Puts a VLAN tag behind the addresses, which move into the room before the frame.
    fn insert_vlan(&mut self, registers: &RegisterFile, tag: u16) {
        let start = self.start - VLAN_LEN;
        self.arena.copy_within(self.start..self.start + VLAN_AT, start);
        let [a, b] = len16(index(registers.get(reg::VET))).to_be_bytes();
        let [c, d] = tag.to_be_bytes();
        if let Some(field) = self.arena.get_mut(start + VLAN_AT..start + VLAN_AT + VLAN_LEN) {
            field.copy_from_slice(&[a, b, c, d]);
        }
        self.start = start;
    }

    /// Hands the finished frames over, then writes their descriptors back; the frame being collected moves to the front.
    fn flush(&mut self, path: &mut Path<'_>) {
        let mut frames = [EMPTY_FRAME; FRAMES_PER_SEND];
        for (frame, ready) in frames.iter_mut().zip(&self.ready) {
            let bytes = self.arena.get(ready.start..ready.end).unwrap_or_default();
            *frame = TxFrame {
                bytes,
                offload: ready.offload,
            };
        }
        if let Some(frames) = frames.get(..self.ready.len()).filter(|frames| !frames.is_empty()) {
            path.exit.send(frames);
        }
        self.ready.clear();
        for (at, status) in self.write_backs.drain(..) {
            if path.dma.write(at, &status).is_err() {
                path.faults.dma += 1;
            }
        }
        if self.start != VLAN_LEN {
            self.arena.copy_within(self.start..self.end, VLAN_LEN);
            (self.start, self.end) = (VLAN_LEN, VLAN_LEN + self.end - self.start);
        }
    }
}

/// Inserts the checksums of a frame that is not cut; what the sink can do is left to it and returned.
fn insert_checksums(frame: &mut [u8], context: &TxContext, options: u8, offloads: Offloads) -> Option<ChecksumOffload> {
    let mut left = None;
    if options & popts::TXSM != 0 {
        left = leave_to_sink(frame, context).filter(|_| offloads.checksum);
        if left.is_none() {
            Checksum::l4(context).insert(frame);
        }
    }
    if options & popts::IXSM != 0 {
        Checksum::ip(context).insert(frame);
    }
    left
}

/// The TCP or UDP checksum as a sink would do it: to the end of the frame, and stored inside what is summed.
fn leave_to_sink(frame: &[u8], context: &TxContext) -> Option<ChecksumOffload> {
    let offset = context.l4_offset.checked_sub(context.l4_start)?;
    let inside = context.l4_end == 0 && usize::from(context.l4_offset) + 2 <= frame.len();
    inside.then_some(ChecksumOffload {
        start: u16::from(context.l4_start),
        offset: u16::from(offset),
    })
}

fn send_segments(exit: &mut Exit<'_>, segments: &[u8], ranges: &[(usize, usize)]) {
    let mut frames = [EMPTY_FRAME; FRAMES_PER_SEND];
    for (frame, (start, end)) in frames.iter_mut().zip(ranges) {
        frame.bytes = segments.get(*start..*end).unwrap_or_default();
    }
    if let Some(frames) = frames.get(..ranges.len()).filter(|frames| !frames.is_empty()) {
        exit.send(frames);
    }
}

fn destination(frame: &[u8]) -> [u8; 6] {
    frame.first_chunk().copied().unwrap_or_default()
}

const EMPTY_FRAME: TxFrame<'static> = TxFrame {
    bytes: &[],
    offload: Offload {
        checksum: None,
        segmentation: None,
    },
};

/// A batch, and behind it the longest packet with room for a VLAN tag and for padding.
const ARENA_LEN: usize = BYTES_PER_SEND + SEGMENTATION_LEN_MAX + 2 * VLAN_LEN + FRAME_LEN_MIN;

/// A batch of segments, and behind it the longest one.
const SEGMENTS_LEN: usize = BYTES_PER_SEND + FRAME_LEN_MAX + VLAN_LEN + FRAME_LEN_MIN;

/// Status fields that wait for their batch.
const WRITE_BACKS_MAX: usize = 256;

/// Where the status stands in a descriptor.
const STATUS_AT: u64 = 12;

/// The status bits in the last doubleword of a transmit descriptor.
const STATUS_MASK: u32 = 0xF;

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM_AT: u16 = 16;

const _: () = assert!(SEGMENTATION_HEADER_LEN_MAX > FRAME_LEN_MIN);
