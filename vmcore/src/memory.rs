//! Ranges of guest physical memory.

/// One range of guest RAM, in guest physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryRange {
    /// First guest physical address; a multiple of the page length.
    pub gpa: u64,
    /// Length in bytes; a multiple of the page length, not zero.
    pub len_bytes: u64,
}

impl MemoryRange {
    /// The first address behind the range, or nothing if it would pass the end of the address space.
    #[must_use]
    pub const fn end(&self) -> Option<u64> {
        self.gpa.checked_add(self.len_bytes)
    }

    /// Does the range hold all of `len_bytes` bytes at `gpa`?
    #[must_use]
    pub fn contains(&self, gpa: u64, len_bytes: u64) -> bool {
        match (gpa.checked_add(len_bytes), self.end()) {
            (Some(wanted_end), Some(end)) => gpa >= self.gpa && wanted_end <= end,
            _ => false,
        }
    }
}
