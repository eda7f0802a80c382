//! The statistics block: counters that saturate and that a read clears (SDM chapter 13, statistics registers).

use super::registers::RegisterFile;
use crate::bits::{high32, len32, low32};
use crate::limits::CRC_LEN;
use crate::spec::registers::statistics as stat;

/// Reads a counter and clears it; the high half of a 64-bit counter clears its low half too.
pub(super) fn read(registers: &mut RegisterFile, offset: u32) -> u32 {
    let value = registers.get(offset);
    if stat::HIGH_HALVES.contains(&offset) {
        registers.set(offset - 4, 0);
    }
    // The low half stays until its high half is read, so that the pair is consistent.
    if !stat::HIGH_HALVES.contains(&(offset + 4)) {
        registers.set(offset, 0);
    }
    value
}

/// Counts `by` more.
pub(super) fn add(registers: &mut RegisterFile, offset: u32, by: u32) {
    registers.set(offset, registers.get(offset).saturating_add(by));
}

/// Counts `frames` received frames of `len_bytes` each, without CRC.
pub(super) fn received(registers: &mut RegisterFile, destination: [u8; 6], len_bytes: usize) {
    count(registers, &RECEIVED, destination, len_bytes, 1);
}

/// Counts `frames` transmitted frames of `len_bytes` each, without CRC.
pub(super) fn transmitted(registers: &mut RegisterFile, destination: [u8; 6], len_bytes: usize, frames: u32) {
    count(registers, &TRANSMITTED, destination, len_bytes, frames);
}

/// Where one direction's counters stand.
struct Direction {
    good: u32,
    total: u32,
    broadcast: u32,
    multicast: u32,
    good_octets: u32,
    total_octets: u32,
    by_length: u32,
}

fn count(registers: &mut RegisterFile, to: &Direction, destination: [u8; 6], len_bytes: usize, frames: u32) {
    let len = len32(len_bytes + CRC_LEN);
    add(registers, to.good, frames);
    add(registers, to.total, frames);
    if destination == [0xFF; 6] {
        add(registers, to.broadcast, frames);
    } else if destination[0] & 1 != 0 {
        add(registers, to.multicast, frames);
    }
    let octets = u64::from(len) * u64::from(frames);
    add64(registers, to.good_octets, octets);
    add64(registers, to.total_octets, octets);
    let bin = match len {
        0..=64 => 0,
        65..=127 => 1,
        128..=255 => 2,
        256..=511 => 3,
        512..=1023 => 4,
        _ => 5,
    };
    add(registers, to.by_length + bin * 4, frames);
}

fn add64(registers: &mut RegisterFile, low: u32, by: u64) {
    let value = u64::from(registers.get(low)) | u64::from(registers.get(low + 4)) << 32;
    let value = value.saturating_add(by);
    registers.set(low, low32(value));
    registers.set(low + 4, high32(value));
}

const RECEIVED: Direction = Direction {
    good: stat::GPRC,
    total: stat::TPR,
    broadcast: stat::BPRC,
    multicast: stat::MPRC,
    good_octets: stat::GORCL,
    total_octets: stat::TORL,
    by_length: stat::PRC64,
};

const TRANSMITTED: Direction = Direction {
    good: stat::GPTC,
    total: stat::TPT,
    broadcast: stat::BPTC,
    multicast: stat::MPTC,
    good_octets: stat::GOTCL,
    total_octets: stat::TOTL,
    by_length: stat::PTC64,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_saturate_and_clear_on_read() {
        let mut registers = RegisterFile::new();
        add(&mut registers, stat::MPC, u32::MAX - 1);
        add(&mut registers, stat::MPC, 5);
        assert_eq!(read(&mut registers, stat::MPC), u32::MAX);
        assert_eq!(read(&mut registers, stat::MPC), 0);
    }

    #[test]
    fn octets_count_the_crc_and_clear_by_the_high_half() {
        let mut registers = RegisterFile::new();
        transmitted(&mut registers, [0xFF; 6], 60, 3);
        assert_eq!(read(&mut registers, stat::GOTCL), 192);
        assert_eq!(
            read(&mut registers, stat::GOTCL),
            192,
            "low half waits for the high half"
        );
        assert_eq!(read(&mut registers, stat::GOTCL + 4), 0);
        assert_eq!(read(&mut registers, stat::GOTCL), 0);
        assert_eq!(read(&mut registers, stat::PTC64), 3);
        assert_eq!(read(&mut registers, stat::BPTC), 3);
        assert_eq!(read(&mut registers, stat::MPTC), 0);
    }
}
