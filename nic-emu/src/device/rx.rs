//! The receive ring: frames in, descriptors filled (SDM chapter 3, packet reception).
//!
//! A frame's buffers are found first and filled afterwards, so a frame that does not fit is never begun.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::effects::Dma;
use super::filter::{self, Match, VLAN_AT, VLAN_LEN};
use super::irq::Interrupts;
use super::registers::RegisterFile;
use super::ring::Ring;
use super::verify::{self, Verdict};
use super::{Faults, stats};
use crate::bits::{len16, len32};
use crate::limits::{
    CRC_LEN, FRAME_LEN_MAX, FRAME_LEN_MAX_STANDARD, FRAME_LEN_MIN, LOOPBACK_BYTES, LOOPBACK_FRAMES, SLOTS_PER_FRAME,
};
use crate::spec::descriptors::{RxWriteback, rx_status};
use crate::spec::registers::{self as reg, cause, ctrl, rctl, statistics as stat};

/// The receiver's memory: room to change one frame in.
#[derive(Debug)]
pub(super) struct Receiver {
    staging: Box<[u8]>,
}

/// Everything of the device that receiving changes.
pub(super) struct Path<'a> {
    pub(super) registers: &'a mut RegisterFile,
    pub(super) irq: &'a mut Interrupts,
    pub(super) faults: &'a mut Faults,
    pub(super) now_ns: u64,
    pub(super) dma: &'a mut dyn Dma,
}

/// What stands for the CRC.
const CRC: [u8; CRC_LEN] = [0; CRC_LEN];

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in guest memory.
    Stored,
    /// It was not for us, or no ring could ever hold it.
    Dropped,
    /// There are too few buffers now.
    NoRoom,
}

/// Frames on their way back to our own receiver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Loopback {
    /// Oldest first.
    pub(super) frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Loopback {
    /// Queues a frame; one that does not fit is lost, as in a full packet buffer.
    pub(super) fn push(&mut self, frame: &[u8]) {
        if self.frames.len() < LOOPBACK_FRAMES && self.bytes + frame.len() <= LOOPBACK_BYTES {
            self.bytes += frame.len();
            self.frames.push_back(frame.to_vec());
        }
    }

    /// Removes the oldest frame.
    pub(super) fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.len();
        }
    }
}

/// A frame as it goes to memory.
struct Prepared<'a> {
    bytes: &'a [u8],
    status: u8,
    errors: u8,
    special: u16,
}

/// The buffers of one frame: addresses in ring order, null ones among them.
struct Slots {
    addresses: [u64; SLOTS_PER_FRAME],
    used: usize,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            staging: vec![0; FRAME_LEN_MAX + CRC_LEN].into_boxed_slice(),
        }
    }

    /// Offers one frame to the ring.
    pub(super) fn deliver(&mut self, path: &mut Path<'_>, ring: &mut Ring, frame: &[u8]) -> Outcome {
        let control = path.registers.get(reg::RCTL);
        let too_long = frame.len() > FRAME_LEN_MAX
            || (frame.len() > FRAME_LEN_MAX_STANDARD && control & (rctl::LPE | rctl::SBP) == 0);
        if frame.is_empty() || too_long {
            if too_long {
                stats::add(path.registers, stat::ROC, 1);
            }
            return Outcome::Dropped;
        }
        let mut short = [0; FRAME_LEN_MIN];
        let frame = match short.get_mut(..frame.len()) {
            Some(start) => {
                start.copy_from_slice(frame);
                &short
            }
            None => frame,
        };
        let Some(matched) = filter::accept(path.registers, frame) else {
            return Outcome::Dropped;
        };
        let prepared = self.prepare(path.registers, frame, matched);
        let outcome = store(path, ring, &prepared);
        if outcome == Outcome::Stored {
            let destination = frame.first_chunk().copied().unwrap_or_default();
            stats::received(path.registers, destination, frame.len());
            let small = path.registers.get(reg::RSRPD);
            if small != 0 && len32(frame.len() + CRC_LEN) <= small {
                path.irq.raise(cause::SRPD);
            }
        }
        outcome
    }

    /// Looks at the checksums, strips the VLAN tag and adds the CRC's room, as the registers ask. The CRC itself is zeros: no driver looks at
    /// it, and computing it would cost more than the rest of the path.
    fn prepare<'a>(&'a mut self, registers: &RegisterFile, frame: &'a [u8], matched: Match) -> Prepared<'a> {
        let tag = filter::tag(registers, frame);
        let Verdict { mut status, errors } = verify::checksums(frame, tag.is_some(), registers.get(reg::RXCSUM));
        status |= if matched == Match::Hash { rx_status::PIF } else { 0 };
        let tag = tag.filter(|_| registers.has(reg::CTRL, ctrl::VME));
        let crc = if registers.has(reg::RCTL, rctl::SECRC) {
            0
        } else {
            CRC_LEN
        };
        if tag.is_none() && crc == 0 {
            return Prepared {
                bytes: frame,
                status,
                errors,
                special: 0,
            };
        }
        let skipped = if tag.is_some() { VLAN_LEN } else { 0 };
        status |= if tag.is_some() { rx_status::VP } else { 0 };
        let (addresses, rest) = frame.split_at_checked(VLAN_AT).unwrap_or((frame, &[]));
        let pieces = [
            addresses,
            rest.get(skipped..).unwrap_or_default(),
            CRC.get(..crc).unwrap_or_default(),
        ];
        let mut total = 0;
        for piece in pieces {
            if let Some(room) = self.staging.get_mut(total..total + piece.len()) {
                room.copy_from_slice(piece);
                total += piece.len();
            }
        }
        Prepared {
            bytes: self.staging.get(..total).unwrap_or_default(),
            status,
            errors,
            special: tag.unwrap_or(0),
        }
    }
}

