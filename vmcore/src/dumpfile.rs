//! A core of any form that is read: what it is, its notes, its memory.
//!
//! An ELF core (ours, other writers', a full dump of FreeBSD), a kdump file (plain or flattened), or a minidump of FreeBSD. What
//! was left out on purpose is absent, never zero: of our own cores the trailer says which pages those are.

use std::ops::Range;

use crate::image::{Absent, CoreImage, FileBytes, ImageError, PhysicalMemory};
use crate::kdump::{Decompress, KdumpError, KdumpImage};
use crate::limits::{EXCLUDED_RUNS_MAX, PAGE_LEN, TRAILER_READ_LEN_MAX};
use crate::memory::{self, MemoryRange};
use crate::minidump::{Minidump, MinidumpError};
use crate::trailer::{self, BODY_HEADER_LEN, FOOTER_LEN, Footer, PageState, Trailer};

/// A core.
#[derive(Debug, Clone)]
pub enum DumpFile<F, D> {
    /// An ELF core.
    Elf(CoreImage<Excluding<F>>),
    /// A kdump-compressed file.
    Kdump(Box<KdumpImage<F, D>>),
    /// A FreeBSD minidump.
    Minidump(Minidump<F>),
}

/// Why a file cannot be used as a core of any form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DumpFileError {
    /// As an ELF core, or its beginning is not there.
    #[error(transparent)]
    Elf(#[from] ImageError),
    /// As a kdump file.
    #[error(transparent)]
    Kdump(#[from] KdumpError),
    /// As a minidump.
    #[error(transparent)]
    Minidump(#[from] MinidumpError),
    /// It is none of them.
    #[error("neither an ELF core, nor a kdump file, nor a FreeBSD minidump: it begins with {start:02x?}")]
    Unknown {
        /// Its first bytes.
        start: [u8; 8],
    },
}

impl<F: FileBytes, D: Decompress> DumpFile<F, D> {
    /// Opens a core by what it begins with.
    ///
    /// # Errors
    /// [`DumpFileError`] if it is none, or one that cannot be read.
    pub fn open(file: F, decompress: D) -> Result<Self, DumpFileError> {
        let mut start = [0; 24];
        let len = usize::try_from(file.len_bytes()).map_or(start.len(), |len| len.min(start.len()));
        let seen = start.get_mut(..len).unwrap_or_default();
        file.read_at(0, seen).map_err(ImageError::from)?;
        if KdumpImage::<F, D>::is_one(&start) {
            return Ok(Self::Kdump(Box::new(KdumpImage::open(file, decompress)?)));
        }
        if Minidump::<F>::is_one(&start) {
            return Ok(Self::Minidump(Minidump::open(file)?));
        }
        if !start.starts_with(b"\x7fELF") {
            let start = *start.first_chunk().unwrap_or(&[0; 8]);
            return Err(DumpFileError::Unknown { start });
        }
        let excluded = excluded_runs(&file);
        let mut image = CoreImage::open(Excluding { file, excluded })?;
        image.memory.cover_excluded();
        Ok(Self::Elf(image))
    }

    /// What it is, in a word: `elf`, `kdump` or `minidump`.
    #[must_use]
    pub const fn form(&self) -> &'static str {
        match self {
            Self::Elf(_) => "elf",
            Self::Kdump(_) => "kdump",
            Self::Minidump(_) => "minidump",
        }
    }

    /// The bytes of its notes; a minidump has none.
    #[must_use]
    pub fn notes(&self) -> &[u8] {
        match self {
            Self::Elf(image) => &image.notes,
            Self::Kdump(image) => &image.notes,
            Self::Minidump(_) => &[],
        }
    }

    /// The memory that the guest had, as far as the file tells, in whole pages, ascending and disjoint. Not every page need be
    /// in the file. Of a minidump it is what was dumped. What a bitmap tells in more than [`crate::limits::BITMAP_RANGES_MAX`]
    /// pieces ends with one that has all the rest.
    #[must_use]
    pub fn ranges(&self) -> Vec<MemoryRange> {
        match self {
            Self::Elf(image) => image.memory.ranges(),
            Self::Kdump(image) => memory::bounded(image.ram().memory_runs(), image.ram().frames() * PAGE_LEN),
            Self::Minidump(dump) => dump.ranges(),
        }
    }

    /// Whether any page may have been left out on purpose; only then is it worth asking [`Self::is_excluded`].
    #[must_use]
    pub fn excludes_any(&self) -> bool {
        match self {
            Self::Elf(image) => image.memory.excludes_any(),
            Self::Kdump(_) => true,
            Self::Minidump(_) => false,
        }
    }

    /// Whether a page was left out on purpose. One that can be neither read nor is excluded is lost.
    #[must_use]
    pub fn is_excluded(&self, gpa: u64) -> bool {
        match self {
            Self::Elf(image) => image.memory.is_excluded(gpa),
            Self::Kdump(image) => !image.present().contains(gpa / PAGE_LEN),
            Self::Minidump(_) => false,
        }
    }
}

impl<F: FileBytes, D: Decompress> PhysicalMemory for DumpFile<F, D> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        match self {
            Self::Elf(image) => image.memory.read(gpa, bytes),
            Self::Kdump(image) => image.read(gpa, bytes),
            Self::Minidump(dump) => dump.read(gpa, bytes),
        }
    }

    fn zero_len_bytes(&self, gpa: u64, len_bytes: u64) -> u64 {
        match self {
            Self::Elf(image) => image.memory.zero_len_bytes(gpa, len_bytes),
            Self::Kdump(_) | Self::Minidump(_) => 0,
        }
    }
}

