//! The trailer behind memory and kernel: which pages are stored, zero or excluded, and a digest per chunk, so that the file
//! proves itself after any receiver or copy. `docs/trailer.md` specifies the bytes.
//!
//! Its length depends on the length of what it covers alone, it has no page of zeros (senders leave those out), and its last
//! 128 bytes, the [`Footer`], are found from the end of the file.

mod builder;
mod chunk;
mod footer;
mod parse;

pub use builder::{Pages, TrailerBuildError, TrailerBuilder};
pub use chunk::{ChunkDigester, ChunkMismatch, ChunkRecord, PageState};
pub use footer::{FOOTER_LEN, Footer};
pub(crate) use parse::excluded_pages_of;
pub use parse::{Chunk, Runs, Trailer, TrailerError};

use crate::limits::{CHUNK_LEN, FILE_LEN_MAX, PAGE_LEN};

/// First bytes of the trailer's body.
pub(crate) const BODY_MAGIC: [u8; 8] = *b"CFERRYTR";
/// Version of body and footer; readers refuse others.
pub(crate) const VERSION: u32 = 1;
/// Length of the body's header in bytes.
pub(crate) const BODY_HEADER_LEN: usize = 64;
/// Length of the record of one chunk in bytes: two bitmaps of 256 bits and a digest.
pub(crate) const RECORD_LEN: usize = 96;
/// Filler between body and footer: not zero, so that no page of the trailer is.
pub(crate) const FILLER: u8 = b'.';

/// How many chunks cover a file's first `covered_len` bytes.
pub(crate) const fn chunks_of(covered_len: u64) -> u64 {
    covered_len.div_ceil(CHUNK_LEN)
}

/// Length of the body for a file whose first `covered_len` bytes are covered.
pub(crate) const fn body_len(covered_len: u64) -> u64 {
    BODY_HEADER_LEN as u64 + chunks_of(covered_len) * RECORD_LEN as u64
}

/// Length of the whole trailer, a multiple of the page length.
pub(crate) const fn trailer_len(covered_len: u64) -> u64 {
    (body_len(covered_len) + FOOTER_LEN as u64).next_multiple_of(PAGE_LEN)
}

/// Length of the file with its trailer, or nothing if that is more than [`FILE_LEN_MAX`].
pub(crate) fn file_len(covered_len: u64) -> Option<u64> {
    if covered_len > FILE_LEN_MAX {
        return None;
    }
    Some(covered_len + trailer_len(covered_len)).filter(|&len| len <= FILE_LEN_MAX)
}
