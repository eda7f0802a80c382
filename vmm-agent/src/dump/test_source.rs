//! Memory for tests: two ranges with a hole between them, untouched parts, zero pages, and everything else random.

use std::sync::atomic::{AtomicUsize, Ordering};

use vmcore::elf::TextMapping;
use vmcore::{CpuState, MemoryRange};

use super::core_file::CoreFile;
use super::source::{DumpSource, SourceError};
use crate::kernel::KeptKernel;

const PAGE: usize = 4096;

/// Two ranges of RAM kept in vectors.
pub(crate) struct TestSource {
    ranges: Vec<MemoryRange>,
    memory: Vec<Vec<u8>>,
    cpus: Vec<CpuState>,
    /// Every read that touches this fails.
    pub(crate) unreadable_gpa: Option<u64>,
    /// What the core leaves out.
    pub(crate) excluded: Vec<MemoryRange>,
    /// Where the kernel's text is.
    pub(crate) text: Option<TextMapping>,
    /// What travels with the core.
    pub(crate) kernel: Option<KeptKernel>,
    untouched_reads: AtomicUsize,
}

impl TestSource {
    /// About 3 MiB with every kind of page.
    pub(crate) fn with_holes() -> Self {
        Self::of_len(2 << 20)
    }

    /// The low range has so many bytes, the high one half of it and one page.
    pub(crate) fn of_len(low_len: usize) -> Self {
        let (mut low, mut high) = (vec![0; low_len], vec![0; low_len / 2 + PAGE]);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for (index, page) in low.chunks_mut(PAGE).chain(high.chunks_mut(PAGE)).enumerate() {
            if is_untouched(index) || index % 7 == 3 {
                continue;
            }
            for word in page.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
        }
        let ranges = vec![
            MemoryRange {
                gpa: 0,
                len_bytes: low.len() as u64,
            },
            MemoryRange {
                gpa: 4 << 30,
                len_bytes: high.len() as u64,
            },
        ];
        let cpus = vec![CpuState::default(); 2];
        let untouched_reads = AtomicUsize::new(0);
        Self {
            ranges,
            memory: vec![low, high],
            cpus,
            unreadable_gpa: None,
            excluded: Vec::new(),
            text: None,
            kernel: None,
            untouched_reads,
        }
    }

    /// How often memory was read that `data_extents` did not name.
    pub(crate) fn untouched_reads(&self) -> usize {
        self.untouched_reads.load(Ordering::Relaxed)
    }

    /// Index of the range at `gpa`, and of the first page of it counted over all ranges.
    fn locate(&self, gpa: u64) -> (usize, usize) {
        let range = usize::from(gpa >= self.ranges[1].gpa);
        let first_page = if range == 1 { self.memory[0].len() / PAGE } else { 0 };
        (range, first_page)
    }
}

/// Sixteen of every 64 pages were never touched.
fn is_untouched(page: usize) -> bool {
    page % 64 >= 48
}

impl DumpSource for TestSource {
    fn ranges(&self) -> &[MemoryRange] {
        &self.ranges
    }

    fn data_extents(&self, range: MemoryRange) -> Result<Vec<MemoryRange>, SourceError> {
        let (index, first_page) = self.locate(range.gpa);
        let base = self.ranges[index].gpa;
        let mut extents: Vec<MemoryRange> = Vec::new();
        for gpa in (range.gpa..range.gpa + range.len_bytes).step_by(PAGE) {
            if is_untouched(first_page + ((gpa - base) as usize) / PAGE) {
                continue;
            }
            match extents.last_mut() {
                Some(last) if last.gpa + last.len_bytes == gpa => last.len_bytes += PAGE as u64,
                _ => extents.push(MemoryRange {
                    gpa,
                    len_bytes: PAGE as u64,
                }),
            }
        }
        Ok(extents)
    }

    fn read_at(&self, gpa: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        if self
            .unreadable_gpa
            .is_some_and(|bad| (gpa..gpa + buf.len() as u64).contains(&bad))
        {
            return Err(SourceError {
                gpa,
                len_bytes: buf.len() as u64,
                why: "bad memory".to_owned(),
            });
        }
        let (index, first_page) = self.locate(gpa);
        let start = (gpa - self.ranges[index].gpa) as usize;
        let pages = first_page + start / PAGE..first_page + (start + buf.len()).div_ceil(PAGE);
        if buf.len() <= super::limits::READ_LEN && pages.into_iter().any(is_untouched) {
            self.untouched_reads.fetch_add(1, Ordering::Relaxed);
        }
        buf.copy_from_slice(&self.memory[index][start..start + buf.len()]);
        Ok(())
    }

    fn cpu_states(&self) -> &[CpuState] {
        &self.cpus
    }

    fn excluded(&self) -> &[MemoryRange] {
        &self.excluded
    }

    fn text(&self) -> Option<TextMapping> {
        self.text
    }

    fn kernel(&self) -> Option<&KeptKernel> {
        self.kernel.as_ref()
    }
}

/// The file that the pieces make, and how many bytes were unreadable.
pub(crate) fn file_of(core: &CoreFile<'_>) -> (Vec<u8>, u64) {
    let mut file = vec![0; core.len_bytes() as usize];
    let mut pieces = core.pieces().unwrap();
    while let Some(piece) = pieces.next_piece().unwrap() {
        let start = piece.file_offset as usize;
        file[start..start + piece.bytes.len()].copy_from_slice(piece.bytes);
    }
    (file, pieces.unreadable_bytes())
}

/// The file that the pieces make.
pub(crate) fn whole_file(core: &CoreFile<'_>) -> Vec<u8> {
    file_of(core).0
}
