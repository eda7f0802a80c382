//! What a dump is made from: the memory and registers of a machine that stands still.

use vmcore::elf::TextMapping;
use vmcore::{CpuState, MemoryRange};

use crate::kernel::KeptKernel;

/// A machine that stands still: a frozen guest, a snapshot, or a test's bytes.
///
/// Everything must stay the same from the first call to the last; a dump may be read several times, once per attempt.
pub trait DumpSource: Sync {
    /// The ranges of RAM, ascending and disjoint, of whole pages.
    fn ranges(&self) -> &[MemoryRange];

    /// The parts of `range` (which lies within one range of RAM) that were ever touched, ascending, of whole pages.
    /// What lies between them reads as zero.
    ///
    /// # Errors
    /// [`SourceError`]; the caller then reads all of `range`.
    fn data_extents(&self, range: MemoryRange) -> Result<Vec<MemoryRange>, SourceError> {
        Ok(vec![range])
    }

    /// Fills `buf` with the memory at `gpa`.
    ///
    /// # Errors
    /// [`SourceError`]; the caller then leaves these pages out as unknown.
    fn read_at(&self, gpa: u64, buf: &mut [u8]) -> Result<(), SourceError>;

    /// Registers, in vCPU order.
    fn cpu_states(&self) -> &[CpuState];

    /// The VMCOREINFO text of a Linux guest, if it was found.
    fn vmcoreinfo(&self) -> Option<Vec<u8>> {
        None
    }

    /// Memory that the core shall leave out: whole pages within the ranges of RAM, ascending, disjoint, and no more runs than
    /// [`vmcore::elf::Layout::excluded_runs_max`]. It is not read.
    fn excluded(&self) -> &[MemoryRange] {
        &[]
    }

    /// The kernel's file, if it shall travel with the core.
    fn kernel(&self) -> Option<&KeptKernel> {
        None
    }

    /// Where the kernel's text is mapped, if that is known.
    fn text(&self) -> Option<TextMapping> {
        None
    }
}

/// Memory could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {len_bytes} bytes of guest memory at {gpa:#x}: {why}")]
pub struct SourceError {
    /// Where.
    pub gpa: u64,
    /// How much.
    pub len_bytes: u64,
    /// What the system said.
    pub why: String,
}
