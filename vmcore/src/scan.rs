//! Reads memory from one end to the other, in pieces, at the speed of memory.

use crate::image::PhysicalMemory;
use crate::limits::{PAGE_LEN, PAGE_LEN_USIZE, SCAN_LEN_MAX};
use crate::memory::MemoryRange;

/// How much is read at once: fits into the second-level cache with room to spare.
const PIECE_LEN: u64 = 256 << 10;

/// Gives all memory of `ranges` that is there to `look`, lowest first, in pieces of whole pages; ends when `look` says that it
/// has enough, or after [`SCAN_LEN_MAX`] bytes.
pub fn pieces<M: PhysicalMemory + ?Sized>(
    memory: &M,
    ranges: &[MemoryRange],
    look: &mut dyn FnMut(u64, &[u8]) -> Progress,
) {
    let mut buffer = vec![0; usize::try_from(PIECE_LEN).unwrap_or(PAGE_LEN_USIZE)];
    let mut left = SCAN_LEN_MAX;
    for range in ranges {
        let mut done = 0;
        while done < range.len_bytes && left > 0 {
            let len = PIECE_LEN.min(range.len_bytes - done).min(left);
            let gpa = range.gpa + done;
            let Some(piece) = usize::try_from(len).ok().and_then(|len| buffer.get_mut(..len)) else {
                return;
            };
            if look_at(memory, gpa, piece, look) == Progress::Enough {
                return;
            }
            done += len;
            left -= len;
        }
    }
}

/// Whether a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It does.
    GoOn,
    /// What was looked for is found.
    Enough,
}

/// One piece, page by page if it is not wholly there.
fn look_at<M: PhysicalMemory + ?Sized>(
    memory: &M,
    gpa: u64,
    piece: &mut [u8],
    look: &mut dyn FnMut(u64, &[u8]) -> Progress,
) -> Progress {
    if memory.read(gpa, piece).is_ok() {
        return look(gpa, piece);
    }
    for (gpa, page) in (gpa..).step_by(PAGE_LEN_USIZE).zip(piece.chunks_mut(PAGE_LEN_USIZE)) {
        if memory.read(gpa, page).is_ok() && look(gpa, page) == Progress::Enough {
            return Progress::Enough;
        }
    }
    Progress::GoOn
}

const _: () = assert!(PIECE_LEN.is_multiple_of(PAGE_LEN));
