//! The search of memory for VMCOREINFO.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use vmcore::image::{Absent, CoreImage, FileBytes, PhysicalMemory as _};
use vmcore::linux::search;
use vmcore::reader::CoreNotes;
use vmcore::{CpuState, MemoryRange};

use crate::median::median;

/// Copied and searched at a time: far more than any cache has.
const LEN_BYTES_MAX: u64 = 512 << 20;

/// A file in the page cache.
struct Stored(File, u64);

impl FileBytes for Stored {
    fn len_bytes(&self) -> u64 {
        self.1
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        self.0.read_exact_at(bytes, file_offset).map_err(|_| Absent {
            at: file_offset,
            len_bytes: bytes.len(),
        })
    }
}

/// Searches the core's memory, from the file, and copies as much in memory.
pub(crate) fn run(stored: &Path, rounds: usize) -> Result<()> {
    let file = File::open(stored)?;
    let len = file.metadata()?.len();
    let image = CoreImage::open(Stored(file, len))?;
    let cpus = CoreNotes::parse(&image.notes)?.cpu_states();
    // Without processors nothing proves a copy beyond doubt, so that everything is searched.
    let everywhere: &[CpuState] = &[];
    let mut ranges: Vec<MemoryRange> = image.memory.ranges();
    for range in &mut ranges {
        range.len_bytes = range.len_bytes.min(LEN_BYTES_MAX / 2);
    }
    let bytes: u64 = ranges.iter().map(|range| range.len_bytes).sum();
    let mut from = vec![1_u8; usize::try_from(bytes)?];
    let mut to = vec![0_u8; from.len()];
    let mut at = 0;
    for range in &ranges {
        let len = usize::try_from(range.len_bytes)?;
        image.memory.read(range.gpa, &mut from[at..at + len])?;
        at += len;
    }
    let (mut copied, mut searched, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let start = Instant::now();
        black_box(&mut to).copy_from_slice(black_box(&from));
        let copy_s = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let found = search::vmcoreinfo(&image.memory, &ranges, everywhere);
        let search_s = start.elapsed().as_secs_f64();
        ensure!(found.is_some(), "no VMCOREINFO in the first {bytes} bytes");
        if round > 0 {
            copied.push(bytes as f64 / copy_s / 1e9);
            searched.push(bytes as f64 / search_s / 1e9);
            ratios.push(copy_s / search_s);
        }
    }
    let found = search::vmcoreinfo(&image.memory, &ranges, &cpus);
    ensure!(found.is_some(), "no VMCOREINFO that the processors map");
    println!("\n{} MiB of it searched for VMCOREINFO ({rounds} rounds)", bytes >> 20);
    println!("{:<40} {:>9.2} GB/s (median)", "memcpy", median(copied));
    println!("{:<40} {:>9.2} GB/s (median)", "search, by pread", median(searched));
    println!(
        "{:<40} {:>9.2} (median of the rounds)",
        "search / memcpy",
        median(ratios)
    );
    Ok(())
}
