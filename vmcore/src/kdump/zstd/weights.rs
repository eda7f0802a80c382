//! How a block tells the code of its literals (RFC 8878, 4.2.1): by the weights of its words, which are symbols of states in turn.
//!
//! The states are not made for each page. The weights of two pages with as many different literals are much the same, so that a few
//! tables, made once, do for all.

use crate::kdump::entropy::bits::{Bits, ROOM};
use crate::kdump::entropy::code::Code;
use crate::kdump::entropy::fse::{self, Table};

/// A word of 11 bits has weight 1, one of a bit 11 (if others have as many); no word has 0.
const WEIGHTS: usize = super::literals::WORD_LEN_MAX as usize + 1;
/// More weights than this are told by states.
const PLAIN_MAX: usize = 24;
/// The logarithm of the number of states.
const LOG: u32 = 6;
/// Literals that occur, for each table one step.
const STEP: usize = 48;
/// How often each weight is used, of a thousand, by step: counted on all pages of a Debian 6.1 kernel with 2 GiB that had just panicked.
const COUNTS: [[u16; WEIGHTS]; 6] = [
    [889, 33, 49, 8, 5, 1, 8, 7, 1, 1, 1, 1],
    [680, 123, 59, 40, 33, 25, 16, 15, 6, 1, 1, 1],
    [575, 219, 87, 62, 39, 12, 5, 1, 1, 1, 1, 1],
    [350, 284, 154, 93, 59, 34, 17, 6, 1, 1, 1, 1],
    [111, 220, 219, 202, 128, 63, 34, 13, 7, 2, 1, 1],
    [16, 136, 247, 297, 184, 77, 28, 8, 4, 2, 1, 1],
];

/// The tables.
#[derive(Debug, Clone)]
pub(super) struct Weights(Box<[Told; COUNTS.len()]>);

/// A table, and what tells it.
#[derive(Debug, Clone)]
struct Told {
    head: Vec<u8>,
    table: Table<WEIGHTS>,
}

impl Default for Weights {
    fn default() -> Self {
        Self(Box::new(COUNTS.map(|counts| Told::new(&counts))))
    }
}

impl Weights {
    /// Tells the code at a place of the room; the place behind it. Nothing if it cannot be told.
    pub(super) fn put(&self, code: &Code<256>, out: &mut [u8; ROOM], at: usize) -> Option<usize> {
        let longest = code.symbols().map(|symbol| code.len_of(symbol)).max()?;
        let mut weights = [0_u8; 256];
        // That of the last symbol follows from the others.
        let mut others = code.symbols();
        let last = others.next_back()?;
        let steps = others.len() / STEP;
        for symbol in others {
            *weights.get_mut(symbol)? = longest + 1 - code.len_of(symbol);
        }
        let weights = weights.get(..last)?;
        if weights.len() <= PLAIN_MAX {
            return put_plain(weights, out, at);
        }
        let [first @ .., most] = &*self.0;
        let by_states = first.get(steps).unwrap_or(most).put(weights, out, at);
        by_states.or_else(|| put_plain(weights, out, at))
    }
}

impl Told {
    fn new(counts: &[u16; WEIGHTS]) -> Self {
        let (mut head, mut table) = (Vec::new(), Table::default());
        let total = counts.iter().map(|count| u32::from(*count)).sum();
        if let Some(shares) = fse::shares(counts, total, LOG) {
            let mut room = [0; ROOM];
            let mut bits = Bits::new(&mut room, 0);
            fse::put_shares(&shares, LOG, &mut bits);
            let end = bits.finish();
            head.extend_from_slice(room.get(..end).unwrap_or_default());
            table.set(&shares, LOG);
        }
        Self { head, table }
    }

    /// Weights by states, two that take turns (RFC 8878, 4.2.1.2). Nothing if they take too much room.
    fn put(&self, weights: &[u8], out: &mut [u8; ROOM], at: usize) -> Option<usize> {
        let begin = at + 1 + self.head.len();
        out.get_mut(at + 1..begin)?.copy_from_slice(&self.head);
        let mut bits = Bits::new(out, begin);
        let table = &self.table;
        let (rest, last) = weights.split_last_chunk::<2>()?;
        let [mut even, mut odd] = last.map(|weight| table.begin(weight));
        let (first, eights) = rest.as_rchunks::<8>();
        for eight in eights.iter().rev() {
            // 48 bits, and seven of the byte before.
            for [before, weight] in eight.as_chunks::<2>().0.iter().rev() {
                table.put(&mut odd, *weight, &mut bits);
                table.put(&mut even, *before, &mut bits);
            }
            bits.flush();
        }
        for weight in first.iter().rev() {
            table.put(&mut odd, *weight, &mut bits);
            (even, odd) = (odd, even);
        }
        bits.flush();
        // The first weight, whose state comes last, has the even one now.
        table.end(odd, &mut bits);
        table.end(even, &mut bits);
        let end = bits.finish_marked();
        let len = u8::try_from(end - at - 1).ok().filter(|len| *len < 128)?;
        *out.get_mut(at)? = len;
        Some(end)
    }
}

/// Weights of four bits each, for at most 128 symbols.
fn put_plain(weights: &[u8], out: &mut [u8; ROOM], at: usize) -> Option<usize> {
    let head = u8::try_from(weights.len() + 127).ok()?;
    let mut bits = Bits::new(out, at);
    bits.put(head.into(), 8);
    for pair in weights.chunks(2) {
        let (first, second) = (pair.first().copied()?, pair.get(1).copied().unwrap_or(0));
        bits.put(u64::from(first << 4 | second), 8);
        bits.flush();
    }
    Some(bits.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_table_for_each_step() {
        let Weights(tables) = Weights::default();
        assert!(tables.iter().all(|told| !told.head.is_empty()));
    }
}
