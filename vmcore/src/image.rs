//! An ELF core as a whole: its head, its notes, and its memory by guest physical address.

use crate::bytes::slice;
use crate::dumpfile::Excluding;
use crate::elf::EHDR_LEN;
use crate::limits::{PAGE_LEN, READ_START_LEN_MAX};
use crate::memory::MemoryRange;
use crate::reader::{CoreHead, LoadSegment, ReadError};

/// Bytes of a file, as far as they are there.
pub trait FileBytes {
    /// Length of the file in bytes.
    fn len_bytes(&self) -> u64;

    /// Fills `bytes` from `file_offset` on.
    ///
    /// # Errors
    /// [`Absent`] if any of them is lost, left out, behind the end, or cannot be read.
    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent>;

    /// How many of the `len_bytes` from `file_offset` on are known to be there and zero without being read: a hole of a sparse
    /// file. 0 says nothing.
    fn hole_len_bytes(&self, file_offset: u64, len_bytes: u64) -> u64 {
        let _ = (file_offset, len_bytes);
        0
    }
}

/// Guest physical memory.
pub trait PhysicalMemory {
    /// Fills `bytes` from guest physical address `gpa` on.
    ///
    /// # Errors
    /// [`Absent`] if any of them is not RAM or is not in the core.
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent>;

    /// How many of the `len_bytes` from `gpa` on are known to be there and zero without being read. 0 says nothing.
    fn zero_len_bytes(&self, gpa: u64, len_bytes: u64) -> u64 {
        let _ = (gpa, len_bytes);
        0
    }
}

/// Bytes that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len_bytes} bytes at {at:#x} are not all in the core")]
pub struct Absent {
    /// Where: an address or a file offset, as the caller asked.
    pub at: u64,
    /// How many were asked for.
    pub len_bytes: usize,
}

