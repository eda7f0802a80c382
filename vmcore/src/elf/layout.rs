//! Where memory stands in the file.

use super::{EHDR_LEN, PHDR_LEN};
use crate::limits::{
    COREFERRY_LEN_MAX, EXCLUDED_RUNS_WRITTEN_MAX, FILE_LEN_MAX, GPA_END_MAX, HEADER_ROOM_LEN, PAGE_LEN,
    PROGRAM_HEADERS_MAX, VMCOREINFO_LEN_MAX,
};
use crate::memory::MemoryRange;
use crate::notes::{NOTE_OVERHEAD_MAX, REGISTER_NOTES_LEN_PER_CPU};
use crate::trailer;

/// One range of guest memory and its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First guest physical address.
    pub gpa: u64,
    /// Where its first byte stands in the file; a multiple of the page length.
    pub file_offset: u64,
    /// Length in bytes, in memory and in the file.
    pub len_bytes: u64,
}

impl Segment {
    /// Its memory.
    #[must_use]
    pub const fn memory(&self) -> MemoryRange {
        MemoryRange {
            gpa: self.gpa,
            len_bytes: self.len_bytes,
        }
    }

    /// A part of it, which must lie within it.
    #[must_use]
    pub(super) const fn part(&self, part: &MemoryRange) -> Self {
        Self {
            gpa: part.gpa,
            file_offset: self.file_offset.saturating_add(part.gpa.saturating_sub(self.gpa)),
            len_bytes: part.len_bytes,
        }
    }
}

/// The plan of one vmcore: fixed by the RAM ranges and the number of vCPUs, before any register or page is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    segments: Vec<Segment>,
    vcpus: usize,
    memory_end: u64,
    kernel_len: u64,
    covered_end: u64,
    file_len: u64,
}

/// The ranges cannot become a vmcore.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No memory at all.
    #[error("no memory ranges given")]
    NoRanges,
    /// More ranges than program headers can be counted, with one for the notes and one for the text.
    #[error("{count} memory ranges given, at most {} fit an ELF header", PROGRAM_HEADERS_MAX - 2)]
    TooManyRanges {
        /// How many were given.
        count: usize,
    },
    /// A range is empty, not made of whole pages, or beyond the physical address space.
    #[error("memory range of {len_bytes:#x} bytes at {gpa:#x} is empty, not of whole pages or beyond {GPA_END_MAX:#x}")]
    BadRange {
        /// Start of the range.
        gpa: u64,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// A range starts before the end of the one before it.
    #[error("memory range at {gpa:#x} starts before {earlier_end:#x}, the end of the range before it")]
    Unsorted {
        /// Start of the later range.
        gpa: u64,
        /// End of the earlier one.
        earlier_end: u64,
    },
    /// Headers and notes could outgrow the header room.
    #[error(
        "{ranges} memory ranges and {vcpus} vCPUs need up to {len_bytes} bytes of the {HEADER_ROOM_LEN} for headers"
    )]
    RoomExceeded {
        /// Number of ranges.
        ranges: usize,
        /// Number of vCPUs.
        vcpus: usize,
        /// What headers and notes may need, in bytes.
        len_bytes: usize,
    },
    /// The file would be longer than [`FILE_LEN_MAX`].
    #[error("a vmcore of {len_bytes} bytes of memory and kernel is longer than {FILE_LEN_MAX} bytes")]
    FileTooLong {
        /// Memory and kernel in bytes.
        len_bytes: u64,
    },
}

impl Layout {
    /// Plans the file for these ranges, which must be ascending and disjoint. Adjacent ranges stay apart.
    ///
    /// # Errors
    /// [`LayoutError`] says which range or which bound.
    pub fn new(ranges: &[MemoryRange], vcpus: usize) -> Result<Self, LayoutError> {
        if ranges.is_empty() {
            return Err(LayoutError::NoRanges);
        }
        if ranges.len() > PROGRAM_HEADERS_MAX - 2 {
            return Err(LayoutError::TooManyRanges { count: ranges.len() });
        }
        let room_needed = room_needed_max(ranges.len(), vcpus);
        if room_needed as u64 > HEADER_ROOM_LEN {
            return Err(LayoutError::RoomExceeded {
                ranges: ranges.len(),
                vcpus,
                len_bytes: room_needed,
            });
        }
        let mut segments = Vec::with_capacity(ranges.len());
        let mut file_offset = HEADER_ROOM_LEN;
        let mut earlier_end = 0;
        for range in ranges {
            let end = checked_end(range)?;
            if range.gpa < earlier_end {
                return Err(LayoutError::Unsorted {
                    gpa: range.gpa,
                    earlier_end,
                });
            }
            segments.push(Segment {
                gpa: range.gpa,
                file_offset,
                len_bytes: range.len_bytes,
            });
            earlier_end = end;
            // Cannot overflow: disjoint ranges below 2^52 sum up to less than 2^52.
            file_offset += range.len_bytes;
        }
        let too_long = LayoutError::FileTooLong {
            len_bytes: file_offset - HEADER_ROOM_LEN,
        };
        let file_len = trailer::file_len(file_offset).ok_or(too_long)?;
        Ok(Self {
            segments,
            vcpus,
            memory_end: file_offset,
            kernel_len: 0,
            covered_end: file_offset,
            file_len,
        })
    }

