//! How a block tells its codes (RFC 1951, 3.2.7): their lengths, by words of a code of lengths, which is told too.
//!
//! That code is not made for each page. The lengths of two pages with as many different symbols are much the same, so that a few
//! codes, made once, do for all, and each run of equal lengths is a word that is at hand.

use super::symbols::{DISTANCES, LITERALS};
use crate::kdump::entropy::bits::Bits;
use crate::kdump::entropy::code::{Code, Logs, Order};

/// Symbols of the code of lengths: a length, 16 for 3 to 6 more of the one before, 17 for 3 to 10 zeros, 18 for 11 to 138.
const SYMBOLS: usize = 19;
/// The order in which lengths of the code of lengths are written, and the longest of them.
const ORDER: [usize; SYMBOLS] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LEN_MAX: u32 = 7;
/// Symbols of literals and lengths that occur, for each code one step.
const STEP: usize = 48;
/// How often each symbol is used, of a thousand, by step: counted on all pages of a Debian 6.1 kernel with 2 GiB that had just panicked.
/// No length is above 12.
const COUNTS: [[u16; SYMBOLS]; 6] = [
    [
        199, 17, 18, 129, 20, 47, 40, 102, 170, 11, 1, 1, 1, 0, 0, 0, 37, 125, 84,
    ],
    [151, 3, 8, 21, 59, 94, 119, 183, 94, 52, 21, 10, 1, 0, 0, 0, 13, 135, 36],
    [212, 2, 5, 15, 30, 28, 79, 113, 135, 215, 26, 4, 1, 0, 0, 0, 10, 118, 6],
    [209, 1, 3, 13, 24, 32, 47, 83, 117, 184, 200, 13, 3, 0, 0, 0, 16, 53, 1],
    [147, 1, 3, 9, 22, 33, 41, 67, 110, 182, 190, 142, 23, 0, 0, 0, 15, 15, 1],
    [42, 4, 2, 7, 16, 19, 37, 75, 164, 242, 203, 101, 60, 0, 0, 0, 26, 3, 1],
];
/// The longest run of zeros that a symbol tells.
const ZEROS_MAX: usize = 138;
/// The longest run of another length that is at hand.
const OTHERS_MAX: usize = 8;
/// No length: ends the last run.
const NONE: u8 = 0xff;

/// Bits: their number stands above 24 of them.
type Word = u32;

/// A code of lengths with all it is used for.
#[derive(Debug, Clone)]
struct LengthCode {
    /// What tells it: how many of its own lengths there are, and those.
    told: [Word; 4],
    zeros: [Word; ZEROS_MAX + 1],
    others: [[Word; OTHERS_MAX + 1]; 16],
}

/// The codes of lengths.
#[derive(Debug, Clone)]
pub(super) struct Head(Box<[LengthCode; COUNTS.len()]>);

impl Head {
    pub(super) fn new(logs: &Logs) -> Self {
        Self(Box::new(COUNTS.map(|counts| LengthCode::new(&counts, logs))))
    }

    /// Writes both codes down. `symbols` of the literals' code have words.
    pub(super) fn put(&self, literals: &[u8], distances: &[u8], symbols: usize, bits: &mut Bits<'_>) {
        let mut all = [NONE; LITERALS + DISTANCES + 8];
        for (to, from) in all.iter_mut().zip(literals.iter().chain(distances)) {
            *to = *from;
        }
        bits.put(low(literals.len().saturating_sub(257)).into(), 5);
        bits.put(low(distances.len().saturating_sub(1)).into(), 5);
        let [first @ .., last] = &*self.0;
        first.get(symbols / STEP).unwrap_or(last).put(&all, bits);
    }
}

