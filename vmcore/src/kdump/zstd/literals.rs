//! The literals of a block (RFC 8878, 3.1.1.3.1) and the code of their words (4.2.1).

use crate::kdump::entropy::bits::{Bits, ROOM};
use crate::kdump::entropy::code::{Code, Logs, Order};
use crate::kdump::entropy::fse::{self, LOG_MIN, Table};
use crate::kdump::repeats::{Finder, add_one};
use crate::limits::PAGE_LEN_USIZE as PAGE;

/// The longest word (RFC 8878, 4.2.1).
const WORD_LEN_MAX: u32 = 11;
/// So few literals are stored as they are: the code takes more room than it saves.
const FEW: usize = 48;
/// More literals than this are in four streams.
const ONE_STREAM_MAX: usize = 1023;
/// Weights: a word of 11 bits has 1, one of a bit 11; none has 0.
const WEIGHTS: usize = WORD_LEN_MAX as usize + 1;
/// More weights than this are told by states.
const PLAIN_WEIGHTS_MAX: usize = 24;
/// From so many weights on they have more states.
const MANY_WEIGHTS: usize = 64;

/// Types of this section (RFC 8878, 3.1.1.3.1.1).
const RAW: u32 = 0;
const SINGLE: u32 = 1;
const COMPRESSED: u32 = 2;

/// Writes literals. Keeps its tables from page to page.
#[derive(Debug, Clone, Default)]
pub(super) struct Literals {
    logs: Logs,
    code: Code<256>,
    weights_table: Table<WEIGHTS>,
}

impl Literals {
    /// Puts the section of the literals at the beginning of the room; the place behind it. Nothing if it would not be shorter than a page.
    pub(super) fn put(&mut self, finder: &Finder, out: &mut [u8; ROOM]) -> Option<usize> {
        let literals = finder.literals();
        if literals.len() > FEW {
            let counts = finder.count_literals();
            let most = counts.iter().copied().max().map_or(0, usize::from);
            if most == literals.len() {
                let first = literals.first().copied().unwrap_or(0);
                return put_plain(SINGLE, literals.len(), &[first], out);
            }
            self.code.make(&counts, &self.logs, WORD_LEN_MAX, Order::LongestFirst);
            // The words alone may already take as much room.
            if self.code.price(&counts) as usize / 8 < literals.len()
                && let Some(end) = self.put_compressed(literals, out).filter(|end| *end < literals.len())
            {
                return Some(end);
            }
        }
        put_plain(RAW, literals.len(), literals, out).filter(|end| *end < PAGE)
    }

    /// Nothing if the code cannot be told.
    fn put_compressed(&mut self, literals: &[u8], out: &mut [u8; ROOM]) -> Option<usize> {
        let is_one = literals.len() <= ONE_STREAM_MAX;
        let header_len = if is_one { 3 } else { 4 };
        let at = self.put_code(out, header_len)?;
        let end = if is_one {
            self.put_stream(literals, out, at)
        } else {
            self.put_streams(literals, out, at)
        };
        let (regenerated, stored) = (literals.len() as u64, (end - header_len) as u64);
        // The code may be longer than what it tells of.
        if is_one && stored > ONE_STREAM_MAX as u64 {
            return None;
        }
        let (format, count) = if is_one { (0, 10) } else { (2, 14) };
        let header = u64::from(COMPRESSED) | format << 2 | regenerated << 4 | stored << (4 + count);
        let header = header.to_le_bytes();
        out.get_mut(..header_len)?.copy_from_slice(header.get(..header_len)?);
        Some(end)
    }

    /// Four streams of as many literals, and the lengths of three before them (RFC 8878, 3.1.1.3.1.6).
    fn put_streams(&self, literals: &[u8], out: &mut [u8; ROOM], table_at: usize) -> usize {
        let mut at = table_at + 6;
        for (index, quarter) in literals.chunks(literals.len().div_ceil(4)).enumerate() {
            let end = self.put_stream(quarter, out, at);
            let [low, high, ..] = (end - at).to_le_bytes();
            let place = table_at + 2 * index;
            if index < 3
                && let Some(len) = out.get_mut(place..place + 2)
            {
                len.copy_from_slice(&[low, high]);
            }
            at = end;
        }
        at
    }

    /// The words of some literals, the last first.
    #[inline(never)]
    fn put_stream(&self, literals: &[u8], out: &mut [u8; ROOM], at: usize) -> usize {
        let mut bits = Bits::new(out, at);
        let words = self.code.words();
        let word = |literal: u8| words.get(usize::from(literal)).copied().unwrap_or(0);
        let (first, fours) = literals.as_rchunks::<4>();
        for [a, b, c, d] in fours.iter().rev() {
            // 44 bits, and seven of the byte before.
            for literal in [d, c, b, a] {
                bits.put_word(word(*literal));
            }
            bits.flush();
        }
        for literal in first.iter().rev() {
            bits.put_word(word(*literal));
        }
        bits.finish_marked()
    }

    /// Tells the code by the weights of its words (RFC 8878, 4.2.1.1); the place behind them.
    fn put_code(&mut self, out: &mut [u8; ROOM], at: usize) -> Option<usize> {
        let longest = self.code.symbols().map(|symbol| self.code.len_of(symbol)).max();
        let longest = longest.unwrap_or(0);
        let (mut weights, mut counts) = ([0_u8; 256], [0_u16; WEIGHTS]);
        // That of the last symbol follows from the others.
        let mut others = self.code.symbols();
        let last = others.next_back()?;
        let mut of_none = last;
        for symbol in others {
            let weight = longest + 1 - self.code.len_of(symbol);
            *weights.get_mut(symbol)? = weight;
            add_one(&mut counts, usize::from(weight));
            of_none = of_none.wrapping_sub(1);
        }
        counts[0] = u16::try_from(of_none).ok()?;
        let weights = weights.get(..last)?;
        if weights.len() <= PLAIN_WEIGHTS_MAX {
            return put_plain_weights(weights, out, at);
        }
        self.put_weights(weights, &counts, out, at)
            .or_else(|| put_plain_weights(weights, out, at))
    }

    /// Weights by states, two that take turns (RFC 8878, 4.2.1.2).
    fn put_weights(
        &mut self,
        weights: &[u8],
        counts: &[u16; WEIGHTS],
        out: &mut [u8; ROOM],
        at: usize,
    ) -> Option<usize> {
        let log = if weights.len() < MANY_WEIGHTS {
            LOG_MIN
        } else {
            LOG_MIN + 1
        };
        let shares = fse::shares(counts, u32::try_from(weights.len()).ok()?, log)?;
        let mut bits = Bits::new(out, at + 1);
        fse::put_shares(&shares, log, &mut bits);
        let begin = bits.finish();
        let mut bits = Bits::new(out, begin);
        let table = &mut self.weights_table;
        table.set(&shares, log);
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
fn put_plain_weights(weights: &[u8], out: &mut [u8; ROOM], at: usize) -> Option<usize> {
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

/// A section whose content, less than a page, stands as it is.
fn put_plain(kind: u32, len: usize, content: &[u8], out: &mut [u8; ROOM]) -> Option<usize> {
    let kind = u64::from(kind);
    let (header, header_len) = if len < 32 {
        (kind | (len as u64) << 3, 1)
    } else {
        (kind | 1 << 2 | (len as u64) << 4, 2)
    };
    let header = header.to_le_bytes();
    out.get_mut(..header_len)?.copy_from_slice(header.get(..header_len)?);
    let end = header_len + content.len();
    out.get_mut(header_len..end)?.copy_from_slice(content);
    Some(end)
}
