//! Page tables of x86-64 (AMD64 Architecture Programmer's Manual vol. 2, 5.3), in memory that a guest may have filled with
//! anything.

use crate::cpu::CpuState;
use crate::image::PhysicalMemory;

/// Table entry: present.
const PRESENT: u64 = 1;
/// Directory entry: it maps a large page itself.
const LARGE: u64 = 1 << 7;
/// The address in an entry: bits 12 to 51.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Control register 4: five levels.
const CR4_LA57: u64 = 1 << 12;
/// With page table isolation Linux keeps the tables of user mode, which lack most of the kernel, in the page behind the
/// kernel's own (`PTI_PGTABLE_SWITCH_BIT` in arch/x86/entry/calling.h).
const USER_TABLES: u64 = 1 << 12;

/// The tables that a processor uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageTables {
    /// Physical address of the top one.
    pub root_gpa: u64,
    /// 4 or 5.
    pub levels: u32,
    /// Bits of an entry that are no address: AMD's memory encryption bit.
    pub encryption_mask: u64,
}

impl PageTables {
    /// Those of a processor as it stands.
    #[must_use]
    pub const fn of_cpu(cpu: &CpuState) -> Self {
        Self {
            root_gpa: cpu.cr3 & ADDRESS,
            levels: if cpu.cr4 & CR4_LA57 != 0 { 5 } else { 4 },
            encryption_mask: 0,
        }
    }

    /// Those that a processor in user mode would change to on its way into the kernel, where page table isolation is on.
    #[must_use]
    pub const fn of_kernel(self) -> Self {
        Self {
            root_gpa: self.root_gpa & !USER_TABLES,
            ..self
        }
    }

    /// The physical address of `va`, and how many bytes from there on are mapped in one piece.
    pub fn translate<M: PhysicalMemory + ?Sized>(&self, memory: &M, va: u64) -> Option<(u64, u64)> {
        let mut table_gpa = self.root_gpa;
        for level in (0..self.levels).rev() {
            let shift = 12 + 9 * level;
            let entry = self.entry(memory, table_gpa, va >> shift & 0x1ff)?;
            // Only 2 MiB and 1 GiB pages exist besides those of the last level.
            if level == 0 || (level <= 2 && entry & LARGE != 0) {
                let len = 1_u64 << shift;
                let base = entry & ADDRESS & !(len - 1);
                return Some((base | (va % len), len - va % len));
            }
            table_gpa = entry & ADDRESS;
        }
        None
    }

    /// A present entry of a table.
    fn entry<M: PhysicalMemory + ?Sized>(&self, memory: &M, table_gpa: u64, index: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        memory.read(table_gpa.checked_add(index * 8)?, &mut bytes).ok()?;
        let entry = u64::from_le_bytes(bytes) & !self.encryption_mask;
        (entry & PRESENT != 0).then_some(entry)
    }
}

/// Where the processors map `va`. A processor in user mode may have tables without the kernel.
pub fn translations<'a, M: PhysicalMemory + ?Sized>(
    memory: &'a M,
    cpus: &'a [CpuState],
    va: u64,
) -> impl Iterator<Item = u64> + 'a {
    let both = cpus.iter().flat_map(|cpu| {
        let tables = PageTables::of_cpu(cpu);
        [tables, tables.of_kernel()]
    });
    both.filter_map(move |tables| Some(tables.translate(memory, va)?.0))
}
