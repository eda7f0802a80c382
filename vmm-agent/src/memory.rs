//! Guest memory: one memfd, mapped once, with the hole for devices below 4 GiB. The one place that names vm-memory.
//!
//! Reading a page that the guest never touched through the mapping would make the kernel give it a page; so whoever
//! reads for a dump uses [`GuestMemory::read_at`], which reads the memfd and leaves its holes as they are.
#![allow(unsafe_code, reason = "madvise on our own mapping")]
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SeekFrom};
use vm_memory::bitmap::AtomicBitmap;
pub use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion};
use vm_memory::{FileOffset, GuestMemoryMmap};
use vmcore::MemoryRange;
use vmcore::image::{Absent, PhysicalMemory};

use crate::limits::{LOW_RAM_MAX_BYTES, MEM_MIB_MAX};

/// The mapping of guest RAM with its dirty bitmap.
pub type GuestRam = GuestMemoryMmap<AtomicBitmap>;

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;
/// Where RAM goes on that has no room below the device hole.
const HIGH_RAM_GPA: u64 = 4 << 30;

/// The RAM of one incarnation of a guest.
#[derive(Debug)]
pub struct GuestMemory {
    ram: GuestRam,
    memfd: Arc<File>,
    ranges: Vec<MemoryRange>,
}

