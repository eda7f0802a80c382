//! A core's memory by guest physical address.

use crate::reader::LoadSegment;

/// Bytes of a file, as far as they are there.
pub trait FileBytes {
    /// Fills `bytes` from `file_offset` on.
    ///
    /// # Errors
    /// [`Absent`] if any of them is lost, left out, behind the end, or cannot be read.
    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent>;
}

/// Guest physical memory.
pub trait PhysicalMemory {
    /// Fills `bytes` from guest physical address `gpa` on.
    ///
    /// # Errors
    /// [`Absent`] if any of them is not RAM or is not in the core.
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent>;
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

    /// The segment that holds `gpa`. Segments may overlap, so more than one is tried, but a bounded number of them.
    fn load_of(&self, gpa: u64) -> Option<&LoadSegment> {
        const OVERLAPS_MAX: usize = 8;
        let behind = self.loads.partition_point(|load| load.gpa <= gpa);
        let before = self.loads.get(..behind)?;
        let mut candidates = before.iter().rev().take(OVERLAPS_MAX);
        candidates.find(|load| gpa - load.gpa < load.memory_len_bytes)
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
}

impl<M: PhysicalMemory + ?Sized> PhysicalMemory for &M {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        (**self).read(gpa, bytes)
    }
}

fn usize_at_most(value: u64, most: usize) -> usize {
    usize::try_from(value).map_or(most, |value| value.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl FileBytes for Vec<u8> {
        fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
            let at = usize::try_from(file_offset).unwrap();
            let found = self.get(at..at.saturating_add(bytes.len())).ok_or(Absent {
                at: file_offset,
                len_bytes: bytes.len(),
            })?;
            bytes.copy_from_slice(found);
            Ok(())
        }
    }

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
    fn memory_is_one_across_segments_and_zero_where_the_file_is_shorter() {
        let memory = CoreMemory::new(
            (0..16).collect::<Vec<u8>>(),
            &[load(0x1004, 8, 4, 4), load(0x1000, 0, 2, 4)],
        );
        let mut bytes = [0xff; 8];
        memory.read(0x1000, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 0, 0, 8, 9, 10, 11]);
    }

    #[test]
    fn what_is_no_memory_is_absent() {
        let memory = CoreMemory::new(
            vec![1; 8],
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
        let memory = CoreMemory::new((0..16).collect::<Vec<u8>>(), &[text, load(0x1000, 0, 16, 16), text]);
        let mut bytes = [0; 2];
        memory.read(0x1006, &mut bytes).unwrap();
        assert_eq!(bytes, [6, 7]);
    }
}
