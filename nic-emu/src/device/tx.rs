//! The transmit ring: descriptors in, frames out (SDM chapter 3, packet transmission).
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

use super::effects::{Dma, FrameSink, Offload, Offloads, TxFrame};
use super::filter::VLAN_LEN;
use super::irq::Interrupts;
use super::offload::Plan;
use super::registers::RegisterFile;
use super::ring::Ring;
use super::rx::Loopback;
use super::{Faults, stats};
use crate::bits::index;
use crate::limits::{
    BYTES_PER_SEND, BYTES_PER_TRANSMIT, ETHERNET_HEADER_LEN, FRAME_LEN_MAX, FRAME_LEN_MIN, FRAMES_PER_SEND,
    SEGMENTATION_LEN_MAX,
};
use crate::spec::descriptors::{DESCRIPTOR_LEN, STATUS_DD, TxContext, TxDescriptor, TxKind, command};
use crate::spec::registers::{self as reg, cause, ctrl, statistics as stat, txdctl};

/// The transmitter's memory.
#[derive(Debug)]
pub(super) struct Transmitter {
    /// Finished frames, then the one being collected.
    pub(super) arena: Box<[u8]>,
    /// Where the frame being collected starts; room for a VLAN tag lies before it.
    pub(super) start: usize,
    /// Where it ends so far.
    pub(super) end: usize,
    pub(super) ready: Vec<Ready>,
    /// Status fields to write once the batch is out: address and value.
    pub(super) write_backs: Vec<(u64, [u8; 4])>,
    /// Segments cut in software; empty until the first is needed.
    pub(super) segments: Vec<u8>,
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

impl Packet {
    /// The most bytes that it may have.
    pub(super) fn len_max(&self) -> usize {
        match (self.segmentation, &self.context) {
            (true, Some(context)) => {
                (usize::from(context.header_len) + index(context.payload_len)).min(SEGMENTATION_LEN_MAX)
            }
            _ => FRAME_LEN_MAX,
        }
    }
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
    pub(super) fn offloads(&self) -> Offloads {
        match self {
            Self::Sink(_, offloads) => *offloads,
            _ => Offloads::default(),
        }
    }

    pub(super) fn send(&mut self, frames: &[TxFrame<'_>]) {
        match self {
            Self::Sink(sink, _) => sink.send(frames),
            Self::Loopback(queue) => frames.iter().for_each(|frame| queue.push(frame.bytes)),
            Self::Nowhere => {}
        }
    }
}

/// A finished frame in the arena.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) offload: Offload,
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
        let waiting = ring.available();
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
        let low = txdctl::low_threshold(path.registers.get(reg::TXDCTL));
        if waiting > low && ring.available() <= low && low > 0 {
            path.irq.raise(cause::TXD_LOW);
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
        let room = packet.len_max().saturating_sub(self.end - self.start);
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
}

/// A batch, and behind it the longest packet with room for a VLAN tag and for padding.
const ARENA_LEN: usize = BYTES_PER_SEND + SEGMENTATION_LEN_MAX + 2 * VLAN_LEN + FRAME_LEN_MIN;

/// Status fields that wait for their batch.
const WRITE_BACKS_MAX: usize = 256;

/// Where the status stands in a descriptor.
const STATUS_AT: u64 = 12;

/// The status bits in the last doubleword of a transmit descriptor.
const STATUS_MASK: u32 = 0xF;
