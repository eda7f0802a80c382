//! Follows a vCPU's page tables (AMD64 APM volume 2, 5.3), in memory that a guest may have filled with anything.

use vmcore::CpuState;

use crate::memory::GuestMemory;

const CR4_LA57: u64 = 1 << 12;
pub(super) const PRESENT: u64 = 1;
pub(super) const LARGE: u64 = 1 << 7;
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// With page table isolation Linux keeps the tables of user mode, which lack most of the kernel, in the page behind the
/// kernel's own (arch/x86/include/asm/processor-flags.h, `PTI_PGTABLE_SWITCH_BIT` in arch/x86/entry/calling.h).
const USER_TABLES: u64 = 1 << 12;

/// Where `va` lies in memory by the tables that the vCPU uses, else by those that it would use in the kernel.
pub(super) fn translate(memory: &GuestMemory, cpu: &CpuState, va: u64) -> Option<u64> {
    let levels = if cpu.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
    let table = cpu.cr3 & ADDRESS;
    walk(memory, table, levels, va).or_else(|| walk(memory, table & !USER_TABLES, levels, va))
}

fn walk(memory: &GuestMemory, mut table: u64, levels: u32, va: u64) -> Option<u64> {
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let mut entry = [0; 8];
        memory.read_at(table + (va >> shift & 0x1ff) * 8, &mut entry).ok()?;
        let entry = u64::from_le_bytes(entry);
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || entry & LARGE != 0 && level <= 2 {
            let inside = (1 << shift) - 1;
            return Some(entry & ADDRESS & !inside | va & inside);
        }
        table = entry & ADDRESS;
    }
    None
}
