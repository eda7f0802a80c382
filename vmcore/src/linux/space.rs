//! Kernel virtual addresses of a Linux guest, through its page tables.

use std::ops::Range;

use crate::bytes::slice;
use crate::image::{Absent, PhysicalMemory};
use crate::limits::PAGE_LEN;
use crate::linux::paging::PageTables;
use crate::linux::place::KernelPlace;
use crate::notes::vmcoreinfo;

/// Where Linux maps its own image (arch/x86/include/asm/page_64_types.h, `__START_KERNEL_map`).
pub const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// The image's part of the address space, in bytes (ibid., `KERNEL_IMAGE_SIZE` with KASLR).
pub const KERNEL_IMAGE_LEN: u64 = 1 << 30;

/// VMCOREINFO does not say where the page tables are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("VMCOREINFO has no usable {key}")]
pub struct SpaceError {
    /// The key that is missing or makes no sense.
    pub key: &'static str,
}

/// The kernel's address space.
#[derive(Debug, Clone)]
pub struct KernelSpace<M> {
    memory: M,
    tables: PageTables,
    /// Physical address of [`START_KERNEL_MAP`]; wraps for kernels that are loaded below their link address.
    phys_base: u64,
}

/// A copy of a piece of the address space, of which some may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    bytes: Vec<u8>,
    /// Places in `bytes` that could not be read, ascending.
    missing: Vec<Range<usize>>,
}

impl Copied {
    /// Length of the piece, missing parts included.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// `len` bytes from `at` on, if the piece has all of them.
    #[must_use]
    pub fn get(&self, at: usize, len: usize) -> Option<&[u8]> {
        let found = slice(&self.bytes, at, len)?;
        let first = self.missing.partition_point(|missing| missing.end <= at);
        let is_missing = self.missing.get(first).is_some_and(|missing| missing.start < at + len);
        (!is_missing).then_some(found)
    }
}

impl<M: PhysicalMemory> KernelSpace<M> {
    /// The address space that a VMCOREINFO text describes.
    ///
    /// # Errors
    /// [`SpaceError`] if it lacks `NUMBER(phys_base)` or the symbol of the top page table.
    pub fn new(memory: M, vmcoreinfo: &[u8]) -> Result<Self, SpaceError> {
        let missing = |key| move || SpaceError { key };
        let phys_base = vmcoreinfo::phys_base(vmcoreinfo).ok_or_else(missing("NUMBER(phys_base)"))?;
        let root_va = vmcoreinfo::symbol(vmcoreinfo, "init_top_pgt")
            .or_else(|| vmcoreinfo::symbol(vmcoreinfo, "swapper_pg_dir"))
            .or_else(|| vmcoreinfo::symbol(vmcoreinfo, "init_level4_pgt"))
            .ok_or_else(missing("SYMBOL(init_top_pgt)"))?;
        let has_level_5 = vmcoreinfo::value(vmcoreinfo, "NUMBER(pgtable_l5_enabled)") == Some("1");
        let encryption_mask = vmcoreinfo::value(vmcoreinfo, "NUMBER(sme_mask)").and_then(|mask| mask.parse().ok());
        let mut space = Self {
            memory,
            tables: PageTables {
                root_gpa: 0,
                levels: if has_level_5 { 5 } else { 4 },
                encryption_mask: encryption_mask.unwrap_or(0),
            },
            phys_base: phys_base.cast_unsigned(),
        };
        space.tables.root_gpa = space.image_gpa(root_va).ok_or_else(missing("SYMBOL(init_top_pgt)"))?;
        Ok(space)
    }

    /// The address space of a kernel whose place was found without VMCOREINFO.
    pub fn at(memory: M, place: &KernelPlace) -> Self {
        Self {
            memory,
            tables: place.tables,
            phys_base: place.phys_base,
        }
    }

    /// Fills `bytes` from kernel virtual address `va` on.
    ///
    /// # Errors
    /// [`Absent`] if any of them is not mapped or not in the core.
    pub fn read(&self, va: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: va,
            len_bytes: bytes.len(),
        };
        let mut at = Some(va);
        let mut rest = bytes;
        while !rest.is_empty() {
            let here = at.ok_or(absent)?;
            let (gpa, mapped) = self.translate(here).ok_or(absent)?;
            let now = usize::try_from(mapped).map_or(rest.len(), |mapped| mapped.min(rest.len()));
            let (part, later) = rest.split_at_mut_checked(now).ok_or(absent)?;
            self.memory.read(gpa, part).map_err(|_| absent)?;
            rest = later;
            at = here.checked_add(now as u64);
        }
        Ok(())
    }

    /// Copies `len_bytes` from `va` on, page by page if they are not all there: what is not mapped or not in the core is missing
    /// from the copy.
    ///
    /// # Errors
    /// [`Absent`] if none of them is there.
    pub fn copy(&self, va: u64, len_bytes: usize) -> Result<Copied, Absent> {
        let absent = Absent { at: va, len_bytes };
        let end = va.checked_add(len_bytes as u64).ok_or(absent)?;
        let mut copied = Copied {
            bytes: vec![0; len_bytes],
            missing: Vec::new(),
        };
        if self.read(va, &mut copied.bytes).is_ok() {
            return Ok(copied);
        }
        copied.bytes.fill(0);
        let mut at = va;
        while at < end {
            let next = (at - at % PAGE_LEN).saturating_add(PAGE_LEN).min(end);
            let place = offset_in(va, at)..offset_in(va, next);
            let part = copied.bytes.get_mut(place.clone()).ok_or(absent)?;
            if self.read(at, part).is_err() {
                match copied.missing.last_mut() {
                    Some(last) if last.end == place.start => last.end = place.end,
                    _ => copied.missing.push(place),
                }
            }
            at = next;
        }
        if len_bytes > 0 && copied.missing.first() == Some(&(0..len_bytes)) {
            return Err(absent);
        }
        Ok(copied)
    }

    /// A little-endian u64 at `va`.
    ///
    /// # Errors
    /// As [`KernelSpace::read`].
    pub fn read_u64(&self, va: u64) -> Result<u64, Absent> {
        let mut bytes = [0; 8];
        self.read(va, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A little-endian u32 at `va`.
    ///
    /// # Errors
    /// As [`KernelSpace::read`].
    pub fn read_u32(&self, va: u64) -> Result<u32, Absent> {
        let mut bytes = [0; 4];
        self.read(va, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The physical address of `va`, and how many bytes from there on are mapped in one piece.
    #[must_use]
    pub fn translate(&self, va: u64) -> Option<(u64, u64)> {
        if let Some(gpa) = self.image_gpa(va) {
            return Some((gpa, START_KERNEL_MAP + KERNEL_IMAGE_LEN - va));
        }
        self.tables.translate(&self.memory, va)
    }

    /// The physical address of a part of the kernel's image, which is mapped in one piece.
    fn image_gpa(&self, va: u64) -> Option<u64> {
        let offset = va.checked_sub(START_KERNEL_MAP)?;
        (offset < KERNEL_IMAGE_LEN).then(|| offset.wrapping_add(self.phys_base))
    }
}

/// How far `at` is behind `start`, which it never precedes.
fn offset_in(start: u64, at: u64) -> usize {
    usize::try_from(at - start).unwrap_or(usize::MAX)
}
