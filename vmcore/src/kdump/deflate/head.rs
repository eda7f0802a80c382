//! How a block tells its codes (RFC 1951, 3.2.7).

use super::symbols::{DISTANCES, LITERALS};
use crate::kdump::entropy::bits::Bits;
use crate::kdump::entropy::code::{Code, Logs, Order};

/// The order in which lengths of the code of lengths are written, and the longest of them.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LEN_MAX: u32 = 7;

/// Some lengths of words: a symbol with extra bits and their number.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    symbol: u8,
    extra: u8,
    extra_bits: u8,
}

/// Keeps its tables from page to page.
#[derive(Debug, Clone)]
pub(super) struct Head {
    runs: [Run; LITERALS + DISTANCES],
    runs_len: usize,
    counts: [u16; 19],
    code: Code<19>,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            runs: [Run::default(); LITERALS + DISTANCES],
            runs_len: 0,
            counts: [0; 19],
            code: Code::default(),
        }
    }
}

impl Head {
    /// Writes both codes down.
    pub(super) fn put(&mut self, literals: &[u8], distances: &[u8], logs: &Logs, bits: &mut Bits<'_>) {
        let mut all = [0; LITERALS + DISTANCES];
        let len = literals.len() + distances.len();
        for (to, from) in all.iter_mut().zip(literals.iter().chain(distances)) {
            *to = *from;
        }
        self.find(all.get(..len).unwrap_or_default());
        self.code.make(&self.counts, logs, LEN_MAX, Order::ShortestFirst);
        let written = ORDER.iter().rposition(|symbol| self.code.len_of(*symbol) != 0);
        let written = written.map_or(4, |last| (last + 1).max(4));
        bits.put(low(literals.len().saturating_sub(257)), 5);
        bits.put(low(distances.len().saturating_sub(1)), 5);
        bits.put(low(written - 4), 4);
        for symbol in ORDER.iter().take(written) {
            bits.put(self.code.len_of(*symbol).into(), 3);
            bits.flush();
        }
        let words = self.code.words();
        for run in self.runs.iter().take(self.runs_len) {
            bits.put_word(words.get(usize::from(run.symbol)).copied().unwrap_or(0));
            bits.put(run.extra.into(), run.extra_bits.into());
            bits.flush();
        }
    }

    /// Lengths as symbols: each length itself, 16 for 3 to 6 more of the one before, 17 for 3 to 10 zeros, 18 for 11 to 138.
    fn find(&mut self, lengths: &[u8]) {
        self.runs_len = 0;
        self.counts = [0; 19];
        for same in lengths.chunk_by(|left, right| left == right) {
            let (mut rest, length) = (same.len(), same.first().copied().unwrap_or(0));
            if length != 0 {
                self.push(length, 0, 0);
                rest -= 1;
            }
            while rest >= 3 {
                let (symbol, most, least, extra_bits) = match (length, rest) {
                    (0, 11..) => (18, 138, 11, 7),
                    (0, _) => (17, 10, 3, 3),
                    _ => (16, 6, 3, 2),
                };
                let now = rest.min(most);
                self.push(symbol, now - least, extra_bits);
                rest -= now;
            }
            for _ in 0..rest {
                self.push(length, 0, 0);
            }
        }
    }

    fn push(&mut self, symbol: u8, extra: usize, extra_bits: u8) {
        let run = Run {
            symbol,
            extra: extra.to_le_bytes()[0],
            extra_bits,
        };
        if let (Some(place), Some(count)) = (
            self.runs.get_mut(self.runs_len),
            self.counts.get_mut(usize::from(symbol)),
        ) {
            *place = run;
            self.runs_len += 1;
            *count += 1;
        }
    }
}

fn low(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
