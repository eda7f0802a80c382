//! The second half of transmission: finished packets become frames, frames become batches.

use super::effects::{ChecksumOffload, Offload, Offloads, Segmentation, TxFrame};
use super::filter::{VLAN_AT, VLAN_LEN};
use super::offload::{Checksum, Plan};
use super::registers::RegisterFile;
use super::stats;
use super::tx::{Exit, Packet, Path, Ready, Transmitter};
use crate::bits::{index, len16, len32};
use crate::limits::{BYTES_PER_SEND, FRAME_LEN_MAX, FRAME_LEN_MIN, FRAMES_PER_SEND};
use crate::spec::descriptors::{TxContext, TxDescriptor, command, popts};
use crate::spec::registers::{self as reg, statistics as stat};

impl Transmitter {
    /// Completes a frame that is not cut: checksums, VLAN tag, padding.
    pub(super) fn finish_frame(&mut self, path: &mut Path<'_>, packet: &Packet, last: &TxDescriptor) {
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
    pub(super) fn finish_segmentation(&mut self, path: &mut Path<'_>, packet: &Packet) -> Option<()> {
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
        match plan.for_sink(path.exit.offloads(), count) {
            Some(kind) => {
                plan.prepare_for_sink(self.arena.get_mut(self.start..self.end)?, payload_len);
                let (size, header_len) = (len16(plan.mss()), len16(plan.header_len()));
                let checksum = ChecksumOffload {
                    start: len16(plan.l4_start()),
                    offset: plan.checksum_offset(),
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
            None => self.cut(path, &plan)?,
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
    pub(super) fn flush(&mut self, path: &mut Path<'_>) {
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

/// A batch of segments, and behind it the longest one.
const SEGMENTS_LEN: usize = BYTES_PER_SEND + FRAME_LEN_MAX + VLAN_LEN + FRAME_LEN_MIN;
