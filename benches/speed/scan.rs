//! Finding the few touched pages of a large guest.

use std::time::Instant;

use anyhow::{Result, ensure};
use vmcore::CoreferryNote;
use vmm_agent::dump::CoreFile;

use crate::Size;
use crate::floor::TwoBuffers;
use crate::guest::StillGuest;
use crate::table::{self, Case, Sample};

/// Memory of the guest.
const MEM_MIB: u64 = 6 * 1024;
/// What it touched.
const TOUCHED_MIB: u64 = 40;
/// Pages that it touched and left zero.
const ZERO_PAGES: u64 = 1024;

/// Runs the group.
pub(crate) fn run(size: Size) -> Result<()> {
    // Runs of 2 MiB, as a kernel touches them, and single pages all over, which is the worst case for SEEK_DATA.
    let runs = StillGuest::new(MEM_MIB, TOUCHED_MIB, 512)?;
    runs.touch_zeros(ZERO_PAGES, 7, 100_000)?;
    let single = StillGuest::new(MEM_MIB, TOUCHED_MIB, 1)?;
    let touched_bytes = runs.touched_bytes()?;
    let title = format!("one pass over a guest of {MEM_MIB} MiB that touched {TOUCHED_MIB} MiB");
    let limit = "memfd read, zero scan, BLAKE3 of touched pages";
    let seeks = "one pair of SEEK_DATA and SEEK_HOLE a page";
    let cases = vec![
        TwoBuffers::new(touched_bytes)?.case(),
        Case::new("touched in runs of 2 MiB", limit, || pass(&runs)),
        Case::new("touched in single pages all over", seeks, || pass(&single)),
    ];
    table::run(&title, size, cases)?;
    ensure!(runs.touched_bytes()? == touched_bytes, "reading made the guest larger");
    Ok(())
}

fn pass(guest: &StillGuest) -> Result<Sample> {
    let bytes = guest.touched_bytes()?;
    let note = CoreferryNote::default();
    let start = Instant::now();
    let core = CoreFile::plan(guest, &note)?;
    let mut pieces = core.pieces()?;
    while pieces.next_piece()?.is_some() {}
    let took = start.elapsed();
    Ok(Sample { bytes, took })
}