/// A file of which some bytes were left out on purpose.
#[derive(Debug, Clone)]
pub struct Excluding<F> {
    file: F,
    /// Ascending.
    excluded: Vec<Range<u64>>,
}

impl<F> Excluding<F> {
    /// Whether anything was left out.
    pub(crate) const fn is_any(&self) -> bool {
        !self.excluded.is_empty()
    }

    /// Whether any of these bytes was left out.
    #[must_use]
    pub fn is_excluded(&self, file_offset: u64, len_bytes: u64) -> bool {
        let after = self.excluded.partition_point(|run| run.end <= file_offset);
        let next = self.excluded.get(after);
        next.is_some_and(|run| run.start < file_offset.saturating_add(len_bytes))
    }

    /// Whether all of these bytes were left out, in one run.
    pub(crate) fn is_all_excluded(&self, file_offset: u64, len_bytes: u64) -> bool {
        let after = self.excluded.partition_point(|run| run.end <= file_offset);
        let run = self.excluded.get(after).filter(|run| run.start <= file_offset);
        run.is_some_and(|run| run.end - file_offset >= len_bytes)
    }
}

impl<F: FileBytes> FileBytes for Excluding<F> {
    fn len_bytes(&self) -> u64 {
        self.file.len_bytes()
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        if self.is_excluded(file_offset, bytes.len() as u64) {
            return Err(Absent {
                at: file_offset,
                len_bytes: bytes.len(),
            });
        }
        self.file.read_at(file_offset, bytes)
    }

    fn hole_len_bytes(&self, file_offset: u64, len_bytes: u64) -> u64 {
        if self.is_excluded(file_offset, len_bytes) {
            return 0;
        }
        self.file.hole_len_bytes(file_offset, len_bytes)
    }
}

/// The runs that a sound trailer at the end of the file declares as excluded. Without one there are none.
fn excluded_runs<F: FileBytes>(file: &F) -> Vec<Range<u64>> {
    let read = || {
        let at = file.len_bytes().checked_sub(FOOTER_LEN as u64)?;
        let mut end = [0; FOOTER_LEN];
        file.read_at(at, &mut end).ok()?;
        let footer = Footer::parse(&end).ok()?;
        if footer.file_len != file.len_bytes() || footer.body_len > TRAILER_READ_LEN_MAX {
            return None;
        }
        // Most cores leave nothing out. The body's head says so, and a trailer whose records say otherwise is no sound one: the
        // table of a large core need not be read.
        let mut head = [0; BODY_HEADER_LEN];
        file.read_at(footer.trailer_offset, &mut head).ok()?;
        if trailer::excluded_pages_of(&head) == Some(0) {
            return None;
        }
        let mut body = vec![0; usize::try_from(footer.body_len).ok()?];
        file.read_at(footer.trailer_offset, &mut body).ok()?;
        let trailer = Trailer::parse(&footer, &body).ok()?;
        if trailer.excluded_pages() == 0 {
            return None;
        }
        let runs = trailer.declared().filter(|(_, state)| *state == PageState::Excluded);
        Some(runs.map(|(range, _)| range).take(EXCLUDED_RUNS_MAX).collect())
    };
    read().unwrap_or_default()
}
