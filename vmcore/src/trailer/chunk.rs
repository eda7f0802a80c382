//! One chunk: 1 MiB of the file, the state of its pages and the digest of what is stored of it.

use super::RECORD_LEN;
use crate::bytes::array;
use crate::limits::{CHUNK_PAGES, PAGE_LEN_USIZE};
use crate::zero::is_zero;
use blake3::{Hash, Hasher};

/// What the file says about a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageState {
    /// Its bytes are in the file and in the digest.
    Stored,
    /// All zero; a hole of the file.
    Zero,
    /// Left out on purpose; its content is not known and must never be shown as zero.
    Excluded,
}

/// The page states and the digest of one chunk, as the trailer records them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRecord {
    stored: PageMap,
    excluded: PageMap,
    digest: Hash,
}

/// One bit per page, least significant bit of the first byte first.
type PageMap = [u8; CHUNK_PAGES / 8];

/// A chunk does not read as its record says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkMismatch {
    /// The stored pages have another digest.
    #[error("stored pages have digest {found}, recorded is {recorded}")]
    Digest {
        /// Digest of the bytes given.
        found: Hash,
        /// Digest in the record.
        recorded: Hash,
    },
    /// A page declared zero or excluded holds something.
    #[error("page {page} is declared {state:?} but is not a hole")]
    NotAHole {
        /// Index of the page in the chunk.
        page: usize,
        /// What is declared.
        state: PageState,
    },
    /// Fewer bytes than the chunk has pages.
    #[error("{len_bytes} bytes given for a chunk that stores page {page}")]
    TooShort {
        /// Length given.
        len_bytes: usize,
        /// The stored page that was not there.
        page: usize,
    },
}

impl ChunkRecord {
    /// State of a page, by its index in the chunk; pages beyond the covered part of the file read as zero.
    #[must_use]
    pub fn state(&self, page: usize) -> PageState {
        if bit(&self.stored, page) {
            PageState::Stored
        } else if bit(&self.excluded, page) {
            PageState::Excluded
        } else {
            PageState::Zero
        }
    }

    /// BLAKE3 over the stored pages in order; of nothing, if none is stored.
    #[must_use]
    pub const fn digest(&self) -> Hash {
        self.digest
    }

    /// Bit per stored page, least significant bit of the first byte first.
    #[must_use]
    pub const fn stored_bitmap(&self) -> &[u8; CHUNK_PAGES / 8] {
        &self.stored
    }

    /// Bit per excluded page, in the same order.
    #[must_use]
    pub const fn excluded_bitmap(&self) -> &[u8; CHUNK_PAGES / 8] {
        &self.excluded
    }

    /// Number of stored pages.
    #[must_use]
    pub fn stored_pages(&self) -> u32 {
        self.stored.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Number of excluded pages.
    #[must_use]
    pub fn excluded_pages(&self) -> u32 {
        self.excluded.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Checks the chunk's bytes, as read from the file: stored pages against the digest, the others for being holes.
    ///
    /// # Errors
    /// [`ChunkMismatch`] with the first difference; a page that is not a hole is named before a wrong digest.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), ChunkMismatch> {
        let mut hasher = Hasher::new();
        for (page, content) in bytes.chunks(PAGE_LEN_USIZE).enumerate().take(CHUNK_PAGES) {
            match self.state(page) {
                PageState::Stored => {
                    hasher.update(content);
                }
                state if !is_zero(content) => return Err(ChunkMismatch::NotAHole { page, state }),
                PageState::Zero | PageState::Excluded => {}
            }
        }
        let given = bytes.len().div_ceil(PAGE_LEN_USIZE);
        if let Some(page) = (given..CHUNK_PAGES).find(|&page| bit(&self.stored, page)) {
            return Err(ChunkMismatch::TooShort {
                len_bytes: bytes.len(),
                page,
            });
        }
        let found = hasher.finalize();
        if found == self.digest {
            Ok(())
        } else {
            Err(ChunkMismatch::Digest {
                found,
                recorded: self.digest,
            })
        }
    }

    /// The record's bytes in the trailer.
    pub(crate) fn encode(&self) -> [u8; RECORD_LEN] {
        let mut out = [0; RECORD_LEN];
        let fields = self.stored.iter().chain(&self.excluded).chain(self.digest.as_bytes());
        for (to, from) in out.iter_mut().zip(fields) {
            *to = *from;
        }
        out
    }

    /// Reads a record; nothing if the bytes are too few. The states are checked by the trailer's parser.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            stored: array(bytes, 0)?,
            excluded: array(bytes, 32)?,
            digest: Hash::from_bytes(array(bytes, 64)?),
        })
    }

    /// Is every page in one state at most, and none beyond `pages` marked?
    pub(crate) fn is_consistent(&self, pages: usize) -> bool {
        let overlap = self
            .stored
            .iter()
            .zip(&self.excluded)
            .any(|(stored, excluded)| stored & excluded != 0);
        let beyond = (pages..CHUNK_PAGES).any(|page| bit(&self.stored, page) || bit(&self.excluded, page));
        !overlap && !beyond
    }
}

fn bit(map: &PageMap, page: usize) -> bool {
    map.get(page / 8).is_some_and(|byte| byte >> (page % 8) & 1 == 1)
}

/// Makes the record of one chunk from its pages in order. Independent of every other chunk, so threads may share the work.
#[derive(Debug, Clone)]
pub struct ChunkDigester {
    record: ChunkRecord,
    hasher: Hasher,
    next_page: usize,
}

impl Default for ChunkDigester {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkDigester {
    /// A chunk with no page seen yet.
    #[must_use]
    pub fn new() -> Self {
        let empty = [0; CHUNK_PAGES / 8];
        let record = ChunkRecord {
            stored: empty,
            excluded: empty,
            digest: Hash::from_bytes([0; 32]),
        };
        Self {
            record,
            hasher: Hasher::new(),
            next_page: 0,
        }
    }

    /// Pages seen so far.
    #[must_use]
    pub const fn pages_seen(&self) -> usize {
        self.next_page
    }

    /// The next pages are stored with these bytes: whole pages; larger runs digest faster. What is beyond the chunk's 256
    /// pages is ignored.
    pub fn stored(&mut self, bytes: &[u8]) {
        let room = (CHUNK_PAGES - self.next_page) * PAGE_LEN_USIZE;
        let taken = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        self.hasher.update(taken);
        self.mark(PageState::Stored, taken.len().div_ceil(PAGE_LEN_USIZE));
    }

    /// The next `pages` pages are not stored: zero or excluded.
    pub fn not_stored(&mut self, state: PageState, pages: usize) {
        debug_assert_ne!(state, PageState::Stored, "stored pages come with their bytes");
        if state != PageState::Stored {
            self.mark(state, pages);
        }
    }

    fn mark(&mut self, state: PageState, pages: usize) {
        let end = self.next_page.saturating_add(pages).min(CHUNK_PAGES);
        let map = match state {
            PageState::Stored => Some(&mut self.record.stored),
            PageState::Excluded => Some(&mut self.record.excluded),
            PageState::Zero => None,
        };
        if let Some(map) = map {
            for page in self.next_page..end {
                if let Some(byte) = map.get_mut(page / 8) {
                    *byte |= 1 << (page % 8);
                }
            }
        }
        self.next_page = end;
    }

    /// The record of the pages seen; pages not seen count as zero.
    #[must_use]
    pub fn finish(mut self) -> ChunkRecord {
        self.record.digest = self.hasher.finalize();
        self.record
    }
}
