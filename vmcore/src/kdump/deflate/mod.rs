//! zlib streams (RFC 1950) of one block, made for the pages of a dump.
//!
//! Compressors for files empty tables of 64 KiB and more before each text, and sort and link symbols for its codes. For a page of
//! 4 KiB that takes longer than looking at it, so that here everything is as small as a page is.
//!
//! ```text
//! page ─► repeats ─► count (symbols) ─► code (for these counts) ─► head (tells the code) ─► bits
//! ```
//!
//! - `symbols`: symbols of lengths and distances
//! - `count`: how often each occurs
//! - `head`: how a block tells its codes

mod count;
mod head;
mod symbols;
#[cfg(test)]
mod tests;

use super::codec::{Compress, PageCodec};
use super::entropy::bits::{Bits, ROOM};
use super::entropy::code::{Code, Logs, Order};
use super::repeats::{Finder, PADDING, Page};
use count::Counts;
use head::Head;
use symbols::{DISTANCES, END, LITERALS, Lengths, distance_symbol};

use crate::limits::PAGE_LEN_USIZE as PAGE;

/// The longest copy (RFC 1951, 3.2.5).
const COPY_LEN_MAX: usize = 258;
/// The longest word: four of them and what waits of a byte fit 64 bits.
const WORD_LEN_MAX: u32 = 12;
/// Of so few literals and repetitions the codes take more room than they save, and the format's own are taken.
const FEW: usize = 72;
/// Compression method 8 with a window of 32 KiB; fastest; a multiple of 31 (RFC 1950, 2.2).
const HEADER: [u8; 2] = [0x78, 0x01];
/// Bits of a page.
const PAGE_BITS: u32 = 8 * 4096;
/// A page that is not smaller by this is not worth reading by way of a stream.
const GAIN_MIN_BITS: u32 = 128;

/// Makes pages smaller. Keeps its tables from page to page. The stream's checksum (Adler-32, RFC 1950, 8.2) enters as a function, since
/// processors have instructions for it that this crate does not use.
#[derive(Debug, Clone)]
pub struct Deflate {
    adler_32: fn(&[u8]) -> u32,
    finder: Finder,
    counts: Counts,
    logs: Logs,
    lengths: Lengths,
    own: Codes,
    fixed: Codes,
    head: Head,
    out: Box<[u8; ROOM]>,
}

/// The codes of a block.
#[derive(Debug, Clone, Default)]
struct Codes {
    literals: Code<LITERALS>,
    distances: Code<DISTANCES>,
}

impl Codes {
    /// Those that need not be told (RFC 1951, 3.2.6).
    fn fixed() -> Self {
        let mut lens = [8; LITERALS];
        for (symbol, len) in lens.iter_mut().enumerate() {
            *len = match symbol {
                144..256 => 9,
                256..280 => 7,
                _ => 8,
            };
        }
        Self {
            literals: Code::of_lens(lens),
            distances: Code::of_lens([5; DISTANCES]),
        }
    }

    /// Bits of a block's text.
    fn price(&self, counts: &Counts) -> u32 {
        let extra = (2_u32..).zip(
            counts
                .distances
                .iter()
                .skip(4)
                .step_by(2)
                .zip(counts.distances.iter().skip(5).step_by(2)),
        );
        let extra = extra.map(|(bits, (even, odd))| (bits - 1) * u32::from(even + odd));
        self.literals.price(&counts.literals) + self.distances.price(&counts.distances) + extra.sum::<u32>()
    }
}

impl Deflate {
    /// A compressor that takes the checksum from `adler_32`.
    #[must_use]
    pub fn new(adler_32: fn(&[u8]) -> u32) -> Self {
        let logs = Logs::default();
        Self {
            adler_32,
            finder: Finder::default(),
            counts: Counts::default(),
            head: Head::new(&logs),
            logs,
            lengths: Lengths::default(),
            own: Codes::default(),
            fixed: Codes::fixed(),
            out: Box::new([0; ROOM]),
        }
    }

    /// Puts the block into the room; how many bytes it has, or nothing if the page would hardly become smaller.
    fn block(&mut self, page: &Page) -> Option<usize> {
        self.finder.find(page, COPY_LEN_MAX);
        let symbols = self.finder.literals().len() + self.finder.found().len();
        let mut bits = Bits::new(&mut self.out, 0);
        let codes = if symbols <= FEW {
            // The last block, with the format's own codes.
            bits.put(0b011, 3);
            &self.fixed
        } else {
            self.counts.take(&self.finder, &self.lengths);
            let Counts { literals, distances } = &self.counts;
            self.own
                .literals
                .make(literals, &self.logs, WORD_LEN_MAX, Order::ShortestFirst);
            self.own
                .distances
                .make(distances, &self.logs, WORD_LEN_MAX, Order::ShortestFirst);
            if self.own.price(&self.counts) + GAIN_MIN_BITS > PAGE_BITS {
                return None;
            }
            // The last block, with codes of its own.
            bits.put(0b101, 3);
            let symbols = self.own.literals.symbols().len();
            let (literals, distances) = (self.own.literals.lens(END + 1), self.own.distances.lens(1));
            self.head.put(literals, distances, symbols, &mut bits);
            &self.own
        };
        put_text(&self.finder, codes, &self.lengths, &mut bits);
        Some(bits.finish())
    }
}

/// Literals and copies, and the end.
#[inline(never)]
fn put_text(finder: &Finder, codes: &Codes, lengths: &Lengths, bits: &mut Bits<'_>) {
    let (literals, distances) = (codes.literals.words(), codes.distances.words());
    let word = |symbol: usize| literals.get(symbol).copied().unwrap_or(0);
    // Four at a time, of which the last may be none: a guess less for the processor.
    let put_plain = |mut plain: &[u8], mut count: usize, bits: &mut Bits<'_>| {
        while let Some((four, behind)) = plain.split_first_chunk::<4>().filter(|_| count > 0) {
            for (index, byte) in four.iter().enumerate() {
                let word = word(usize::from(*byte));
                bits.put_word(if index < count { word } else { 0 });
            }
            bits.flush();
            plain = behind;
            count = count.saturating_sub(4);
        }
    };
    let mut rest = finder.padded_literals();
    for found in finder.found() {
        let count = usize::from(found.literals);
        put_plain(rest, count, bits);
        rest = rest.get(count..).unwrap_or_default();
        let length = lengths.of(found.len);
        bits.put_word(word(usize::from(length.symbol)));
        bits.put(length.extra.into(), length.extra_bits.into());
        let (symbol, extra, extra_bits) = distance_symbol(found.distance);
        bits.put_word(distances.get(symbol as usize).copied().unwrap_or(0));
        bits.put(extra.into(), extra_bits);
        bits.flush();
    }
    put_plain(rest, rest.len().saturating_sub(PADDING), bits);
    bits.put_word(word(END));
}

impl Compress for Deflate {
    fn codec(&self) -> PageCodec {
        PageCodec::Zlib
    }

    /// Only whole pages are compressed.
    fn compress(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        let Ok(page) = page.try_into() else { return false };
        let block = self.block(page).and_then(|len| self.out.get(..len));
        let Some(block) = block else { return false };
        out.extend_from_slice(&HEADER);
        out.extend_from_slice(block);
        out.extend_from_slice(&(self.adler_32)(page).to_be_bytes());
        HEADER.len() + block.len() + 4 < PAGE
    }
}
