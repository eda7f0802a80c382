//! zstd frames (RFC 8878) of one block, made for the pages of a dump.
//!
//! Where zstd's own library sorts symbols and links trees, and measures four ways to tell each table, a page of 4 KiB takes longer to be
//! told than to be looked at.
//!
//! ```text
//! page ─► repeats ─┬─► literals (their code and their words) ─┬─► block ─► frame
//!                  └─► sequences (copies, and literals before) ┘
//! ```
//!
//! - `literals`: the literals of a block
//! - `weights`: how their code is told
//! - `sequences`: its copies
//! - `symbols`: symbols of lengths, and of distances that occurred before

mod literals;
mod sequences;
mod symbols;
#[cfg(test)]
mod tests;
mod weights;

use super::codec::{Compress, PageCodec};
use super::entropy::bits::ROOM;
use super::repeats::{Finder, Page};
use crate::limits::PAGE_LEN_USIZE as PAGE;
use literals::Literals;
use sequences::Sequences;

/// The magic number; one segment whose length stands in two bytes; that length less 256 (RFC 8878, 3.1.1).
const FRAME_HEADER: [u8; 7] = [0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x0f];
/// Length of a block's header (RFC 8878, 3.1.1.2).
const BLOCK_HEADER_LEN: usize = 3;
/// A page that is not smaller by this is not worth reading by way of a frame.
const GAIN_MIN: usize = 16;

/// Makes pages smaller. Keeps its tables from page to page.
#[derive(Debug, Clone)]
pub struct Zstd {
    finder: Finder,
    literals: Literals,
    sequences: Sequences,
    out: Box<[u8; ROOM]>,
}

impl Default for Zstd {
    fn default() -> Self {
        Self {
            finder: Finder::default(),
            literals: Literals::default(),
            sequences: Sequences::default(),
            out: Box::new([0; ROOM]),
        }
    }
}

impl Zstd {
    /// Puts a block's content into the room; how many bytes it has, or nothing if the page would hardly become smaller.
    fn block(&mut self, page: &Page) -> Option<usize> {
        self.finder.find(page, PAGE);
        let end = self.literals.put(&self.finder, &mut self.out)?;
        let end = self.sequences.put(&self.finder, &mut self.out, end);
        (end + FRAME_HEADER.len() + BLOCK_HEADER_LEN + GAIN_MIN <= PAGE).then_some(end)
    }
}

impl Compress for Zstd {
    fn codec(&self) -> PageCodec {
        PageCodec::Zstd
    }

    /// Only whole pages are compressed.
    fn compress(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        let Ok(page) = page.try_into() else { return false };
        let block = self.block(page).and_then(|len| self.out.get(..len));
        let Some(block) = block else { return false };
        // The last one, compressed.
        let [a, b, c, ..] = (block.len() << 3 | 0b101).to_le_bytes();
        out.extend_from_slice(&FRAME_HEADER);
        out.extend_from_slice(&[a, b, c]);
        out.extend_from_slice(block);
        true
    }
}
