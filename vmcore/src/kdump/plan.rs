//! A file to be written: where everything stands is known before the first page is read; descriptors follow from the pages.

use super::bitmap::PageBitmap;
use super::codec::{Compress, PageCodec};
use super::header::{BLOCK_LEN, KdumpHeader, STATUS_INCOMPLETE, SUB_HEADER_AT, SUB_HEADER_LEN, Utsname};
use crate::bytes::Writer;
use crate::limits::{GPA_END_MAX, KDUMP_BITMAP_BLOCKS_MAX, PAGE_LEN, READ_START_LEN_MAX};
use crate::memory::MemoryRange;
use crate::notes::{self, vmcoreinfo};

/// Length of a page's descriptor (makedumpfile, diskdump_mod.h: `struct page_desc`).
pub(crate) const DESCRIPTOR_LEN: u64 = 24;

/// How a page is stored, before its place is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredPage {
    /// It is zero: all of those share one page of the file.
    Zero,
    /// As so many bytes of this codec.
    Bytes(PageCodec, u32),
    /// As a page before it, whose content is the same.
    Again(Place),
    /// It is lost: its descriptor points nowhere.
    Lost,
}

/// Where a page stands in the file, how long it is there, and the flags of its codec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    offset: u64,
    len_bytes: u32,
    flags: u32,
}

/// The plan of one file.
#[derive(Debug, Clone)]
pub struct KdumpPlan {
    ram: PageBitmap,
    notes: Vec<u8>,
    vmcoreinfo: (u64, u64),
    phys_base: u64,
    cpus: u32,
    pages_max: u64,
}

/// The memory cannot become such a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KdumpPlanError {
    /// No memory.
    #[error("no memory is given, a kdump file needs at least one page")]
    NoMemory,
    /// A range is not of whole pages, or beyond the physical address space.
    #[error("memory range of {len_bytes:#x} bytes at {gpa:#x} is not of whole pages or ends beyond {GPA_END_MAX:#x}")]
    BadRange {
        /// Start of the range.
        gpa: u64,
        /// Its length.
        len_bytes: u64,
    },
    /// The highest page is so high that the bitmaps would be longer than is ever read.
    #[error("memory up to {end:#x} needs {blocks} blocks of bitmaps, at most {KDUMP_BITMAP_BLOCKS_MAX} are written")]
    TooHigh {
        /// End of the memory.
        end: u64,
        /// Blocks of both bitmaps.
        blocks: u64,
    },
    /// More notes than are ever read.
    #[error("{len_bytes} bytes of notes, at most {READ_START_LEN_MAX} are written")]
    NotesTooLong {
        /// Their length.
        len_bytes: usize,
    },
}

/// What is known of a file when its last page has been written.
#[derive(Debug, Clone)]
pub struct KdumpEnd<'a> {
    /// The pages that are in the file; the others are excluded.
    pub present: &'a PageBitmap,
    /// Whose memory it is.
    pub utsname: Utsname,
    /// Codec of the pages that got smaller by it.
    pub codec: PageCodec,
    /// Whether a page was [`StoredPage::Lost`].
    pub is_incomplete: bool,
    /// The level of filtering, 0 to 31.
    pub dump_level: u32,
    /// When the dump was made, in seconds since 1970.
    pub timestamp_s: u64,
}

impl KdumpPlan {
    /// Plans a file for this memory, with these notes (a PT_NOTE's bytes), and at most `pages_max` pages in it.
    ///
    /// # Errors
    /// [`KdumpPlanError`] says which bound.
    pub fn new(ranges: &[MemoryRange], pages_max: u64, notes: Vec<u8>) -> Result<Self, KdumpPlanError> {
        let bad = |range: &MemoryRange| KdumpPlanError::BadRange {
            gpa: range.gpa,
            len_bytes: range.len_bytes,
        };
        let mut end = 0;
        for range in ranges {
            let range_end = range
                .end()
                .filter(|end| *end <= GPA_END_MAX)
                .ok_or_else(|| bad(range))?;
            if range.gpa % PAGE_LEN != 0 || range.len_bytes % PAGE_LEN != 0 {
                return Err(bad(range));
            }
            end = range_end.max(end);
        }
        if end == 0 {
            return Err(KdumpPlanError::NoMemory);
        }
        if notes.len() as u64 > READ_START_LEN_MAX {
            return Err(KdumpPlanError::NotesTooLong { len_bytes: notes.len() });
        }
        let blocks = bitmap_blocks(end / PAGE_LEN) * 2;
        if blocks > u64::from(KDUMP_BITMAP_BLOCKS_MAX) {
            return Err(KdumpPlanError::TooHigh { end, blocks });
        }
        let mut ram = PageBitmap::new(end / PAGE_LEN);
        for range in ranges {
            ram.insert(range.gpa / PAGE_LEN, range.len_bytes / PAGE_LEN);
        }
        let mut plan = Self {
            ram,
            notes,
            vmcoreinfo: (0, 0),
            phys_base: 0,
            cpus: 0,
            pages_max,
        };
        plan.look_at_notes();
        Ok(plan)
    }

    /// Finds VMCOREINFO among the notes, and counts the processors.
    fn look_at_notes(&mut self) {
        let base = self.notes.as_ptr().addr();
        let (mut cpus, mut place, mut phys_base) = (0, (0, 0), 0);
        for note in notes::iter(&self.notes).map_while(Result::ok) {
            if (note.name, note.kind) == (notes::prstatus::NAME, notes::prstatus::TYPE) {
                cpus += 1;
            } else if (note.name, note.kind) == (vmcoreinfo::NAME, vmcoreinfo::TYPE) {
                let within = (note.descriptor.as_ptr().addr() - base) as u64;
                place = (SUB_HEADER_AT + SUB_HEADER_LEN + within, note.descriptor.len() as u64);
                phys_base = vmcoreinfo::phys_base(note.descriptor).unwrap_or(0).cast_unsigned();
            }
        }
        // Readers refuse a file without a processor.
        self.cpus = cpus.max(1);
        self.vmcoreinfo = place;
        self.phys_base = phys_base;
    }