/// Counts frames that were lost for want of buffers.
pub(super) fn count_missed(registers: &mut RegisterFile, irq: &mut Interrupts, frames: u32) {
    stats::add(registers, stat::MPC, frames);
    stats::add(registers, stat::RNBC, frames);
    irq.raise(cause::RXO);
}

/// Raises what a batch of stored frames raises.
pub(super) fn after_batch(path: &mut Path<'_>, ring: &Ring) {
    let delay = path.registers.get(reg::RDTR);
    if delay == 0 {
        path.irq.raise(cause::RXT0);
    } else {
        path.irq
            .receive
            .restart(path.now_ns, delay, path.registers.get(reg::RADV));
    }
    let threshold = ((path.registers.get(reg::RCTL) >> rctl::RDMTS_SHIFT) & 3) + 1;
    if ring.available() <= ring.len >> threshold {
        path.irq.raise(cause::RXDMT0);
    }
}

fn store(path: &mut Path<'_>, ring: &mut Ring, prepared: &Prepared<'_>) -> Outcome {
    let buffer_len = rctl::buffer_len(path.registers.get(reg::RCTL));
    let slots = match find_slots(path, ring, prepared.bytes.len().div_ceil(buffer_len)) {
        Ok(slots) => slots,
        Err(outcome) => {
            if outcome == Outcome::Dropped {
                count_missed(path.registers, path.irq, 1);
            }
            return outcome;
        }
    };
    let mut pieces = prepared.bytes.chunks(buffer_len).peekable();
    for (n, address) in (0..).zip(slots.addresses.into_iter().take(slots.used)) {
        let mut done = RxWriteback {
            status: rx_status::DD,
            ..RxWriteback::default()
        };
        if address != 0
            && let Some(piece) = pieces.next()
        {
            path.faults.dma += u64::from(path.dma.write(address, piece).is_err());
            done.len_bytes = len16(piece.len());
            if pieces.peek().is_none() {
                done.status |= rx_status::EOP | prepared.status;
                done.errors = prepared.errors;
                done.special = prepared.special;
            }
        }
        write_back(path, ring.gpa(n), &done);
    }
    ring.advance(len32(slots.used));
    Outcome::Stored
}

/// Collects descriptors until `needed` of them have buffers. Those without a buffer can hold nothing: at the head of the
/// ring they are given back at once, which is progress, and behind it they are counted.
fn find_slots(path: &mut Path<'_>, ring: &mut Ring, needed: usize) -> Result<Slots, Outcome> {
    let mut slots = Slots {
        addresses: [0; SLOTS_PER_FRAME],
        used: 0,
    };
    let mut found = 0;
    let whole_ring = ring.available() + 1 == ring.len;
    for _ in 0..ring.available() {
        let address = address_at(path, ring, len32(slots.used));
        if address == 0 && slots.used == 0 {
            write_back(
                path,
                ring.gpa(0),
                &RxWriteback {
                    status: rx_status::DD,
                    ..RxWriteback::default()
                },
            );
            ring.advance(1);
            continue;
        }
        let Some(slot) = slots.addresses.get_mut(slots.used) else {
            return Err(Outcome::Dropped);
        };
        *slot = address;
        slots.used += 1;
        found += usize::from(address != 0);
        if found == needed {
            return Ok(slots);
        }
    }
    Err(if whole_ring { Outcome::Dropped } else { Outcome::NoRoom })
}

/// The buffer address of a descriptor; one that cannot be read has none.
fn address_at(path: &mut Path<'_>, ring: &Ring, ahead: u32) -> u64 {
    let mut address = [0; 8];
    if path.dma.read(ring.gpa(ahead), &mut address).is_err() {
        path.faults.dma += 1;
        return 0;
    }
    u64::from_le_bytes(address)
}

/// Writes the descriptor's second half, DD last, since the guest may be looking.
fn write_back(path: &mut Path<'_>, descriptor: u64, done: &RxWriteback) {
    let quiet = RxWriteback {
        status: done.status & !rx_status::DD,
        ..*done
    };
    let fields = path.dma.write(descriptor + 8, &quiet.encode());
    let status = path.dma.write(descriptor + 12, &[done.status]);
    path.faults.dma += u64::from(fields.is_err() || status.is_err());
}
