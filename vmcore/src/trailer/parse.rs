//! Reads a trailer back.

use super::chunk::{ChunkRecord, PageState};
use super::footer::Footer;
use super::{BODY_HEADER_LEN, BODY_MAGIC, RECORD_LEN, VERSION, chunks_of};
use crate::bytes::{slice, u32_le, u64_le};
use crate::limits::{CHUNK_LEN, CHUNK_PAGES, FILE_LEN_MAX, PAGE_LEN};
use std::ops::Range;

/// A trailer whose body was checked; borrows the body.
#[derive(Debug, Clone, Copy)]
pub struct Trailer<'a> {
    covered_len: u64,
    stored_pages: u64,
    zero_pages: u64,
    excluded_pages: u64,
    records: &'a [[u8; RECORD_LEN]],
}

/// The file has no trailer, or one that must not be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrailerError {
    /// The file does not end with a footer: no trailer, or cut off.
    #[error("the file does not end with a trailer's footer")]
    NotFound,
    /// The footer's digest does not match.
    #[error("the trailer's footer is damaged: its digest does not match")]
    FooterDamaged,
    /// Written by a later version.
    #[error("trailer version {version}, only version {VERSION} is known")]
    Version {
        /// Version of the file.
        version: u32,
    },
    /// The lengths contradict each other or exceed [`FILE_LEN_MAX`].
    #[error("the trailer's lengths are impossible (file length limit {FILE_LEN_MAX}): {footer:?}")]
    Impossible {
        /// What the footer said.
        footer: Box<Footer>,
    },
    /// Fewer bytes than the footer says.
    #[error("trailer body of {len_bytes} bytes given, the footer says {body_len}")]
    BodyTooShort {
        /// Length given.
        len_bytes: usize,
        /// Length of the body by the footer.
        body_len: u64,
    },
    /// The body's digest does not match.
    #[error("the trailer's body is damaged: its digest does not match the footer's")]
    BodyDamaged,
    /// The body's header does not match footer or records.
    #[error("the trailer's header contradicts its footer or its records")]
    HeaderMismatch,
    /// A record marks a page twice or beyond the end.
    #[error("trailer record of chunk {index} marks a page twice or beyond the end of memory")]
    BadRecord {
        /// Index of the chunk.
        index: u64,
    },
}

/// One chunk of the file and its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Index; the header room is chunk 0.
    pub index: u64,
    /// Where it starts in the file.
    pub file_offset: u64,
    /// Length in bytes: 1 MiB, or less for the last one.
    pub len_bytes: u64,
    /// Page states and digest.
    pub record: ChunkRecord,
}

impl<'a> Trailer<'a> {
    /// Reads the body, the bytes from [`Footer::trailer_offset`] on ([`Footer::body_len`] of them; more is ignored).
    ///
    /// # Errors
    /// [`TrailerError`] for what does not match. The digest is checked first, so hostile bytes go no further by chance.
    pub fn parse(footer: &Footer, trailer: &'a [u8]) -> Result<Self, TrailerError> {
        let too_short = TrailerError::BodyTooShort {
            len_bytes: trailer.len(),
            body_len: footer.body_len,
        };
        let body_len = usize::try_from(footer.body_len).ok();
        let body = body_len.and_then(|len| slice(trailer, 0, len)).ok_or(too_short)?;
        if blake3::hash(body) != footer.body_digest {
            return Err(TrailerError::BodyDamaged);
        }
        let trailer = Self::parse_body(footer, body).ok_or(TrailerError::HeaderMismatch)?;
        let bad = trailer
            .chunks()
            .find(|chunk| !chunk.record.is_consistent(pages_in(chunk.len_bytes)));
        if let Some(chunk) = bad {
            return Err(TrailerError::BadRecord { index: chunk.index });
        }
        if trailer.counts_match() {
            Ok(trailer)
        } else {
            Err(TrailerError::HeaderMismatch)
        }
    }

    fn parse_body(footer: &Footer, body: &'a [u8]) -> Option<Self> {
        let fixed = [u64::from(VERSION), PAGE_LEN, CHUNK_LEN, RECORD_LEN as u64];
        let found = [8, 12, 16, 20].map(|at| u32_le(body, at).map(u64::from));
        let covered_len = u64_le(body, 32)?;
        let (records, rest) = body.get(BODY_HEADER_LEN..)?.as_chunks::<RECORD_LEN>();
        let sound = body.starts_with(&BODY_MAGIC)
            && found == fixed.map(Some)
            && covered_len == footer.trailer_offset
            && u64_le(body, 24)? == chunks_of(covered_len)
            && records.len() as u64 == chunks_of(covered_len)
            && rest.is_empty();
        sound.then_some(Self {
            covered_len,
            stored_pages: u64_le(body, 40)?,
            zero_pages: u64_le(body, 48)?,
            excluded_pages: excluded_pages_of(body)?,
            records,
        })
    }

