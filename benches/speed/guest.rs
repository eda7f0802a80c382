//! Guests that stand still: memory of the kind that real ones have, filled by hand.

use anyhow::Result;
use vmcore::{CpuState, MemoryRange};
use vmm_agent::dump::{DumpSource, SourceError};
use vmm_agent::memory::{Bytes as _, GuestAddress, GuestMemory, MemoryError};

const PAGE_LEN: usize = vmcore::limits::PAGE_LEN_USIZE;

/// The memory of a machine that stands still.
#[derive(Debug)]
pub(crate) struct StillGuest {
    memory: GuestMemory,
    cpus: Vec<CpuState>,
}

impl StillGuest {
    /// Memory of `mem_mib`, of which `touched_mib` in runs of `run_pages` pages, evenly spread, hold bytes that are not zero.
    pub(crate) fn new(mem_mib: u64, touched_mib: u64, run_pages: u64) -> Result<Self> {
        let guest = Self {
            memory: GuestMemory::create(mem_mib)?,
            cpus: vec![CpuState::default(); 2],
        };
        let (all, wanted) = (mem_mib << 8, touched_mib << 8);
        let stride = (all / wanted).max(1) * run_pages;
        let mut page = vec![0; PAGE_LEN];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for index in 0..wanted {
            for word in page.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            let number = index / run_pages * stride + index % run_pages;
            if let Some(gpa) = guest.gpa_of(number * PAGE_LEN as u64) {
                guest.memory.ram().write_slice(&page, GuestAddress(gpa))?;
            }
        }
        Ok(guest)
    }

    /// Makes pages that hold only zeros: `count` of them, right behind every touched run.
    pub(crate) fn touch_zeros(&self, count: u64, every_pages: u64, from_page: u64) -> Result<()> {
        for index in 0..count {
            if let Some(gpa) = self.gpa_of((from_page + index * every_pages) * PAGE_LEN as u64) {
                self.memory.ram().write_slice(&[0; PAGE_LEN], GuestAddress(gpa))?;
            }
        }
        Ok(())
    }

    /// Bytes that the kernel has given pages to.
    pub(crate) fn touched_bytes(&self) -> Result<u64> {
        Ok(self.memory.allocated_bytes()?)
    }

    /// The memory.
    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Where the byte lies that has this number among all RAM.
    fn gpa_of(&self, mut number: u64) -> Option<u64> {
        for range in self.memory.ranges() {
            if number < range.len_bytes {
                return Some(range.gpa + number);
            }
            number -= range.len_bytes;
        }
        None
    }
}

impl DumpSource for StillGuest {
    fn ranges(&self) -> &[MemoryRange] {
        self.memory.ranges()
    }

    fn data_extents(&self, range: MemoryRange) -> Result<Vec<MemoryRange>, SourceError> {
        let failed = |error| source_error(range.gpa, range.len_bytes, &error);
        self.memory.data_extents(range).map_err(failed)
    }

    fn read_at(&self, gpa: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let len_bytes = buf.len() as u64;
        self.memory
            .read_at(gpa, buf)
            .map_err(|error| source_error(gpa, len_bytes, &error))
    }

    fn cpu_states(&self) -> &[CpuState] {
        &self.cpus
    }
}

fn source_error(gpa: u64, len_bytes: u64, error: &MemoryError) -> SourceError {
    SourceError {
        gpa,
        len_bytes,
        why: error.to_string(),
    }
}