    /// All pages of the memory.
    #[must_use]
    pub const fn ram(&self) -> &PageBitmap {
        &self.ram
    }

    /// Blocks of the sub-header with the notes.
    fn sub_header_blocks(&self) -> u64 {
        (SUB_HEADER_LEN + self.notes.len() as u64).div_ceil(BLOCK_LEN)
    }

    /// Where the bitmaps begin.
    #[must_use]
    pub fn bitmaps_at(&self) -> u64 {
        SUB_HEADER_AT + self.sub_header_blocks() * BLOCK_LEN
    }

    /// Where the descriptors begin.
    #[must_use]
    pub fn descriptors_at(&self) -> u64 {
        self.bitmaps_at() + 2 * bitmap_blocks(self.ram.frames()) * BLOCK_LEN
    }

    /// Where the bytes of pages begin: a page of zeros, then one stored page after the other. There is room for the
    /// descriptors of `pages_max` pages before it, also if fewer come.
    #[must_use]
    pub fn pages_at(&self) -> u64 {
        (self.descriptors_at() + self.pages_max * DESCRIPTOR_LEN).next_multiple_of(BLOCK_LEN)
    }

    /// Header, sub-header, notes and bitmaps: the file's first bytes, up to [`KdumpPlan::descriptors_at`].
    #[must_use]
    pub fn start(&self, end: &KdumpEnd<'_>) -> Vec<u8> {
        let blocks = bitmap_blocks(self.ram.frames());
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let header = KdumpHeader {
            version: 6,
            utsname: end.utsname.clone(),
            timestamp_s: end.timestamp_s,
            status: end.codec.flag() | if end.is_incomplete { STATUS_INCOMPLETE } else { 0 },
            block_len: small(BLOCK_LEN),
            sub_header_blocks: small(self.sub_header_blocks()),
            bitmap_blocks: small(2 * blocks),
            cpus: self.cpus,
            phys_base: self.phys_base,
            dump_level: end.dump_level,
            is_split: false,
            vmcoreinfo: self.vmcoreinfo,
            notes: (SUB_HEADER_AT + SUB_HEADER_LEN, self.notes.len() as u64),
            frames: self.ram.frames(),
        };
        let len = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let mut out = Writer::with_capacity(len(self.descriptors_at()));
        out.bytes(&header.encode());
        out.bytes(&self.notes);
        out.fill_to(len(self.bitmaps_at()), 0);
        out.bytes(self.ram.as_bytes());
        out.fill_to(len(self.bitmaps_at() + blocks * BLOCK_LEN), 0);
        out.bytes(end.present.as_bytes());
        out.fill_to(len(self.descriptors_at()), 0);
        out.into_vec()
    }
}

/// Blocks of one bitmap of so many frames.
pub(crate) const fn bitmap_blocks(frames: u64) -> u64 {
    frames.div_ceil(8 * BLOCK_LEN)
}

/// Makes descriptors, in the order of pages, as their bytes are appended to the file.
#[derive(Debug, Clone)]
pub struct Descriptors {
    zero_at: u64,
    next_at: u64,
}

impl Descriptors {
    /// Of the first page of a plan.
    #[must_use]
    pub fn new(plan: &KdumpPlan) -> Self {
        Self {
            zero_at: plan.pages_at(),
            next_at: plan.pages_at() + PAGE_LEN,
        }
    }

    /// Where the bytes of the next page go.
    #[must_use]
    pub const fn next_at(&self) -> u64 {
        self.next_at
    }

    /// Where the next page stands if it is stored as so many bytes of this codec.
    #[must_use]
    pub const fn next_place(&self, codec: PageCodec, len_bytes: u32) -> Place {
        Place {
            offset: self.next_at,
            len_bytes,
            flags: codec.flag(),
        }
    }

    /// Appends the descriptor of the next page to `out`.
    pub fn push(&mut self, page: StoredPage, out: &mut Vec<u8>) {
        let place = match page {
            StoredPage::Zero => Place {
                offset: self.zero_at,
                len_bytes: 4096,
                flags: 0,
            },
            StoredPage::Bytes(codec, len_bytes) => self.next_place(codec, len_bytes),
            StoredPage::Again(place) => place,
            StoredPage::Lost => Place::default(),
        };
        if let StoredPage::Bytes(_, len) = page {
            self.next_at += u64::from(len);
        }
        out.extend(place.offset.to_le_bytes());
        out.extend(place.len_bytes.to_le_bytes());
        out.extend(place.flags.to_le_bytes());
        out.extend([0; 8]);
    }
}

/// Appends one page to `out` as it is stored: compressed, or as it is where that is not longer.
pub fn store_page(page: &[u8], compress: &mut dyn Compress, out: &mut Vec<u8>) -> StoredPage {
    if crate::is_zero(page) {
        return StoredPage::Zero;
    }
    let start = out.len();
    let codec = compress.codec();
    let is_smaller = codec != PageCodec::Raw && compress.compress(page, out) && out.len() - start < page.len();
    if is_smaller {
        return StoredPage::Bytes(codec, u32::try_from(out.len() - start).unwrap_or(u32::MAX));
    }
    out.truncate(start);
    out.extend_from_slice(page);
    StoredPage::Bytes(PageCodec::Raw, u32::try_from(page.len()).unwrap_or(u32::MAX))
}