    fn counts_match(&self) -> bool {
        let stored: u64 = self.chunks().map(|chunk| u64::from(chunk.record.stored_pages())).sum();
        let excluded: u64 = self
            .chunks()
            .map(|chunk| u64::from(chunk.record.excluded_pages()))
            .sum();
        let all = self
            .stored_pages
            .checked_add(self.zero_pages)
            .and_then(|sum| sum.checked_add(self.excluded_pages));
        stored == self.stored_pages && excluded == self.excluded_pages && all == Some(self.covered_len / PAGE_LEN)
    }

    /// How much of the file the chunks cover, from its beginning: header room and memory.
    #[must_use]
    pub const fn covered_len(&self) -> u64 {
        self.covered_len
    }

    /// Number of stored pages, header room included.
    #[must_use]
    pub const fn stored_pages(&self) -> u64 {
        self.stored_pages
    }

    /// Number of zero pages, header room included.
    #[must_use]
    pub const fn zero_pages(&self) -> u64 {
        self.zero_pages
    }

    /// Number of excluded pages.
    #[must_use]
    pub const fn excluded_pages(&self) -> u64 {
        self.excluded_pages
    }

    /// All chunks in file order.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + use<'a> {
        let covered_len = self.covered_len;
        (0u64..)
            .zip(self.records)
            .filter_map(move |(index, bytes)| chunk_at(covered_len, index, bytes))
    }

    /// One chunk by its index.
    #[must_use]
    pub fn chunk(&self, index: u64) -> Option<Chunk> {
        let bytes = self.records.get(usize::try_from(index).ok()?)?;
        chunk_at(self.covered_len, index, bytes)
    }

    /// State of the page at a file offset; nothing beyond the covered part.
    #[must_use]
    pub fn state_at(&self, file_offset: u64) -> Option<PageState> {
        let chunk = self.chunk(file_offset / CHUNK_LEN)?;
        let within = file_offset - chunk.file_offset;
        (within < chunk.len_bytes).then(|| chunk.record.state(pages_in(within)))
    }

    /// The covered part as the longest runs of one state, in file order, without gaps.
    #[must_use]
    pub const fn runs(&self) -> Runs<'a> {
        Runs { trailer: *self, at: 0 }
    }

    /// File ranges that are declared not to be stored: [`PageState::Zero`] and [`PageState::Excluded`].
    pub fn declared(&self) -> impl Iterator<Item = (Range<u64>, PageState)> + use<'a> {
        self.runs().filter(|(_, state)| *state != PageState::Stored)
    }
}

/// The number of excluded pages that a body's header names; nothing is checked.
pub(crate) fn excluded_pages_of(header: &[u8]) -> Option<u64> {
    u64_le(header, 56)
}

fn chunk_at(covered_len: u64, index: u64, bytes: &[u8; RECORD_LEN]) -> Option<Chunk> {
    let file_offset = index.checked_mul(CHUNK_LEN)?;
    let len_bytes = covered_len.checked_sub(file_offset)?.min(CHUNK_LEN);
    Some(Chunk {
        index,
        file_offset,
        len_bytes,
        record: ChunkRecord::decode(bytes)?,
    })
}

fn pages_in(len_bytes: u64) -> usize {
    usize::try_from(len_bytes / PAGE_LEN).map_or(CHUNK_PAGES, |pages| pages.min(CHUNK_PAGES))
}

/// See [`Trailer::runs`].
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    trailer: Trailer<'a>,
    at: u64,
}

impl Iterator for Runs<'_> {
    type Item = (Range<u64>, PageState);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let state = self.trailer.state_at(start)?;
        let mut end = start;
        while let Some(chunk) = self.trailer.chunk(end / CHUNK_LEN) {
            let pages = pages_in(chunk.len_bytes);
            let first = pages_in(end - chunk.file_offset);
            let stop = (first..pages).find(|&page| chunk.record.state(page) != state);
            if let Some(page) = stop {
                end = chunk.file_offset + page as u64 * PAGE_LEN;
                break;
            }
            end = chunk.file_offset + chunk.len_bytes;
            if end >= self.trailer.covered_len {
                break;
            }
        }
        self.at = end;
        Some((start..end, state))
    }
}
