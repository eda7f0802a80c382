//! Sparse memory: a table of sections, each with an array of `struct page` (include/linux/mmzone.h).

use super::{FilterError, bounded};
use crate::image::PhysicalMemory;
use crate::limits::PAGE_LEN;
use crate::linux::space::KernelSpace;
use crate::notes::vmcoreinfo;

/// The section is there, and has structures (`SECTION_MARKED_PRESENT`, `SECTION_HAS_MEM_MAP`).
const PRESENT: u64 = 3;
/// Bits of `section_mem_map` that are flags: as many as the alignment of the array allows (`SECTION_MAP_LAST_BIT`, which has grown
/// over the years; arrays are aligned to pages).
const FLAGS: u64 = 0x3f;

/// The table.
#[derive(Debug)]
pub(super) struct Sections {
    /// Virtual address of the table of roots.
    roots_va: u64,
    roots: u64,
    per_root: u64,
    entry_len: u64,
    map_offset: u64,
    page_shift: u64,
}

impl Sections {
    /// The table that VMCOREINFO describes (`CONFIG_SPARSEMEM_EXTREME`, which x86-64 always has).
    pub(super) fn described<M: PhysicalMemory>(space: &KernelSpace<M>, text: &[u8]) -> Result<Self, FilterError> {
        let missing = || FilterError::NotDescribed {
            key: "SYMBOL(mem_section)".to_owned(),
        };
        let symbol_va = vmcoreinfo::symbol(text, "mem_section").ok_or_else(missing)?;
        let entry_len = bounded(text, "SIZE(mem_section)", 8, 256)?;
        let section_bits = bounded(text, "NUMBER(SECTION_SIZE_BITS)", 24, 34)?;
        let table = Self {
            roots_va: symbol_va,
            roots: bounded(text, "LENGTH(mem_section)", 1, 1 << 20)?,
            per_root: PAGE_LEN / entry_len,
            entry_len,
            map_offset: bounded(text, "OFFSET(mem_section.section_mem_map)", 0, 248)?,
            page_shift: section_bits - 12,
        };
        if table.is_sound(space) {
            return Ok(table);
        }
        // Where the symbol is a pointer to the table (since Linux 4.15), VMCOREINFO has its value; of some kernels it has the
        // pointer's own address.
        let pointed = space.read_u64(symbol_va).map(|roots_va| Self { roots_va, ..table });
        match pointed {
            Ok(table) if table.is_sound(space) => Ok(table),
            _ => Err(FilterError::NoSections { va: symbol_va }),
        }
    }

    /// Pages of a section.
    pub(super) const fn pages(&self) -> u64 {
        1 << self.page_shift
    }

    /// Whether the first section has structures that can be read, as it always has: the first megabyte lies there.
    fn is_sound<M: PhysicalMemory>(&self, space: &KernelSpace<M>) -> bool {
        let structures = self.structures(space, 0, 0);
        structures.is_some_and(|va| space.read_u64(va).is_ok())
    }

    /// `section_mem_map` of a section that has structures.
    fn map<M: PhysicalMemory>(&self, space: &KernelSpace<M>, section: u64) -> Option<u64> {
        let root = section / self.per_root;
        if root >= self.roots {
            return None;
        }
        let root_va = space.read_u64(self.roots_va.checked_add(root * 8)?).ok()?;
        let entry = section % self.per_root * self.entry_len + self.map_offset;
        let map = space.read_u64(root_va.checked_add(entry)?).ok()?;
        (map & PRESENT == PRESENT).then_some(map)
    }

    /// Virtual address of the structure of a section's first page.
    pub(super) fn structures<M: PhysicalMemory>(
        &self,
        space: &KernelSpace<M>,
        section: u64,
        page_len: usize,
    ) -> Option<u64> {
        let map = self.map(space, section)? & !FLAGS;
        // The pointer is coded so that a frame's number is its index.
        let first = section.checked_mul(self.pages())?.checked_mul(page_len as u64)?;
        Some(map.wrapping_add(first))
    }
}
