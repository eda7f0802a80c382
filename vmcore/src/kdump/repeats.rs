//! What repeats within a page: the half of a compressor that looks.
//!
//! Greedy, by a table of the last place of each four bytes. It is small: tables for longer texts take longer to empty than a page
//! takes to be read.

use crate::bytes::{u32_le, u64_le};

const TABLE_BITS: u32 = 12;
const TABLE_LEN: usize = 1 << TABLE_BITS;
/// Bytes that must repeat at least: fewer hardly gain anything.
pub(super) const REPEAT_MIN: usize = 4;
/// Bytes without a repetition after which places are left out, ever more of them.
const PATIENCE: usize = 64;
/// The longest page, so that a place fits the table.
pub(super) const PAGE_LEN_MAX: usize = 16_384;

/// Finds repetitions. Keeps its table from page to page.
#[derive(Debug, Clone)]
pub(super) struct Repeats {
    /// Place plus one by the hash of what stands there.
    table: Box<[u16; TABLE_LEN]>,
}

/// A part of a page: literals, and what is repeated behind them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'p> {
    pub(super) literals: &'p [u8],
    /// How far back, and how long; zero at the end of the page.
    pub(super) distance: usize,
    pub(super) len: usize,
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            table: Box::new([0; TABLE_LEN]),
        }
    }
}

impl Repeats {
    /// Gives the parts of a page (at most [`PAGE_LEN_MAX`] bytes) to `each`, whose repetitions have at most `len_max` bytes. The
    /// last part has no repetition.
    pub(super) fn parts<'p>(&mut self, page: &'p [u8], len_max: usize, mut each: impl FnMut(Part<'p>)) {
        self.table.fill(0);
        let (mut at, mut literals_from, mut waited) = (0, 0, 0);
        while let Some(word) = u32_le(page, at) {
            let earlier = usize::from(self.put(word, at)).checked_sub(1);
            let Some(earlier) = earlier.filter(|earlier| u32_le(page, *earlier) == Some(word)) else {
                at += 1 + waited / PATIENCE;
                waited += 1;
                continue;
            };
            waited = 0;
            let more = common(page, earlier + REPEAT_MIN, at + REPEAT_MIN);
            let len = (REPEAT_MIN + more).min(len_max);
            let part = Part {
                literals: page.get(literals_from..at).unwrap_or_default(),
                distance: at - earlier,
                len,
            };
            each(part);
            if let Some(word) = u32_le(page, at + 1) {
                self.put(word, at + 1);
            }
            at += len;
            literals_from = at;
        }
        each(Part {
            literals: page.get(literals_from..).unwrap_or_default(),
            distance: 0,
            len: 0,
        });
    }

    /// Remembers where `word` stands; what the table had there.
    fn put(&mut self, word: u32, at: usize) -> u16 {
        // Fibonacci hashing: the golden ratio of 2^32.
        let slot = usize::try_from(word.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)).unwrap_or(0);
        let Some(place) = self.table.get_mut(slot) else {
            return 0;
        };
        std::mem::replace(place, u16::try_from(at + 1).unwrap_or(0))
    }
}

/// How many bytes from `earlier` and `later` on are the same.
fn common(page: &[u8], earlier: usize, later: usize) -> usize {
    let mut same = 0;
    while let (Some(left), Some(right)) = (u64_le(page, earlier + same), u64_le(page, later + same)) {
        let differ = left ^ right;
        if differ != 0 {
            return same + usize::try_from(differ.trailing_zeros() / 8).unwrap_or(0);
        }
        same += 8;
    }
    let (left, right) = (page.get(earlier + same..), page.get(later + same..));
    let pairs = left.unwrap_or_default().iter().zip(right.unwrap_or_default());
    same + pairs.take_while(|(left, right)| left == right).count()
}
