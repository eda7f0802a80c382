//! What repeats within a page: the half of a compressor that looks.
//!
//! Greedy: one look at the last place of the same five bytes. Each repetition costs the processor a wrong guess or two, which is
//! most of the time that all this takes; shorter ones cost more of it than they gain.

mod array;

use crate::limits::PAGE_LEN_USIZE as PAGE;
use array::{OBJECT_LEN, differ_first, is_array};

/// What is looked through.
pub(super) type Page = [u8; PAGE];

const TABLE_BITS: u32 = 11;
const TABLE_LEN: usize = 1 << TABLE_BITS;
/// Bytes that must repeat at least, unless they do so an object of an array before.
const REPEAT_MIN: u32 = 5;
/// What of eight bytes does not count.
const IGNORED_BITS: u32 = 64 - 8 * REPEAT_MIN;
/// After each 2^5 places without a repetition the steps become longer.
const PATIENCE_BITS: u32 = 5;
/// Repetitions of a page: each is at least four bytes long.
pub(super) const FOUND_MAX: usize = PAGE / 4;
/// Literals are copied so many at a time.
const COPIED: usize = 16;
/// Bytes behind the last literal, so that those who read some at once need not care for the end.
pub(super) const PADDING: usize = COPIED;

/// A page, and zeros behind it.
pub(super) type Text = [u8; 2 * PAGE];

/// So many literals, then a copy of so many bytes from so far back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    pub(super) literals: u16,
    pub(super) len: u16,
    pub(super) distance: u16,
}

/// Looks through pages. Keeps its tables from page to page.
#[derive(Debug, Clone)]
pub(super) struct Finder {
    /// Where the bytes of a hash stood last. None is the same as the page's first byte: what stands there is compared anyhow.
    table: Box<[u16; TABLE_LEN]>,
    text: Box<Text>,
    found: Box<[Found; FOUND_MAX]>,
    found_len: usize,
    /// Literals, one behind the other.
    literals: Box<[u8; PAGE + 2 * COPIED]>,
    literals_len: usize,
}

impl Default for Finder {
    fn default() -> Self {
        Self {
            table: Box::new([0; TABLE_LEN]),
            text: Box::new([0; 2 * PAGE]),
            found: Box::new([Found::default(); FOUND_MAX]),
            found_len: 0,
            literals: Box::new([0; PAGE + 2 * COPIED]),
            literals_len: 0,
        }
    }
}

impl Finder {
    /// What repeats, in order.
    pub(super) fn found(&self) -> &[Found] {
        self.found.get(..self.found_len).unwrap_or_default()
    }

    /// The literals of all that was found, and those of the page's end.
    pub(super) fn literals(&self) -> &[u8] {
        self.literals.get(..self.literals_len).unwrap_or_default()
    }

    /// The same with [`PADDING`] bytes of anything behind them.
    pub(super) fn padded_literals(&self) -> &[u8] {
        self.literals
            .get(..self.literals_len.wrapping_add(PADDING))
            .unwrap_or_default()
    }

