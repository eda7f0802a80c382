//! Page filtering on the host: what a level leaves out of the core, by the guest's own page structures.
//!
//! They are the guest's and may be hostile: each is looked at once, and at worst the guest spoils its own core.

use vmcore::MemoryRange;
use vmcore::elf::Layout;
use vmcore::image::{Absent, PhysicalMemory};
use vmcore::kdump::PageBitmap;
use vmcore::limits::PAGE_LEN;
use vmcore::linux::KernelSpace;
use vmcore::linux::filter::{FilterError, FilterLevel, filter, longest_runs};

use super::source::DumpSource;

/// What a filter found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilteredMemory {
    /// Memory that is left out, ascending.
    pub excluded: Vec<MemoryRange>,
    /// Pages that the level would leave out too, but that lie too scattered.
    pub scattered_pages: u64,
    /// Pages of which it is not known what they are used for; they are kept.
    pub unknown_pages: u64,
}

impl FilteredMemory {
    /// How many pages are left out.
    #[must_use]
    pub fn excluded_pages(&self) -> u64 {
        self.excluded.iter().map(|run| run.len_bytes / PAGE_LEN).sum()
    }
}

/// Why nothing is left out.
#[derive(Debug, thiserror::Error)]
pub enum FilterFailure {
    /// The guest says nothing about itself.
    #[error("the guest has no VMCOREINFO, which says what its pages are")]
    NoVmcoreinfo,
    /// Its page tables cannot be found.
    #[error(transparent)]
    Space(#[from] vmcore::linux::SpaceError),
    /// Its page structures cannot be found.
    #[error(transparent)]
    Pages(#[from] FilterError),
    /// The core cannot be planned at all.
    #[error(transparent)]
    Layout(#[from] vmcore::elf::LayoutError),
}

/// Finds what `level` leaves out of the core of `source`. Zero pages never take room in it, so that their level finds nothing.
///
/// # Errors
/// [`FilterFailure`]; the core is then to be made without a filter.
pub fn filtered_memory(source: &dyn DumpSource, level: FilterLevel) -> Result<FilteredMemory, FilterFailure> {
    if !level.needs_kernel() {
        return Ok(FilteredMemory::default());
    }
    let text = source.vmcoreinfo().ok_or(FilterFailure::NoVmcoreinfo)?;
    let ram = source.ranges();
    let runs_max = Layout::new(ram, source.cpu_states().len())?.excluded_runs_max();
    let space = KernelSpace::new(Memory(source), &text)?;
    let frames = ram.iter().filter_map(MemoryRange::end).max().unwrap_or(0) / PAGE_LEN;
    let mut wanted_out = PageBitmap::new(frames);
    let filtered = filter(&space, &text, level, frames, &mut |first, count| {
        wanted_out.insert(first, count);
    })?;
    let mut found = FilteredMemory {
        excluded: longest_runs(&wanted_out, ram, runs_max),
        scattered_pages: 0,
        unknown_pages: filtered.unknown,
    };
    let in_ram = |range: &MemoryRange| {
        let end = (range.gpa + range.len_bytes) / PAGE_LEN;
        wanted_out.count_between(range.gpa / PAGE_LEN, end)
    };
    found.scattered_pages = ram
        .iter()
        .map(in_ram)
        .sum::<u64>()
        .saturating_sub(found.excluded_pages());
    Ok(found)
}

/// A source as the kernel's address space reads it: only what is RAM.
struct Memory<'s>(&'s dyn DumpSource);

impl PhysicalMemory for Memory<'_> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: gpa,
            len_bytes: bytes.len(),
        };
        let is_ram = |range: &MemoryRange| range.contains(gpa, bytes.len() as u64);
        if !self.0.ranges().iter().any(is_ram) {
            return Err(absent);
        }
        self.0.read_at(gpa, bytes).map_err(|_| absent)
    }
}
