//! The literals of a block (RFC 8878, 3.1.1.3.1).

use super::weights::Weights;
use crate::kdump::entropy::bits::{Bits, ROOM};
use crate::kdump::entropy::code::{Code, Logs, Order};
use crate::kdump::repeats::Finder;
use crate::limits::PAGE_LEN_USIZE as PAGE;

/// The longest word (RFC 8878, 4.2.1).
pub(super) const WORD_LEN_MAX: u32 = 11;
/// So few literals are stored as they are: the code takes more room than it saves.
const FEW: usize = 48;
/// More literals than this are in four streams.
const ONE_STREAM_MAX: usize = 1023;

/// Types of this section (RFC 8878, 3.1.1.3.1.1).
const RAW: u32 = 0;
const SINGLE: u32 = 1;
const COMPRESSED: u32 = 2;

/// Writes literals. Keeps its tables from page to page.
#[derive(Debug, Clone, Default)]
pub(super) struct Literals {
    logs: Logs,
    code: Code<256>,
    weights: Weights,
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
        let at = self.weights.put(&self.code, out, header_len)?;
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
