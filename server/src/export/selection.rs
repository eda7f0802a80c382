//! Which pages are exported.

use vmcore::kdump::PageBitmap;
use vmcore::limits::PAGE_LEN;

use super::{ExportError, Pages};
use crate::limits::EXPORT_GPA_END_MAX;

/// The pages of a core: those that were RAM, and those of them that are wanted.
#[derive(Debug, Clone)]
pub struct Selection {
    ram: PageBitmap,
    wanted: PageBitmap,
}

impl Selection {
    /// Everything that the core has not left out itself.
    ///
    /// # Errors
    /// [`ExportError::TooHigh`] or [`ExportError::TooMuch`] if it claims memory that it cannot have.
    pub fn of(core: &dyn Pages) -> Result<Self, ExportError> {
        let ranges = core.ranges();
        let ends = ranges.iter().map(|range| range.end().unwrap_or(u64::MAX));
        let end = ends.max().unwrap_or(0);
        if end > EXPORT_GPA_END_MAX {
            return Err(ExportError::TooHigh { end });
        }
        let (claimed, believed) = (
            ranges.iter().map(|range| range.len_bytes).sum(),
            core.memory_max_bytes(),
        );
        if claimed > believed {
            return Err(ExportError::TooMuch { claimed, believed });
        }
        let mut ram = PageBitmap::new(end / PAGE_LEN);
        for range in &ranges {
            ram.insert(range.gpa / PAGE_LEN, range.len_bytes / PAGE_LEN);
        }
        let mut wanted = ram.clone();
        if core.excludes_any() {
            let frames = |range: &vmcore::MemoryRange| range.gpa / PAGE_LEN..(range.gpa + range.len_bytes) / PAGE_LEN;
            for frame in ranges.iter().flat_map(frames) {
                if core.is_excluded(frame * PAGE_LEN) {
                    wanted.remove(frame, 1);
                }
            }
        }
        Ok(Self { ram, wanted })
    }

    /// Leaves these frames out too.
    pub fn exclude(&mut self, first: u64, count: u64) {
        self.wanted.remove(first, count);
    }

    /// Pages that were RAM.
    #[must_use]
    pub const fn ram(&self) -> &PageBitmap {
        &self.ram
    }

    /// Pages that are exported, as far as they can be read.
    #[must_use]
    pub const fn wanted(&self) -> &PageBitmap {
        &self.wanted
    }

    /// Pages that are left out.
    #[must_use]
    pub fn excluded_pages(&self) -> u64 {
        self.ram.count() - self.wanted.count()
    }
}