/// Why a file cannot be used as a core.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Its beginning is not there.
    #[error("the beginning of the core: {0}")]
    Absent(#[from] Absent),
    /// It is no ELF core that can be read.
    #[error(transparent)]
    Head(#[from] ReadError),
}

/// An ELF core.
#[derive(Debug, Clone)]
pub struct CoreImage<F> {
    /// Its segments.
    pub head: CoreHead,
    /// The bytes of its notes, for [`crate::reader::CoreNotes::parse`].
    pub notes: Vec<u8>,
    /// Its memory.
    pub memory: CoreMemory<F>,
}

impl<F: FileBytes> CoreImage<F> {
    /// Reads head and notes of `file`.
    ///
    /// # Errors
    /// [`ImageError`] if it is no ELF core, or its head is not there.
    pub fn open(file: F) -> Result<Self, ImageError> {
        // No more than is needed: of a partial core the bytes behind the notes may be lost.
        let mut wanted = EHDR_LEN as u64;
        loop {
            let len = wanted.min(file.len_bytes());
            let mut start = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            file.read_at(0, &mut start)?;
            let read = CoreHead::parse(&start).and_then(|head| Ok((head.notes_in(&start)?.to_vec(), head)));
            match read {
                Err(ReadError::NeedMore { needed, .. })
                    if needed > len && (len == wanted && needed <= READ_START_LEN_MAX) =>
                {
                    wanted = needed;
                }
                Ok((notes, head)) => {
                    let memory = CoreMemory::new(file, &head.loads);
                    return Ok(Self { head, notes, memory });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The memory of an ELF core.
#[derive(Debug, Clone)]
pub struct CoreMemory<F> {
    file: F,
    /// By guest physical address.
    loads: Vec<LoadSegment>,
}

impl<F: FileBytes> CoreMemory<F> {
    /// The memory that `loads` describe, in `file`. A segment whose addresses pass the end of the address space is left out.
    pub fn new(file: F, loads: &[LoadSegment]) -> Self {
        let mut loads: Vec<LoadSegment> = loads
            .iter()
            .filter(|load| load.memory_len_bytes > 0 && load.gpa.checked_add(load.memory_len_bytes).is_some())
            .copied()
            .collect();
        // Of two segments with the same memory (gdb's view of kernel text) the longer one comes first.
        loads.sort_by_key(|load| (load.gpa, std::cmp::Reverse(load.memory_len_bytes)));
        Self { file, loads }
    }

    /// Length of the file.
    #[must_use]
    pub fn file_len_bytes(&self) -> u64 {
        self.file.len_bytes()
    }

    /// Reads what one segment has of `bytes` at `gpa`; how many bytes that were.
    fn read_part(&self, gpa: u64, bytes: &mut [u8]) -> Option<usize> {
        let load = self.load_of(gpa)?;
        let skipped = gpa - load.gpa;
        let wanted = bytes.len();
        let in_memory = usize_at_most(load.memory_len_bytes - skipped, wanted);
        let in_file = usize_at_most(load.file_len_bytes.saturating_sub(skipped), in_memory);
        let (stored, zero) = bytes.get_mut(..in_memory)?.split_at_mut(in_file);
        if !stored.is_empty() {
            let offset = load.file_offset.checked_add(skipped)?;
            self.file.read_at(offset, stored).ok()?;
        }
        // What the file lacks of a segment is zero (elf(5), p_memsz).
        zero.fill(0);
        Some(in_memory)
    }

    /// All memory that the segments describe, in whole pages, ascending and disjoint.
    #[must_use]
    pub fn ranges(&self) -> Vec<MemoryRange> {
        let mut ranges: Vec<MemoryRange> = Vec::new();
        for load in &self.loads {
            let start = load.gpa - load.gpa % PAGE_LEN;
            // What has no end in whole pages lies at the very end of the address space, where no RAM is.
            let Some(end) = (load.gpa + load.memory_len_bytes).checked_next_multiple_of(PAGE_LEN) else {
                continue;
            };
            match ranges.last_mut() {
                Some(last) if last.gpa + last.len_bytes >= start => {
                    last.len_bytes = last.len_bytes.max(end - last.gpa);
                }
                _ => ranges.push(MemoryRange {
                    gpa: start,
                    len_bytes: end - start,
                }),
            }
        }
        ranges
    }

    /// The segment that holds `gpa`. Segments may overlap, so more than one is tried, but a bounded number of them.
    fn load_of(&self, gpa: u64) -> Option<&LoadSegment> {
        const OVERLAPS_MAX: usize = 8;
        let behind = self.loads.partition_point(|load| load.gpa <= gpa);
        let before = self.loads.get(..behind)?;
        let mut candidates = before.iter().rev().take(OVERLAPS_MAX);
        candidates.find(|load| gpa - load.gpa < load.memory_len_bytes)
    }
}

impl<F> CoreMemory<Excluding<F>>
where
    F: FileBytes,
{
    /// Counts as memory what lies between two segments both in the file and in memory, and was left out: so stands memory that the
    /// writer left out in a core of ours.
    pub(crate) fn cover_excluded(&mut self) {
        let mut gaps = Vec::new();
        let mut last: Option<(u64, u64)> = None;
        for load in &self.loads {
            let (Some(end), Some(file_end)) = (
                load.gpa.checked_add(load.memory_len_bytes),
                load.file_offset.checked_add(load.memory_len_bytes),
            ) else {
                continue;
            };
            if let Some((gpa, file_offset)) = last
                && let (Some(len), Some(in_file)) =
                    (load.gpa.checked_sub(gpa), load.file_offset.checked_sub(file_offset))
                && len > 0
                && len == in_file
                && self.file.is_all_excluded(file_offset, len)
            {
                gaps.push(LoadSegment {
                    va: gpa,
                    gpa,
                    file_offset,
                    file_len_bytes: len,
                    memory_len_bytes: len,
                });
            }
            if last.is_none_or(|(gpa, _)| end > gpa) {
                last = Some((end, file_end));
            }
        }
        self.loads.append(&mut gaps);
        self.loads
            .sort_by_key(|load| (load.gpa, std::cmp::Reverse(load.memory_len_bytes)));
    }

    /// Whether anything was left out on purpose.
    pub(crate) const fn excludes_any(&self) -> bool {
        self.file.is_any()
    }

    /// Whether the page at `gpa` was left out on purpose.
    #[must_use]
    pub fn is_excluded(&self, gpa: u64) -> bool {
        let offset = self
            .load_of(gpa)
            .and_then(|load| load.file_offset.checked_add(gpa - load.gpa));
        offset.is_some_and(|offset| self.file.is_excluded(offset, PAGE_LEN))
    }
}

impl<F: FileBytes> PhysicalMemory for CoreMemory<F> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: gpa,
            len_bytes: bytes.len(),
        };
        let mut at = gpa;
        let mut rest = bytes;
        while !rest.is_empty() {
            let done = self.read_part(at, rest).ok_or(absent)?;
            rest = rest.get_mut(done..).ok_or(absent)?;
            at = at.checked_add(done as u64).ok_or(absent)?;
        }
        Ok(())
    }

    fn zero_len_bytes(&self, gpa: u64, len_bytes: u64) -> u64 {
        let zero = self.load_of(gpa).and_then(|load| {
            let skipped = gpa - load.gpa;
            let in_file = load.file_len_bytes.min(load.memory_len_bytes).saturating_sub(skipped);
            if in_file == 0 {
                // What the file lacks of a segment is zero (elf(5), p_memsz).
                return Some(len_bytes.min(load.memory_len_bytes - skipped));
            }
            let offset = load.file_offset.checked_add(skipped)?;
            Some(self.file.hole_len_bytes(offset, in_file.min(len_bytes)))
        });
        zero.unwrap_or(0)
    }
}

impl<M: PhysicalMemory + ?Sized> PhysicalMemory for &M {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        (**self).read(gpa, bytes)
    }

    fn zero_len_bytes(&self, gpa: u64, len_bytes: u64) -> u64 {
        (**self).zero_len_bytes(gpa, len_bytes)
    }
}

impl<F: FileBytes + ?Sized> FileBytes for &F {
    fn len_bytes(&self) -> u64 {
        (**self).len_bytes()
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        (**self).read_at(file_offset, bytes)
    }

    fn hole_len_bytes(&self, file_offset: u64, len_bytes: u64) -> u64 {
        (**self).hole_len_bytes(file_offset, len_bytes)
    }
}

/// A file in memory.
impl FileBytes for [u8] {
    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: file_offset,
            len_bytes: bytes.len(),
        };
        let at = usize::try_from(file_offset).map_err(|_| absent)?;
        bytes.copy_from_slice(slice(self, at, bytes.len()).ok_or(absent)?);
        Ok(())
    }
}