/// Guest memory could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A size outside the bounds.
    #[error("{mem_mib} MiB of guest memory: must be from 1 to {MEM_MIB_MAX} MiB")]
    Size {
        /// What was asked for.
        mem_mib: u64,
    },
    /// The kernel did not give a memfd of that size.
    #[error("cannot make a memfd of {mem_mib} MiB for guest memory")]
    Memfd {
        /// What was asked for.
        mem_mib: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The memfd could not be mapped.
    #[error("cannot map {mem_mib} MiB of guest memory; is there a limit on the address space (ulimit -v)?")]
    Map {
        /// What was asked for.
        mem_mib: u64,
        /// Why.
        #[source]
        source: vm_memory::mmap::FromRangesError,
    },
    /// `madvise` or `prctl` failed.
    #[error("cannot keep guest memory out of core dumps of this process ({call})")]
    Protect {
        /// The system call.
        call: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A read outside RAM.
    #[error("{len_bytes} bytes at guest address {gpa:#x} are not all RAM")]
    NotRam {
        /// Where.
        gpa: u64,
        /// How much.
        len_bytes: u64,
    },
    /// The memfd could not be read.
    #[error("cannot read {len_bytes} bytes of guest memory at {gpa:#x}")]
    Read {
        /// Where.
        gpa: u64,
        /// How much.
        len_bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl GuestMemory {
    /// Makes `mem_mib` MiB of zero memory. Nothing is allocated until it is touched.
    ///
    /// # Errors
    /// [`MemoryError`] if the size is out of bounds or the kernel refuses.
    pub fn create(mem_mib: u64) -> Result<GuestMemory, MemoryError> {
        if mem_mib == 0 || mem_mib > MEM_MIB_MAX {
            return Err(MemoryError::Size { mem_mib });
        }
        let len_bytes = mem_mib * MIB;
        let memfd = memfd_of(len_bytes).map_err(|source| MemoryError::Memfd { mem_mib, source })?;
        let memfd = Arc::new(memfd);
        let ranges = ranges_for(len_bytes);
        let mut file_offset = 0;
        let mut regions = Vec::new();
        for range in &ranges {
            let len = usize::try_from(range.len_bytes).map_err(|_| MemoryError::Size { mem_mib })?;
            let file = FileOffset::from_arc(Arc::clone(&memfd), file_offset);
            regions.push((GuestAddress(range.gpa), len, Some(file)));
            file_offset += range.len_bytes;
        }
        let ram = GuestRam::from_ranges_with_files(regions).map_err(|source| MemoryError::Map { mem_mib, source })?;
        let memory = GuestMemory { ram, memfd, ranges };
        memory.keep_out_of_core_dumps()?;
        Ok(memory)
    }

    /// The mapping, for devices and loaders.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// The ranges of RAM, lowest first.
    #[must_use]
    pub fn ranges(&self) -> &[MemoryRange] {
        &self.ranges
    }

    /// All RAM in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.len_bytes).sum()
    }

    /// The memfd that holds the RAM: the ranges one after the other.
    #[must_use]
    pub fn memfd(&self) -> &Arc<File> {
        &self.memfd
    }

    /// Bytes of RAM that the kernel has given pages to (`st_blocks`, stat(2)).
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.memfd.metadata()?.blocks() * 512)
    }

    /// Where `len_bytes` bytes of RAM at `gpa` lie in the memfd, if they are RAM and in one range.
    #[must_use]
    pub fn memfd_offset(&self, gpa: u64, len_bytes: u64) -> Option<u64> {
        let mut base = 0;
        for range in &self.ranges {
            if let Some(inside) = gpa.checked_sub(range.gpa)
                && inside.checked_add(len_bytes).is_some_and(|end| end <= range.len_bytes)
            {
                return Some(base + inside);
            }
            base += range.len_bytes;
        }
        None
    }

    /// Reads RAM without giving pages to what the guest never touched.
    ///
    /// # Errors
    /// [`MemoryError::NotRam`] and [`MemoryError::Read`].
    pub fn read_at(&self, gpa: u64, buf: &mut [u8]) -> Result<(), MemoryError> {
        let len_bytes = buf.len() as u64;
        let offset = self
            .memfd_offset(gpa, len_bytes)
            .ok_or(MemoryError::NotRam { gpa, len_bytes })?;
        self.memfd
            .read_exact_at(buf, offset)
            .map_err(|source| MemoryError::Read { gpa, len_bytes, source })
    }

    /// The parts of `range` that have pages (`SEEK_DATA`, lseek(2)); all the rest was never touched and is zero.
    ///
    /// # Errors
    /// [`MemoryError::NotRam`] and [`MemoryError::Read`].
    pub fn data_extents(&self, range: MemoryRange) -> Result<Vec<MemoryRange>, MemoryError> {
        let MemoryRange { gpa, len_bytes } = range;
        let start = self
            .memfd_offset(gpa, len_bytes)
            .ok_or(MemoryError::NotRam { gpa, len_bytes })?;
        let end = start + len_bytes;
        let read_error = |source: rustix::io::Errno| MemoryError::Read {
            gpa,
            len_bytes,
            source: source.into(),
        };
        let mut extents = Vec::new();
        let mut at = start;
        while at < end {
            let data = match rustix::fs::seek(&*self.memfd, SeekFrom::Data(at)) {
                Ok(data) if data < end => data,
                Ok(_) | Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(read_error(error)),
            };
            let hole = rustix::fs::seek(&*self.memfd, SeekFrom::Hole(data))
                .map_err(read_error)?
                .min(end);
            extents.push(MemoryRange {
                gpa: gpa + (data - start),
                len_bytes: hole - data,
            });
            at = hole;
        }
        Ok(extents)
    }

    fn keep_out_of_core_dumps(&self) -> Result<(), MemoryError> {
        for region in self.ram.iter() {
            let start = region.as_ptr();
            // SAFETY: start and size are those of a mapping that this region owns; MADV_DONTDUMP changes no contents.
            let result = unsafe { libc::madvise(start.cast(), region.size(), libc::MADV_DONTDUMP) };
            if result != 0 {
                return Err(MemoryError::Protect {
                    call: "madvise",
                    source: io::Error::last_os_error(),
                });
            }
        }
        Ok(())
    }
}

/// As a core's memory is read; what was never touched is zero.
impl PhysicalMemory for GuestMemory {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: gpa,
            len_bytes: bytes.len(),
        };
        self.read_at(gpa, bytes).map_err(|_| absent)
    }

    fn zero_len_bytes(&self, gpa: u64, len_bytes: u64) -> u64 {
        let Some(start) = self.memfd_offset(gpa, len_bytes) else {
            return 0;
        };
        match rustix::fs::seek(&*self.memfd, SeekFrom::Data(start)) {
            Ok(data) => data.saturating_sub(start).min(len_bytes),
            Err(rustix::io::Errno::NXIO) => len_bytes,
            Err(_) => 0,
        }
    }
}

