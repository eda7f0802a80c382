//! The page tables and the descriptor table that plain guests start with.
use crate::kvm::LongModeEntry;
use crate::memory::{Bytes, GuestAddress, GuestMemoryError, GuestRam};

/// Descriptor table: four entries of 8 bytes.
const GDT_GPA: u64 = 0x500;
/// Selectors of the 64-bit code segment and of the data segment in plain guests.
pub(super) const PLAIN_SELECTORS: (u16, u16) = (0x08, 0x10);
/// Top page table.
const TOP_GPA: u64 = 0x9000;
/// Second level, one entry for each GiB.
const GIB_GPA: u64 = 0xa000;
/// Third level, one page for each GiB, 2 MiB each entry.
const PAGES_GPA: u64 = 0x1_0000;
/// Most memory that is mapped, so that the tables end below 0x50000.
const MAPPED_MAX_GIB: u64 = 64;
/// All below 4 GiB is mapped, devices as well.
const MAPPED_MIN_GIB: u64 = 4;

// AMD64 APM volume 2, 5.3: page-translation table entries.
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;

const GIB: u64 = 1 << 30;

/// Flat 64-bit code: present, code, readable, long (AMD64 APM volume 2, 4.8.1).
const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
/// Flat data: present, writable.
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;

/// Writes the tables for RAM that ends at `ram_end`, with the code and data segments at `selectors` (multiples of 8, below
/// 0x20); the result lacks only the first instruction and the arguments.
pub(super) fn write(ram: &GuestRam, ram_end: u64, selectors: (u16, u16)) -> Result<LongModeEntry, GuestMemoryError> {
    let gibs = ram_end.div_ceil(GIB).clamp(MAPPED_MIN_GIB, MAPPED_MAX_GIB);
    let table = PRESENT | WRITABLE | USER;
    ram.write_obj((GIB_GPA | table).to_le(), GuestAddress(TOP_GPA))?;
    for gib in 0..gibs {
        let pages_gpa = PAGES_GPA + gib * 4096;
        ram.write_obj((pages_gpa | table).to_le(), GuestAddress(GIB_GPA + gib * 8))?;
        let page = |index: u64| (gib * GIB + index * (2 << 20)) | table | LARGE;
        let entries: Vec<u8> = (0..512).flat_map(|index| page(index).to_le_bytes()).collect();
        ram.write_slice(&entries, GuestAddress(pages_gpa))?;
    }
    let mut descriptors = [0_u64; 4];
    for (selector, descriptor) in [(selectors.0, CODE_DESCRIPTOR), (selectors.1, DATA_DESCRIPTOR)] {
        if let Some(slot) = descriptors.get_mut(usize::from(selector / 8)) {
            *slot = descriptor;
        }
    }
    ram.write_slice(&descriptors.map(u64::to_le_bytes).concat(), GuestAddress(GDT_GPA))?;
    Ok(LongModeEntry {
        rip: 0,
        rdi: 0,
        rsi: 0,
        page_table_gpa: TOP_GPA,
        gdt_gpa: GDT_GPA,
        gdt_limit: 4 * 8 - 1,
        code_selector: selectors.0,
        data_selector: selectors.1,
    })
}
