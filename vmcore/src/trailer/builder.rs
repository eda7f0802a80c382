//! Makes the trailer while the pages go by.

use super::chunk::{ChunkDigester, ChunkRecord, PageState};
use super::footer::Footer;
use super::{BODY_HEADER_LEN, BODY_MAGIC, FILLER, FOOTER_LEN, RECORD_LEN, VERSION, body_len, chunks_of, trailer_len};
use crate::bytes::Writer;
use crate::elf::Layout;
use crate::limits::{CHUNK_LEN, CHUNK_PAGES, HEADER_ROOM_LEN, PAGE_LEN, PAGE_LEN_USIZE};

/// Collects page states and digests and makes the trailer of one file.
///
/// Holds one record per chunk: 97 bytes per MiB, 97 KiB per GiB of guest memory, and one digest state. Chunks may come in
/// any order (the header room last, say); the pages of one chunk come in order and without a break, or the chunk as a
/// whole by [`Self::set_chunk`].
#[derive(Debug)]
pub struct TrailerBuilder {
    covered_len: u64,
    records: Vec<Option<ChunkRecord>>,
    open: Option<(u64, ChunkDigester)>,
}

/// A run of pages in one state.
#[derive(Debug, Clone, Copy)]
pub enum Pages<'a> {
    /// Stored with these bytes: whole pages.
    Stored(&'a [u8]),
    /// All zero; length in bytes, whole pages.
    Zero(u64),
    /// Excluded; length in bytes, whole pages.
    Excluded(u64),
}

impl Pages<'_> {
    /// Length of the run in bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        match self {
            Pages::Stored(bytes) => bytes.len() as u64,
            Pages::Zero(len_bytes) | Pages::Excluded(len_bytes) => *len_bytes,
        }
    }

    /// Splits behind `len_bytes`, a page boundary within the run.
    fn split(&self, len_bytes: u64) -> (Self, Self) {
        let rest = self.len_bytes().saturating_sub(len_bytes);
        match self {
            Pages::Stored(bytes) => {
                let at = usize::try_from(len_bytes).unwrap_or(usize::MAX).min(bytes.len());
                let (head, tail) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
                (Pages::Stored(head), Pages::Stored(tail))
            }
            Pages::Zero(_) => (Pages::Zero(len_bytes), Pages::Zero(rest)),
            Pages::Excluded(_) => (Pages::Excluded(len_bytes), Pages::Excluded(rest)),
        }
    }
}

/// The pages given do not make a whole file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrailerBuildError {
    /// Not whole pages, or not within the covered part of the file.
    #[error("run of {len_bytes} bytes at file offset {file_offset:#x} is not of whole pages below {covered_len:#x}")]
    BadRun {
        /// Where the run starts.
        file_offset: u64,
        /// Its length in bytes.
        len_bytes: u64,
        /// Where the covered part ends.
        covered_len: u64,
    },
    /// A run that does not continue the chunk that was begun, or repeats one that was given.
    #[error("run at file offset {file_offset:#x} does not continue the pages given before; expected {expected:#x}")]
    OutOfOrder {
        /// Where the run starts.
        file_offset: u64,
        /// Where the next run had to start.
        expected: u64,
    },
    /// The chunk was given before, or there is none of that index.
    #[error("chunk {index} was given before or is none of the {chunks}")]
    BadChunk {
        /// Index of the chunk.
        index: u64,
        /// Number of chunks of the file.
        chunks: u64,
    },
    /// The trailer was asked for before all pages were given.
    #[error("no pages were given for chunk {index}, or not all")]
    Missing {
        /// Index of the first such chunk.
        index: u64,
    },
    /// The header is longer than the header room.
    #[error("header of {len_bytes} bytes is longer than the header room of {HEADER_ROOM_LEN}")]
    HeaderTooLong {
        /// Length of the header.
        len_bytes: usize,
    },
}

