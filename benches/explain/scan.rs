//! The search of memory for VMCOREINFO, beside a copy of as much memory and a plain search for the name.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use memchr::memmem;
use vmcore::image::{Absent, CoreImage, FileBytes, PhysicalMemory as _};
use vmcore::linux::search;
use vmcore::notes::vmcoreinfo;
use vmcore::reader::CoreNotes;
use vmcore::{CpuState, MemoryRange};

use crate::median::median;

/// Copied and searched at a time: far more than any cache has.
const LEN_BYTES_MAX: u64 = 512 << 20;

/// Read at a time, as the search does.
const PIECE_LEN: usize = 256 << 10;

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
    let own = search::vmcoreinfo(&image.memory, &ranges, &cpus).context("no VMCOREINFO that the processors map")?;
    for range in &mut ranges {
        // Where KASLR put the kernel's own copy is in it.
        let len_bytes = range.len_bytes.min(LEN_BYTES_MAX / 2);
        if range.contains(own.gpa, vmcore::PAGE_LEN) {
            let end = (own.gpa + 1)
                .next_multiple_of(len_bytes)
                .min(range.gpa + range.len_bytes);
            range.gpa = (end - len_bytes).max(range.gpa);
        }
        range.len_bytes = len_bytes;
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
    let [mut copied, mut named, mut read, mut searched] = [const { Vec::new() }; 4];
    let mut piece = vec![0; PIECE_LEN];
    for round in 0..=rounds {
        let copy_s = timed(|| black_box(&mut to).copy_from_slice(black_box(&from)));
        let mut names = 0;
        let name_s = timed(|| names = memmem::find_iter(black_box(&from), vmcoreinfo::NAME).count());
        let mut names_read = 0;
        let read_s = timed(|| {
            for gpa in ranges.iter().flat_map(pieces) {
                if image.memory.read(gpa, &mut piece).is_ok() {
                    names_read += memmem::find_iter(&piece, vmcoreinfo::NAME).count();
                }
            }
        });
        let mut found = None;
        let search_s = timed(|| found = search::vmcoreinfo(&image.memory, &ranges, everywhere));
        ensure!(
            names > 0 && names_read > 0 && found.is_some(),
            "no VMCOREINFO in the first {bytes} bytes"
        );
        if round > 0 {
            copied.push(copy_s);
            named.push(name_s);
            read.push(read_s);
            searched.push(search_s);
        }
    }
    println!("\n{} MiB of it searched for VMCOREINFO ({rounds} rounds)", bytes >> 20);
    let rate = |times: &[f64]| median(times.iter().map(|time| bytes as f64 / time / 1e9));
    let ratio = |times: &[f64]| median(times.iter().zip(&searched).map(|(time, search)| time / search));
    println!("{:<40} {:>9.2} GB/s (median)", "search, by pread", rate(&searched));
    for (name, times) in [
        ("memmem, by pread", &read),
        ("memmem, in memory", &named),
        ("memcpy", &copied),
    ] {
        let (rate, ratio) = (rate(times), ratio(times));
        println!("{name:<40} {rate:>9.2} GB/s (median); the search's speed is {ratio:.2} of it");
    }
    Ok(())
}

/// Where the pieces of a range begin; the last may be shorter and is left out.
fn pieces(range: &MemoryRange) -> impl Iterator<Item = u64> + use<> {
    let gpa = range.gpa;
    (0..range.len_bytes / PIECE_LEN as u64).map(move |index| gpa + index * PIECE_LEN as u64)
}

/// In seconds.
fn timed(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}