impl LengthCode {
    fn new(counts: &[u16; SYMBOLS], logs: &Logs) -> Self {
        let mut code = Code::default();
        code.make(counts, logs, LEN_MAX, Order::ShortestFirst);
        let mut lengths = Self {
            told: told(&code),
            zeros: [0; ZEROS_MAX + 1],
            others: [[0; OTHERS_MAX + 1]; 16],
        };
        for (count, run) in lengths.zeros.iter_mut().enumerate().skip(1) {
            let zero = Joined::default().symbol(&code, 0);
            *run = match count {
                1 => zero,
                2 => zero.symbol(&code, 0),
                3..=10 => Joined::default().symbol(&code, 17).extra(count - 3, 3),
                _ => Joined::default().symbol(&code, 18).extra(count - 11, 7),
            }
            .0;
        }
        for (len, runs) in lengths.others.iter_mut().enumerate().skip(1) {
            let first = Joined::default().symbol(&code, len);
            for (count, run) in runs.iter_mut().enumerate().skip(1) {
                let more = |count: usize| first.symbol(&code, 16).extra(count - 3, 2);
                *run = match count {
                    1 => first,
                    2 => first.symbol(&code, len),
                    3 => first.symbol(&code, len).symbol(&code, len),
                    4..=7 => more(count - 1),
                    _ => more(count - 2).symbol(&code, len),
                }
                .0;
            }
        }
        lengths
    }

    /// Tells this code, and by it the lengths up to the first that is none.
    fn put(&self, lengths: &[u8; LITERALS + DISTANCES + 8], bits: &mut Bits<'_>) {
        for word in self.told {
            bits.flush();
            put(word, bits);
        }
        let mut at = 0;
        loop {
            bits.flush();
            let Some(eight) = lengths.get(at..).and_then(<[u8]>::first_chunk) else {
                break;
            };
            let len = eight[0];
            if len == NONE {
                break;
            }
            let mut count = same(eight, len);
            let word = if len == 0 {
                // Only a whole run of eight may go on.
                while count.is_multiple_of(8) && count <= ZEROS_MAX - 8 {
                    let next = lengths.get(at + count..).and_then(<[u8]>::first_chunk);
                    match next.map_or(0, |eight| same(eight, 0)) {
                        0 => break,
                        more => count += more,
                    }
                }
                self.zeros.get(count)
            } else {
                self.others.get(usize::from(len % 16)).and_then(|runs| runs.get(count))
            };
            at += count;
            put(word.copied().unwrap_or(0), bits);
        }
    }
}

/// How many of eight lengths are the same, from the first on.
#[inline(always)]
fn same(eight: &[u8; 8], len: u8) -> usize {
    let other = u64::from_le_bytes(*eight) ^ u64::from(len).wrapping_mul(0x0101_0101_0101_0101);
    (other.trailing_zeros() / 8) as usize
}

#[inline(always)]
fn put(word: Word, bits: &mut Bits<'_>) {
    bits.put((word & 0xff_ffff).into(), word >> 24);
}

/// What tells a code of lengths: how many of its own lengths follow beyond four, and those, each in three bits.
fn told(code: &Code<SYMBOLS>) -> [Word; 4] {
    let lens = ORDER.map(|symbol| usize::from(code.len_of(symbol)));
    let count = lens
        .iter()
        .rposition(|len| *len > 0)
        .map_or(4, |last| (last + 1).max(4));
    let mut words = [Joined::default(); 4];
    words[0] = words[0].extra(count - 4, 4);
    for (six, word) in lens.get(..count).unwrap_or_default().chunks(6).zip(&mut words) {
        *word = six.iter().fold(*word, |word, len| word.extra(*len, 3));
    }
    words.map(|word| word.0)
}

/// Bits put together.
#[derive(Debug, Clone, Copy, Default)]
struct Joined(Word);

impl Joined {
    fn symbol(self, code: &Code<SYMBOLS>, symbol: usize) -> Self {
        let word = code.words().get(symbol).copied().unwrap_or(0);
        self.extra((word & 0xffff) as usize, word >> 16)
    }

    fn extra(self, value: usize, count: u32) -> Self {
        let (bits, len) = (self.0 & 0xff_ffff, self.0 >> 24);
        Self(bits | low(value) << len | (len + count) << 24)
    }
}

fn low(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(0)
}
