//! A checked view of a descriptor ring: made anew for every batch, since the guest may change the registers any time.

use super::registers::RegisterFile;
use crate::bits::len32;
use crate::spec::descriptors::DESCRIPTOR_LEN;
use crate::spec::registers as reg;

/// A ring whose head and tail lie inside and whose end does not wrap around the address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ring {
    base: u64,
    /// Descriptors in the ring.
    pub(super) len: u32,
    /// The next descriptor that the device takes.
    pub(super) head: u32,
    /// One past the last that the device may take.
    tail: u32,
}

impl Ring {
    /// The transmit ring, if the registers describe one.
    pub(super) fn transmit(registers: &RegisterFile) -> Option<Self> {
        Self::new(registers, [reg::TDBAL, reg::TDBAH, reg::TDLEN, reg::TDH, reg::TDT])
    }

    /// The receive ring, if the registers describe one.
    pub(super) fn receive(registers: &RegisterFile) -> Option<Self> {
        Self::new(registers, [reg::RDBAL, reg::RDBAH, reg::RDLEN, reg::RDH, reg::RDT])
    }

    fn new(registers: &RegisterFile, offsets: [u32; 5]) -> Option<Self> {
        let [low, high, len_bytes, head, tail] = offsets.map(|offset| registers.get(offset));
        let base = u64::from(low) | u64::from(high) << 32;
        base.checked_add(u64::from(len_bytes))?;
        let len = len_bytes / len32(DESCRIPTOR_LEN);
        (head < len && tail < len).then_some(Self { base, len, head, tail })
    }

    /// Descriptors that are the device's.
    pub(super) fn available(&self) -> u32 {
        if self.tail >= self.head {
            self.tail - self.head
        } else {
            self.len - self.head + self.tail
        }
    }

    /// Where the descriptor lies that is `ahead` of the head.
    pub(super) fn gpa(&self, ahead: u32) -> u64 {
        let at = (self.head + ahead) % self.len;
        self.base + u64::from(at) * DESCRIPTOR_LEN as u64
    }

    /// Gives `count` descriptors back to the guest.
    pub(super) fn advance(&mut self, count: u32) {
        self.head = (self.head + count) % self.len;
    }
}