    /// Looks through a page for copies of at most so many bytes.
    pub(super) fn find(&mut self, page: &Page, copy_len_max: usize) {
        if let Some(text) = self.text.first_chunk_mut() {
            *text = *page;
        }
        self.table.fill(0);
        let (text, table) = (&*self.text, &mut *self.table);
        let is_array = is_array(text);
        let (mut found_len, mut literals_len) = (0, 0);
        let (mut at, mut from, mut waited) = (1_usize, 0_usize, 0_usize);
        // The last bytes are literals.
        while at < PAGE - 8 {
            let before = at.wrapping_sub(OBJECT_LEN);
            let (earlier, mut differ);
            if is_array
                && at >= OBJECT_LEN
                && let Some(skipped) = differ_first(difference(text, before, at))
            {
                (at, earlier) = (at.wrapping_add(skipped), before.wrapping_add(skipped));
                differ = difference(text, earlier, at);
            } else {
                earlier = put(table, text, at);
                differ = difference(text, earlier, at);
                if differ << IGNORED_BITS != 0 || earlier >= at {
                    at = at.wrapping_add(1 + (waited >> PATIENCE_BITS));
                    waited = waited.wrapping_add(1);
                    continue;
                }
            }
            waited = 0;
            let most = PAGE.wrapping_sub(at).min(copy_len_max);
            let mut len = 0_usize;
            while differ == 0 {
                len = len.wrapping_add(8);
                if len >= most {
                    break;
                }
                differ = difference(text, earlier.wrapping_add(len), at.wrapping_add(len));
            }
            let len = len.wrapping_add((differ.trailing_zeros() / 8 % 8) as usize).min(most);
            if let Some(found) = self.found.get_mut(found_len) {
                *found = Found {
                    literals: low(at.wrapping_sub(from)),
                    len: low(len),
                    distance: low(at.wrapping_sub(earlier)),
                };
                found_len = found_len.wrapping_add(1);
            }
            literals_len = copy_literals(text, from, at, &mut self.literals, literals_len);
            put(table, text, at.wrapping_add(1));
            at = at.wrapping_add(len);
            from = at;
            if at < PAGE - 8 {
                put(table, text, at.wrapping_sub(2));
            }
        }
        self.literals_len = copy_literals(text, from, PAGE, &mut self.literals, literals_len);
        self.found_len = found_len;
    }

    /// How often each byte is a literal.
    pub(super) fn count_literals(&self) -> [u16; 256] {
        // A processor waits for a counter that it has just written: neighbours have counters of their own.
        let mut of_four = [[0_u16; 256]; 4];
        let (fours, rest) = self.literals().as_chunks::<4>();
        for four in fours {
            for (counters, byte) in of_four.iter_mut().zip(four) {
                add_one(counters, usize::from(*byte));
            }
        }
        for byte in rest {
            add_one(&mut of_four[0], usize::from(*byte));
        }
        let [mut sums, b, c, d] = of_four;
        for (((sum, b), c), d) in sums.iter_mut().zip(b).zip(c).zip(d) {
            *sum = sum.wrapping_add(b).wrapping_add(c).wrapping_add(d);
        }
        sums
    }
}

/// One more of these.
#[inline(always)]
pub(super) fn add_one<const N: usize>(counters: &mut [u16; N], index: usize) {
    if let Some(counter) = counters.get_mut(index) {
        *counter = counter.wrapping_add(1);
    }
}

/// Eight bytes of the page.
#[inline(always)]
fn word(text: &Text, at: usize) -> u64 {
    let at = at % PAGE;
    let bytes = text.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

/// What of eight bytes at two places is not the same.
#[inline(always)]
fn difference(text: &Text, earlier: usize, later: usize) -> u64 {
    word(text, earlier) ^ word(text, later)
}

/// Remembers what stands at a place; where the like of it stood before.
#[inline(always)]
fn put(table: &mut [u16; TABLE_LEN], text: &Text, at: usize) -> usize {
    let word = word(text, at);
    // Fibonacci hashing: the golden ratio of 2^64.
    let hash = (word << IGNORED_BITS).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_BITS);
    let place = table.get_mut((hash % (1 << TABLE_BITS)) as usize);
    place.map_or(0, |place| usize::from(std::mem::replace(place, low(at))))
}

/// Appends the bytes between two places to the literals; how many there are then.
#[inline(always)]
fn copy_literals(text: &Text, from: usize, to: usize, literals: &mut [u8; PAGE + 2 * COPIED], have: usize) -> usize {
    let len = to.wrapping_sub(from);
    let source = text.get(from..).unwrap_or_default();
    let target = literals.get_mut(have..).unwrap_or_default();
    // Most are few: more than those are copied, and written over by the next ones.
    if let (Some(source), Some(target)) = (source.first_chunk::<COPIED>(), target.first_chunk_mut::<COPIED>()) {
        *target = *source;
    }
    if len > COPIED
        && let (Some(source), Some(target)) = (source.get(COPIED..len), target.get_mut(COPIED..len))
    {
        target.copy_from_slice(source);
    }
    have.wrapping_add(len)
}

/// A place or length of a page.
#[inline(always)]
fn low(value: usize) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}