    /// The same with a kernel's file of so many bytes behind the memory, in no segment; its last page is filled up with zeros.
    ///
    /// # Errors
    /// [`LayoutError::FileTooLong`].
    pub fn with_kernel(self, kernel_len: u64) -> Result<Self, LayoutError> {
        let too_long = LayoutError::FileTooLong {
            len_bytes: (self.memory_end - HEADER_ROOM_LEN).saturating_add(kernel_len),
        };
        let end = kernel_len
            .checked_next_multiple_of(PAGE_LEN)
            .and_then(|len| self.memory_end.checked_add(len));
        let Some((covered_end, file_len)) = end.and_then(|end| Some((end, trailer::file_len(end)?))) else {
            return Err(too_long);
        };
        Ok(Self {
            kernel_len,
            covered_end,
            file_len,
            ..self
        })
    }

    /// The memory in file order, which is address order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// How many vCPUs the header room was planned for.
    #[must_use]
    pub const fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// How many runs of left-out memory fit the header room besides everything else at its longest. A run takes one more
    /// segment of memory, and one more of the kernel's text where it lies within.
    #[must_use]
    pub fn excluded_runs_max(&self) -> usize {
        let room = usize::try_from(HEADER_ROOM_LEN).unwrap_or(usize::MAX);
        let rest = room.saturating_sub(room_needed_max(self.segments.len(), self.vcpus));
        (rest / (2 * PHDR_LEN)).min(EXCLUDED_RUNS_WRITTEN_MAX)
    }

    /// File offset behind the last page of memory, where the kernel's file begins if there is one.
    #[must_use]
    pub const fn memory_end(&self) -> u64 {
        self.memory_end
    }

    /// Length of the kernel's file in bytes, zero if there is none.
    #[must_use]
    pub const fn kernel_len(&self) -> u64 {
        self.kernel_len
    }

    /// File offset behind memory and kernel, where the trailer begins.
    #[must_use]
    pub const fn covered_end(&self) -> u64 {
        self.covered_end
    }

    /// Length of the whole file, trailer included: known before a page is read.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        self.file_len
    }

    /// File offset of a guest physical address, or nothing if it is not RAM.
    #[must_use]
    pub fn file_offset_of(&self, gpa: u64) -> Option<u64> {
        let after = self.segments.partition_point(|segment| segment.gpa <= gpa);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let within = gpa - segment.gpa;
        (within < segment.len_bytes).then(|| segment.file_offset + within)
    }

    /// Guest physical address of a file offset, or nothing outside of memory.
    #[must_use]
    pub fn gpa_of(&self, file_offset: u64) -> Option<u64> {
        let after = self
            .segments
            .partition_point(|segment| segment.file_offset <= file_offset);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let within = file_offset - segment.file_offset;
        (within < segment.len_bytes).then(|| segment.gpa + within)
    }
}

fn checked_end(range: &MemoryRange) -> Result<u64, LayoutError> {
    let whole_pages = range.gpa.is_multiple_of(PAGE_LEN) && range.len_bytes.is_multiple_of(PAGE_LEN);
    match range.end() {
        Some(end) if whole_pages && range.len_bytes != 0 && end <= GPA_END_MAX => Ok(end),
        _ => Err(LayoutError::BadRange {
            gpa: range.gpa,
            len_bytes: range.len_bytes,
        }),
    }
}

/// The most bytes that headers and notes can take: every note at its longest, and the extra text segment.
fn room_needed_max(ranges: usize, vcpus: usize) -> usize {
    let program_headers = PHDR_LEN * (ranges + 2);
    let text_notes = VMCOREINFO_LEN_MAX + COREFERRY_LEN_MAX + 2 * NOTE_OVERHEAD_MAX;
    vcpus
        .saturating_mul(REGISTER_NOTES_LEN_PER_CPU)
        .saturating_add(EHDR_LEN + program_headers + text_notes)
}
