//! FreeBSD's minidumps, version 3: which pages they have, and which ranges of RAM are refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests

use vmcore::MemoryRange;
use vmcore::image::PhysicalMemory as _;
use vmcore::minidump::{Minidump, MinidumpError};

const PAGE_LEN: usize = 4096;

/// A dump without message buffer and page tables: header, `dump_avail`, the bitmap, and a page for each of its bits, filled with
/// the bit's number.
fn dump(ranges: &[(u64, u64)], bitmap: u64) -> Vec<u8> {
    let mut bytes = vec![0; 3 * PAGE_LEN];
    bytes[..22].copy_from_slice(b"minidump FreeBSD/amd64");
    let ends = [(0, 0)];
    let numbers = [3, 0, 8, 0];
    for (index, number) in numbers.into_iter().enumerate() {
        bytes[24 + 4 * index..][..4].copy_from_slice(&u32::to_le_bytes(number));
    }
    let ranges_len = u32::try_from((ranges.len() + 1) * 16).unwrap();
    bytes[64..68].copy_from_slice(&ranges_len.to_le_bytes());
    for (index, (start, end)) in ranges.iter().chain(&ends).enumerate() {
        bytes[PAGE_LEN + 16 * index..][..8].copy_from_slice(&start.to_le_bytes());
        bytes[PAGE_LEN + 16 * index + 8..][..8].copy_from_slice(&end.to_le_bytes());
    }
    bytes[2 * PAGE_LEN..][..8].copy_from_slice(&bitmap.to_le_bytes());
    for bit in (0..64).filter(|bit| bitmap >> bit & 1 == 1) {
        bytes.extend([bit; PAGE_LEN]);
    }
    bytes
}

#[test]
fn the_bits_count_the_pages_of_the_ranges() {
    let file = dump(&[(0x1000, 0x4000), (0x10_0000, 0x10_2000)], 0b1_1101);
    let core = Minidump::open(file.as_slice()).unwrap();
    let range = |gpa, pages| MemoryRange {
        gpa,
        len_bytes: pages * PAGE_LEN as u64,
    };
    assert_eq!(core.ranges(), [range(0x1000, 1), range(0x3000, 1), range(0x10_0000, 2)]);
    for (gpa, bit) in [(0x1000, 0), (0x3000, 2), (0x10_0000, 3), (0x10_1000, 4)] {
        let mut page = [0xff; PAGE_LEN];
        core.read(gpa, &mut page).unwrap();
        assert_eq!(page, [bit; PAGE_LEN], "{gpa:#x}");
    }
    assert!(core.read(0x2000, &mut [0; 8]).is_err(), "no bit, no page");
}

#[test]
fn ranges_that_overlap_or_descend_are_refused() {
    for ranges in [
        [(0x1000, 0x4000), (0x3000, 0x8000)],
        [(0x10_0000, 0x10_2000), (0x1000, 0x4000)],
        [(0, 0x1000), (0, 0x1000)],
    ] {
        let file = dump(&ranges, u64::MAX);
        let refused = Minidump::open(file.as_slice());
        assert!(
            matches!(
                refused,
                Err(MinidumpError::BadField {
                    field: "dump_avail",
                    ..
                })
            ),
            "{ranges:x?}"
        );
    }
}