/// Marks this process as not dumpable (`PR_SET_DUMPABLE`, prctl(2)): a crash collector must not take the guest's memory,
/// and no other process of the user may read it.
///
/// # Errors
/// [`MemoryError::Protect`].
pub fn deny_core_dumps() -> Result<(), MemoryError> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(|error| {
        MemoryError::Protect {
            call: "prctl",
            source: error.into(),
        }
    })
}

fn ranges_for(len_bytes: u64) -> Vec<MemoryRange> {
    let low = len_bytes.min(LOW_RAM_MAX_BYTES);
    let mut ranges = vec![MemoryRange { gpa: 0, len_bytes: low }];
    if len_bytes > low {
        ranges.push(MemoryRange {
            gpa: HIGH_RAM_GPA,
            len_bytes: len_bytes - low,
        });
    }
    ranges
}

fn memfd_of(len_bytes: u64) -> io::Result<File> {
    let memfd = File::from(rustix::fs::memfd_create("coreferry-guest-ram", MemfdFlags::CLOEXEC)?);
    memfd.set_len(len_bytes)?;
    Ok(memfd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_memory_is_one_range_from_zero() {
        let memory = GuestMemory::create(8).unwrap();
        assert_eq!(
            memory.ranges(),
            [MemoryRange {
                gpa: 0,
                len_bytes: 8 << 20
            }]
        );
        assert_eq!(memory.allocated_bytes().unwrap(), 0);
    }

    #[test]
    fn memory_above_three_gib_goes_on_at_four_gib() {
        let memory = GuestMemory::create(5 << 10).unwrap();
        let expected = [
            MemoryRange {
                gpa: 0,
                len_bytes: 3 << 30,
            },
            MemoryRange {
                gpa: 4 << 30,
                len_bytes: 2 << 30,
            },
        ];
        assert_eq!(memory.ranges(), expected);
        assert_eq!(memory.memfd_offset(4 << 30, 1), Some(3 << 30));
        assert_eq!(memory.memfd_offset((3 << 30) - 1, 2), None);
        assert_eq!(memory.memfd_offset(u64::MAX, 2), None);
    }

    #[test]
    fn no_memory_and_too_much_memory_are_refused_with_the_bounds() {
        for mem_mib in [0, MEM_MIB_MAX + 1, u64::MAX] {
            let text = GuestMemory::create(mem_mib).unwrap_err().to_string();
            assert!(
                text.contains(&format!("{mem_mib} MiB")) && text.contains("from 1 to"),
                "{text}"
            );
        }
    }

    #[test]
    fn reading_what_was_never_touched_allocates_nothing() {
        let memory = GuestMemory::create(64).unwrap();
        let mut buf = vec![1; 1 << 20];
        memory.read_at(0x10_0000, &mut buf).unwrap();
        assert!(buf.iter().all(|byte| *byte == 0));
        assert_eq!(memory.allocated_bytes().unwrap(), 0);
    }

    #[test]
    fn writes_through_the_mapping_show_as_data_extents() {
        let memory = GuestMemory::create(5 << 10).unwrap();
        memory.ram().write_slice(&[1; 100], GuestAddress(0x10_0ff0)).unwrap();
        memory.ram().write_slice(&[2; 8], GuestAddress(4 << 30)).unwrap();
        let [low, high] = memory.ranges().try_into().unwrap();
        assert_eq!(
            memory.data_extents(low).unwrap(),
            [MemoryRange {
                gpa: 0x10_0000,
                len_bytes: 0x2000
            }]
        );
        assert_eq!(
            memory.data_extents(high).unwrap(),
            [MemoryRange {
                gpa: 4 << 30,
                len_bytes: 0x1000
            }]
        );
        assert_eq!(memory.allocated_bytes().unwrap(), 3 * 4096);
        let mut buf = [0; 100];
        memory.read_at(0x10_0ff0, &mut buf).unwrap();
        assert_eq!(buf, [1; 100]);
    }
}
