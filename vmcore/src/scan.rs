//! Reads memory from one end to the other, in pieces, at the speed of memory.

use crate::image::PhysicalMemory;
use crate::limits::{PAGE_LEN, PAGE_LEN_USIZE};
use crate::memory::MemoryRange;

/// How much is read at once: fits into the second-level cache with room to spare.
const PIECE_LEN: u64 = 256 << 10;

/// Gives all memory of `ranges` that is there to `look`, lowest first, in pieces of whole pages; ends when `look` says that it
/// has enough, or after `len_max` bytes were read. What is known to be zero is not read and not given.
pub fn pieces<M: PhysicalMemory + ?Sized>(
    memory: &M,
    ranges: &[MemoryRange],
    len_max: u64,
    look: &mut dyn FnMut(u64, &[u8]) -> Progress,
) {
    let mut buffer = vec![0; usize::try_from(PIECE_LEN).unwrap_or(PAGE_LEN_USIZE)];
    let mut left = len_max;
    for range in ranges {
        let mut done = 0;
        while done < range.len_bytes && left > 0 {
            let gpa = range.gpa + done;
            let rest = range.len_bytes - done;
            let zero = memory.zero_len_bytes(gpa, rest).min(rest) / PAGE_LEN * PAGE_LEN;
            if zero > 0 {
                done += zero;
                continue;
            }
            let len = PIECE_LEN.min(rest).min(left);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Absent;

    /// Pages of their own number; three of four are known to be zero.
    struct Sparse;

    impl PhysicalMemory for Sparse {
        fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
            assert!(gpa / PAGE_LEN % 4 == 3, "page {gpa:#x} is known to be zero");
            bytes.fill(1);
            Ok(())
        }

        fn zero_len_bytes(&self, gpa: u64, len_bytes: u64) -> u64 {
            len_bytes.min((3 * PAGE_LEN).saturating_sub(gpa % (4 * PAGE_LEN)))
        }
    }

    #[test]
    fn what_is_known_to_be_zero_is_not_read() {
        let range = MemoryRange {
            gpa: 0,
            len_bytes: 6 * PAGE_LEN,
        };
        let mut seen = Vec::new();
        pieces(&Sparse, &[range], u64::MAX, &mut |gpa, piece| {
            seen.push((gpa / PAGE_LEN, piece.len()));
            Progress::GoOn
        });
        assert_eq!(seen, [(3, 3 * PAGE_LEN_USIZE)]);
        let all = MemoryRange {
            gpa: 0,
            len_bytes: 3 * PAGE_LEN,
        };
        pieces(&Sparse, &[all], 0, &mut |gpa, _| panic!("{gpa:#x} is zero"));
    }
}