fn usize_at_most(value: u64, most: usize) -> usize {
    usize::try_from(value).map_or(most, |value| value.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(gpa: u64, file_offset: u64, file_len_bytes: u64, memory_len_bytes: u64) -> LoadSegment {
        LoadSegment {
            va: 0,
            gpa,
            file_offset,
            file_len_bytes,
            memory_len_bytes,
        }
    }

    #[test]
    fn a_core_whose_head_is_far_longer_than_most_is_opened() {
        let count = 2000_u16;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([4, 0, 62, 0, 1, 0, 0, 0]);
        file.extend([0; 8]);
        file.extend(64_u64.to_le_bytes());
        file.extend([0; 12]);
        for value in [64_u16, 56, count, 0, 0, 0] {
            file.extend(value.to_le_bytes());
        }
        for index in 0..u64::from(count) {
            file.extend(1_u32.to_le_bytes());
            file.extend(7_u32.to_le_bytes());
            for value in [0, 0, index << 12, 64, 4096, 0] {
                file.extend(u64::to_le_bytes(value));
            }
        }
        assert!(file.len() > 100_000);
        let image = CoreImage::open(file.as_slice()).unwrap();
        assert_eq!((image.head.loads.len(), image.notes.len()), (2000, 0));
        let mut magic = [0; 4];
        image.memory.read(1999 << 12, &mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        file.truncate(100_000);
        assert!(matches!(
            CoreImage::open(file.as_slice()),
            Err(ImageError::Head(ReadError::NeedMore { .. }))
        ));
        assert!(matches!(
            CoreImage::open([1; 100].as_slice()),
            Err(ImageError::Head(ReadError::NotACore))
        ));
    }

    #[test]
    fn memory_is_one_across_segments_and_zero_where_the_file_is_shorter() {
        let memory = CoreMemory::new(
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].as_slice(),
            &[load(0x1004, 8, 4, 4), load(0x1000, 0, 2, 4)],
        );
        let mut bytes = [0xff; 8];
        memory.read(0x1000, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 0, 0, 8, 9, 10, 11]);
        let known = [0x1000, 0x1002, 0x1003, 0x1004].map(|gpa| memory.zero_len_bytes(gpa, 8));
        assert_eq!(known, [0, 2, 1, 0]);
    }

    #[test]
    fn what_is_no_memory_is_absent() {
        let memory = CoreMemory::new(
            [1; 8].as_slice(),
            &[load(0x1000, 0, 8, 8), load(0x3000, 100, 8, 8), load(u64::MAX, 0, 8, 8)],
        );
        for (gpa, len) in [(0xfff, 2), (0x1007, 2), (0x3000, 1), (u64::MAX, 1), (u64::MAX - 1, 4)] {
            let absent = Absent {
                at: gpa,
                len_bytes: len,
            };
            assert_eq!(memory.read(gpa, &mut vec![0; len]), Err(absent));
        }
    }

    #[test]
    fn a_second_view_of_the_same_memory_does_no_harm() {
        let text = load(0x1000, 0, 4, 4);
        let memory = CoreMemory::new(
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].as_slice(),
            &[text, load(0x1000, 0, 16, 16), text],
        );
        let mut bytes = [0; 2];
        memory.read(0x1006, &mut bytes).unwrap();
        assert_eq!(bytes, [6, 7]);
    }
}
