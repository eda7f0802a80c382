//! Where things lie in the first MiB of a guest that starts like a PC behind its firmware, and its memory map.
//!
//! | address | what |
//! | --- | --- |
//! | 0x500 | descriptor table |
//! | 0x6000, 0x7000 | what the boot protocol hands over: start info, boot parameters |
//! | 0x9000 to 0x50000 | page tables |
//! | 0x50000 | command line |
//! | 0x9fc00 | end of low RAM, as on a PC with an extended BIOS data area |
//! | 0xe0000 to 0xfffff | ACPI tables |
//! | 0x100000 | kernel |
use crate::memory::GuestMemory;

/// PVH's start info with its lists.
pub(super) const START_INFO_GPA: u64 = 0x6000;
/// Linux boot parameters ("zero page").
pub(super) const BOOT_PARAMS_GPA: u64 = 0x7000;
/// The kernel's command line.
pub(super) const COMMAND_LINE_GPA: u64 = 0x5_0000;
/// Room for it with its NUL; Linux takes 2047 bytes (COMMAND_LINE_SIZE).
pub(super) const COMMAND_LINE_ROOM: usize = 0x1_0000;
/// End of the RAM that a guest may use below 1 MiB.
const LOW_END: u64 = 0x9_fc00;
/// Where the root pointer (RSDP) is searched for and the tables lie (ACPI specification 5.2.5.1).
pub(super) const ACPI_GPA: u64 = 0xe_0000;
/// End of the room for ACPI tables, and where RAM goes on.
pub(super) const HIGH_START: u64 = 0x10_0000;

/// Kind of a range in the memory map (ACPI specification 15, address range types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeKind {
    Ram,
    Reserved,
}

/// A range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapRange {
    pub(super) gpa: u64,
    pub(super) len_bytes: u64,
    pub(super) kind: RangeKind,
}

impl RangeKind {
    /// The number that firmware gives it.
    pub(super) fn number(self) -> u32 {
        match self {
            RangeKind::Ram => 1,
            RangeKind::Reserved => 2,
        }
    }
}

/// The memory map of a guest, lowest range first.
pub(super) fn memory_map(memory: &GuestMemory) -> Vec<MapRange> {
    let range = |gpa, end: u64, kind| MapRange {
        gpa,
        len_bytes: end - gpa,
        kind,
    };
    let mut map = vec![
        range(0, LOW_END, RangeKind::Ram),
        range(LOW_END, HIGH_START, RangeKind::Reserved),
    ];
    for ram in memory.ranges() {
        let start = ram.gpa.max(HIGH_START);
        let end = ram.gpa.saturating_add(ram.len_bytes);
        if end > start {
            map.push(range(start, end, RangeKind::Ram));
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_leaves_out_firmware_and_the_device_hole() {
        let map = memory_map(&GuestMemory::create(5 << 10).unwrap());
        let seen: Vec<_> = map
            .iter()
            .map(|range| (range.gpa, range.len_bytes, range.kind))
            .collect();
        assert_eq!(
            seen,
            [
                (0, 0x9_fc00, RangeKind::Ram),
                (0x9_fc00, 0x6_0400, RangeKind::Reserved),
                (0x10_0000, (3 << 30) - 0x10_0000, RangeKind::Ram),
                (4 << 30, 2 << 30, RangeKind::Ram)
            ]
        );
    }
}