impl TrailerBuilder {
    /// For a file of this layout, no page given yet.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        let covered_len = layout.covered_end();
        // The layout bounds the length; should usize be too small, the missing chunks are reported by `finish`.
        let chunks = usize::try_from(chunks_of(covered_len)).unwrap_or_default();
        Self {
            covered_len,
            records: vec![None; chunks],
            open: None,
        }
    }

    /// The next pages of the file, from `file_offset` on. Runs may be longer than a chunk.
    ///
    /// # Errors
    /// [`TrailerBuildError`] if the run is outside of the file, not of whole pages or breaks the order within a chunk.
    pub fn pages(&mut self, file_offset: u64, pages: Pages<'_>) -> Result<(), TrailerBuildError> {
        let len_bytes = pages.len_bytes();
        let whole_pages = file_offset.is_multiple_of(PAGE_LEN) && len_bytes.is_multiple_of(PAGE_LEN);
        let inside = file_offset
            .checked_add(len_bytes)
            .is_some_and(|end| end <= self.covered_len);
        if !whole_pages || !inside {
            return Err(TrailerBuildError::BadRun {
                file_offset,
                len_bytes,
                covered_len: self.covered_len,
            });
        }
        let (mut at, mut rest) = (file_offset, pages);
        while rest.len_bytes() > 0 {
            let to_boundary = CHUNK_LEN - at % CHUNK_LEN;
            let (head, tail) = rest.split(rest.len_bytes().min(to_boundary));
            self.pages_in_chunk(at, head)?;
            at += head.len_bytes();
            rest = tail;
        }
        Ok(())
    }

    /// The header room: its first bytes are `header`, the rest is zero.
    ///
    /// # Errors
    /// [`TrailerBuildError::HeaderTooLong`], or as [`Self::pages`].
    pub fn header(&mut self, header: &[u8]) -> Result<(), TrailerBuildError> {
        let too_long = TrailerBuildError::HeaderTooLong {
            len_bytes: header.len(),
        };
        let mut padded = header.to_vec();
        padded.resize(header.len().next_multiple_of(PAGE_LEN_USIZE), 0);
        let stored_len = padded.len() as u64;
        let rest = HEADER_ROOM_LEN.checked_sub(stored_len).ok_or(too_long)?;
        self.pages(0, Pages::Stored(&padded))?;
        self.pages(stored_len, Pages::Zero(rest))
    }

    /// A whole chunk at once, made by a [`ChunkDigester`] elsewhere.
    ///
    /// # Errors
    /// [`TrailerBuildError::BadChunk`] if there is no such chunk, it was given before, or marks pages beyond the end.
    pub fn set_chunk(&mut self, index: u64, record: ChunkRecord) -> Result<(), TrailerBuildError> {
        let bad = TrailerBuildError::BadChunk {
            index,
            chunks: chunks_of(self.covered_len),
        };
        let pages = self.pages_of(index);
        let slot = usize::try_from(index).ok().and_then(|at| self.records.get_mut(at));
        match slot {
            Some(slot) if slot.is_none() && record.is_consistent(pages) => {
                *slot = Some(record);
                Ok(())
            }
            _ => Err(bad),
        }
    }

    /// The trailer's bytes, to stand at [`Layout::covered_end`].
    ///
    /// # Errors
    /// [`TrailerBuildError::Missing`] if a chunk was not given or not to its end.
    pub fn finish(self) -> Result<Vec<u8>, TrailerBuildError> {
        if let Some((index, _)) = self.open {
            return Err(TrailerBuildError::Missing { index });
        }
        let body = self.body()?;
        let chunks = self.records.len() as u64;
        let footer = Footer::new(self.covered_len, &body).ok_or(TrailerBuildError::Missing { index: chunks })?;
        // The length was checked by the layout; on a 64-bit machine it always fits.
        let trailer_len = usize::try_from(trailer_len(self.covered_len)).unwrap_or_default();
        let mut out = body;
        out.resize(trailer_len.saturating_sub(FOOTER_LEN), FILLER);
        out.extend_from_slice(&footer.encode());
        Ok(out)
    }

    fn body(&self) -> Result<Vec<u8>, TrailerBuildError> {
        let mut records = Vec::with_capacity(self.records.len());
        for (index, record) in (0u64..).zip(&self.records) {
            records.push(record.ok_or(TrailerBuildError::Missing { index })?);
        }
        let stored: u64 = records.iter().map(|record| u64::from(record.stored_pages())).sum();
        let excluded: u64 = records.iter().map(|record| u64::from(record.excluded_pages())).sum();
        let zero = (self.covered_len / PAGE_LEN).saturating_sub(stored + excluded);
        let capacity = usize::try_from(trailer_len(self.covered_len)).unwrap_or_default();
        let mut out = Writer::with_capacity(capacity);
        out.bytes(&BODY_MAGIC);
        out.u32_le(VERSION);
        for value in [PAGE_LEN, CHUNK_LEN, RECORD_LEN as u64] {
            out.u32_le(u32::try_from(value).unwrap_or_default());
        }
        for value in [records.len() as u64, self.covered_len, stored, zero, excluded] {
            out.u64_le(value);
        }
        debug_assert_eq!(out.len(), BODY_HEADER_LEN);
        for record in &records {
            out.bytes(&record.encode());
        }
        debug_assert_eq!(out.len() as u64, body_len(self.covered_len));
        Ok(out.into_vec())
    }

    /// How many pages chunk `index` has: all but the last are whole.
    fn pages_of(&self, index: u64) -> usize {
        let len_bytes = self
            .covered_len
            .saturating_sub(index.saturating_mul(CHUNK_LEN))
            .min(CHUNK_LEN);
        usize::try_from(len_bytes / PAGE_LEN).unwrap_or(CHUNK_PAGES)
    }

    /// `run` lies within one chunk.
    fn pages_in_chunk(&mut self, file_offset: u64, run: Pages<'_>) -> Result<(), TrailerBuildError> {
        let index = file_offset / CHUNK_LEN;
        let (open, mut digester) = self.open.take().unwrap_or_else(|| (index, ChunkDigester::new()));
        let expected = open * CHUNK_LEN + digester.pages_seen() as u64 * PAGE_LEN;
        if file_offset != expected {
            if digester.pages_seen() > 0 {
                self.open = Some((open, digester));
            }
            return Err(TrailerBuildError::OutOfOrder { file_offset, expected });
        }
        let pages = usize::try_from(run.len_bytes() / PAGE_LEN).unwrap_or(CHUNK_PAGES);
        match run {
            Pages::Stored(bytes) => digester.stored(bytes),
            Pages::Zero(_) => digester.not_stored(PageState::Zero, pages),
            Pages::Excluded(_) => digester.not_stored(PageState::Excluded, pages),
        }
        if digester.pages_seen() < self.pages_of(index) {
            self.open = Some((index, digester));
            return Ok(());
        }
        self.set_chunk(index, digester.finish())
    }
}
