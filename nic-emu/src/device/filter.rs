//! Which received frames are for us (SDM chapter 3, packet address filtering; chapter 9, VLAN filtering).

use super::registers::RegisterFile;
use crate::spec::registers::{self as reg, rctl};

/// How a frame got through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// By a full address or a promiscuous mode.
    Exact,
    /// By the multicast hash alone: software must look again.
    Hash,
}

/// Decides on a frame of at least a header's length; `None` drops it.
pub(super) fn accept(registers: &RegisterFile, frame: &[u8]) -> Option<Match> {
    let destination = *frame.first_chunk::<6>()?;
    let matched = by_address(registers, destination)?;
    by_vlan(registers, frame).then_some(matched)
}

fn by_address(registers: &RegisterFile, destination: [u8; 6]) -> Option<Match> {
    let control = registers.get(reg::RCTL);
    let group = destination[0] & 1 != 0;
    let promiscuous = match (group, destination == [0xFF; 6]) {
        (false, _) => control & rctl::UPE != 0,
        (true, false) => control & rctl::MPE != 0,
        (true, true) => control & (rctl::MPE | rctl::BAM) != 0,
    };
    if promiscuous || (0..RECEIVE_ADDRESSES).any(|n| is_station(registers, n, destination)) {
        return Some(Match::Exact);
    }
    let bit = hash(destination, control >> rctl::MO_SHIFT);
    let word = registers.get(reg::MTA + (bit >> 5) * 4);
    (group && word >> (bit & 31) & 1 != 0).then_some(Match::Hash)
}

fn is_station(registers: &RegisterFile, n: u32, destination: [u8; 6]) -> bool {
    let [a, b, c, d, e, f] = destination;
    let high = registers.get(reg::RAH + n * 8);
    high & reg::RAH_AV != 0
        && high & 0xFFFF == u32::from(u16::from_le_bytes([e, f]))
        && registers.get(reg::RAL + n * 8) == u32::from_le_bytes([a, b, c, d])
}

/// The bit of the multicast table that a destination selects; the low two bits of `offset` are RCTL.MO.
fn hash(destination: [u8; 6], offset: u32) -> u32 {
    let [.., e, f] = destination;
    let shift = match offset & 3 {
        0 => 4,
        1 => 3,
        2 => 2,
        _ => 0,
    };
    (u32::from(u16::from_le_bytes([e, f])) >> shift) & 0xFFF
}

fn by_vlan(registers: &RegisterFile, frame: &[u8]) -> bool {
    let control = registers.get(reg::RCTL);
    let Some(tag) = tag(registers, frame) else { return true };
    if control & rctl::VFE == 0 {
        return true;
    }
    let vid = u32::from(tag & 0xFFF);
    registers.get(reg::VFTA + (vid >> 5) * 4) >> (vid & 31) & 1 != 0
}

/// The VLAN tag of a frame whose EtherType is VET.
pub(super) fn tag(registers: &RegisterFile, frame: &[u8]) -> Option<u16> {
    let field = |at: usize| {
        frame
            .get(at..at + 2)
            .and_then(|two| two.first_chunk())
            .copied()
            .map(u16::from_be_bytes)
    };
    let is_tagged = u32::from(field(VLAN_AT)?) == registers.get(reg::VET);
    field(VLAN_AT + 2).filter(|_| is_tagged)
}

/// Where a VLAN tag starts.
pub(super) const VLAN_AT: usize = 12;

/// Length of a VLAN tag.
pub(super) const VLAN_LEN: usize = 4;

/// RAL/RAH pairs.
const RECEIVE_ADDRESSES: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_agrees_with_the_drivers_formula() {
        // FreeBSD's e1000_hash_mc_addr_generic() and its example address. Its comment says 0x163 for the third, but the
        // code beside it, (0x34 >> 2 | 0x56 << 6) & 0xFFF, yields 0x58D.
        let address = [0x01, 0xAA, 0x00, 0x12, 0x34, 0x56];
        assert_eq!([0, 1, 2, 3].map(|mo| hash(address, mo)), [0x563, 0xAC6, 0x58D, 0x634]);
    }

    fn frame(destination: [u8; 6]) -> [u8; 60] {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&destination);
        frame
    }

    #[test]
    fn each_address_needs_its_own_permission() {
        let mut registers = RegisterFile::new();
        let (mine, other) = (frame([2, 1, 2, 3, 4, 5]), frame([2, 1, 2, 3, 4, 6]));
        let (group, broadcast) = (frame([0x01, 0xAA, 0, 0x12, 0x34, 0x56]), frame([0xFF; 6]));
        for nobody in [&mine, &other, &group, &broadcast] {
            assert_eq!(accept(&registers, nobody), None);
        }
        registers.set(reg::RAL + 15 * 8, 0x0302_0102);
        registers.set(reg::RAH + 15 * 8, 0x0504);
        assert_eq!(accept(&registers, &mine), None, "not valid");
        registers.set(reg::RAH + 15 * 8, 0x0504 | reg::RAH_AV);
        assert_eq!(accept(&registers, &mine), Some(Match::Exact));
        registers.set(reg::MTA + (0x563 >> 5) * 4, 1 << (0x563 & 31));
        assert_eq!(accept(&registers, &group), Some(Match::Hash));
        registers.set(reg::RCTL, rctl::UPE | rctl::BAM);
        assert_eq!(accept(&registers, &other), Some(Match::Exact));
        assert_eq!(accept(&registers, &broadcast), Some(Match::Exact));
        registers.set(reg::RCTL, rctl::MPE);
        assert_eq!(accept(&registers, &group), Some(Match::Exact));
    }

    #[test]
    fn vlan_filter_passes_listed_tags_and_untagged_frames() {
        let mut registers = RegisterFile::new();
        registers.set(reg::RCTL, rctl::UPE | rctl::VFE);
        let mut tagged = frame([2; 6]);
        assert!(accept(&registers, &tagged).is_some());
        tagged[12..16].copy_from_slice(&[0x81, 0x00, 0x20, 0x45]);
        assert!(accept(&registers, &tagged).is_none());
        registers.set(reg::VFTA + (0x45 >> 5) * 4, 1 << (0x45 & 31));
        assert!(accept(&registers, &tagged).is_some());
    }
}
