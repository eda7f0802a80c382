//! A kdump file that is read: any codec, plain or flattened. All of it may be hostile.

use super::bitmap::PageBitmap;
use super::codec::{Decompress, PageCodec};
use super::flattened;
use super::header::{BLOCK_LEN, KdumpHeader};
use super::plan::{DESCRIPTOR_LEN, bitmap_blocks};
use super::rank::RankedBitmap;
use super::unflattened::Unflattened;
use crate::bytes::{u32_le, u64_le};
use crate::image::{Absent, FileBytes, PhysicalMemory};
use crate::limits::{KDUMP_BITMAP_BLOCKS_MAX, KDUMP_STORED_PAGE_LEN_MAX, PAGE_LEN, PAGE_LEN_USIZE, READ_START_LEN_MAX};

/// Why a kdump file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KdumpError {
    /// Part of its beginning is not there.
    #[error("the {part} of the kdump file: {absent}")]
    Absent {
        /// Which part.
        part: &'static str,
        /// What is not there.
        absent: Absent,
    },
    /// A field has a value that is not read.
    #[error("kdump header field {field} is {value}, which is not read")]
    BadField {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// More records than are read, or records that make no sense.
    #[error("the flattened kdump file ends within its record {number}, or has more of them than are read")]
    BadRecord {
        /// Number of the record.
        number: usize,
    },
}

/// The file, plain.
#[derive(Debug, Clone)]
enum Plain<F> {
    AsItIs(F),
    Flattened(Unflattened<F>),
}

impl<F: FileBytes> Plain<F> {
    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        match self {
            Self::AsItIs(file) => file.read_at(file_offset, bytes),
            Self::Flattened(file) => file.read_at(file_offset, bytes),
        }
    }
}

/// A kdump file.
#[derive(Debug, Clone)]
pub struct KdumpImage<F, D> {
    /// What its header says.
    pub header: KdumpHeader,
    /// The bytes of its notes.
    pub notes: Vec<u8>,
    /// Pages that were RAM.
    ram: PageBitmap,
    /// Pages that are in the file.
    present: RankedBitmap,
    descriptors_at: u64,
    file: Plain<F>,
    decompress: D,
}

impl<F: FileBytes, D: Decompress> KdumpImage<F, D> {
    /// Whether a file that begins so is one of this format.
    #[must_use]
    pub fn is_one(start: &[u8]) -> bool {
        start.starts_with(&super::header::SIGNATURE) || flattened::is_flattened(start)
    }

    /// Reads header, notes and bitmaps.
    ///
    /// # Errors
    /// [`KdumpError`] says what cannot be read.
    pub fn open(file: F, decompress: D) -> Result<Self, KdumpError> {
        let mut signature = [0; 16];
        file.read_at(0, &mut signature).map_err(absent("beginning"))?;
        let file = if flattened::is_flattened(&signature) {
            Plain::Flattened(Unflattened::open(file)?)
        } else {
            Plain::AsItIs(file)
        };
        let mut start = vec![0; 2 * PAGE_LEN_USIZE];
        file.read_at(0, &mut start).map_err(absent("header"))?;
        let header = KdumpHeader::parse(&start).ok_or_else(|| KdumpError::BadField {
            field: "signature",
            value: u64_le(&start, 0).unwrap_or_default(),
        })?;
        check(&header)?;
        let notes = read_notes(&file, &header)?;
        let bitmaps_at = (1 + u64::from(header.sub_header_blocks)) * BLOCK_LEN;
        let one = bitmap_blocks(header.frames);
        let bitmap = |index: u64, part| {
            let mut bytes = vec![0; usize::try_from(header.frames.div_ceil(8)).unwrap_or(usize::MAX)];
            let at = bitmaps_at + index * one * BLOCK_LEN;
            file.read_at(at, &mut bytes).map_err(absent(part))?;
            Ok(PageBitmap::from_bytes(bytes, header.frames))
        };
        let ram = bitmap(0, "first bitmap")?;
        // Of files with one bitmap, it is both.
        let has_two = u64::from(header.bitmap_blocks) >= 2 * one;
        let present = if has_two {
            bitmap(1, "second bitmap")?
        } else {
            ram.clone()
        };
        Ok(Self {
            ram,
            present: RankedBitmap::new(present),
            descriptors_at: bitmaps_at + u64::from(header.bitmap_blocks) * BLOCK_LEN,
            notes,
            header,
            file,
            decompress,
        })
    }

    /// Pages that were RAM, in the file or not.
    #[must_use]
    pub const fn ram(&self) -> &PageBitmap {
        &self.ram
    }

    /// Pages that are in the file.
    #[must_use]
    pub const fn present(&self) -> &PageBitmap {
        self.present.bitmap()
    }

    /// Fills `page` with a whole page.
    fn read_page(&self, frame: u64, page: &mut [u8]) -> Option<()> {
        let index = self.present.index_of(frame)?;
        let at = index
            .checked_mul(DESCRIPTOR_LEN)
            .and_then(|at| at.checked_add(self.descriptors_at))?;
        let mut descriptor = [0; 24];
        self.file.read_at(at, &mut descriptor).ok()?;
        let (offset, len, flags) = (
            u64_le(&descriptor, 0)?,
            u32_le(&descriptor, 8)?,
            u32_le(&descriptor, 12)?,
        );
        let len = usize::try_from(len).ok()?;
        // A page that was not written: of incomplete files.
        if offset == 0 {
            return None;
        }
        match PageCodec::from_flags(flags)? {
            PageCodec::Raw if len == PAGE_LEN_USIZE => self.file.read_at(offset, page).ok(),
            PageCodec::Raw => None,
            codec if (1..=KDUMP_STORED_PAGE_LEN_MAX).contains(&len) => {
                let mut room = [0; KDUMP_STORED_PAGE_LEN_MAX];
                let stored = room.get_mut(..len)?;
                self.file.read_at(offset, stored).ok()?;
                let done = match codec {
                    PageCodec::Lzo => super::lzo::decompress(stored, page),
                    _ => self.decompress.decompress(codec, stored, page),
                };
                done.then_some(())
            }
            _ => None,
        }
    }
}

impl<F: FileBytes, D: Decompress> PhysicalMemory for KdumpImage<F, D> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: gpa,
            len_bytes: bytes.len(),
        };
        let mut at = gpa;
        let mut rest = bytes;
        let mut page = [0; PAGE_LEN_USIZE];
        while !rest.is_empty() {
            let within = usize::try_from(at % PAGE_LEN).map_err(|_| absent)?;
            let len = rest.len().min(PAGE_LEN_USIZE - within);
            let (part, later) = rest.split_at_mut_checked(len).ok_or(absent)?;
            if len == PAGE_LEN_USIZE {
                self.read_page(at / PAGE_LEN, part).ok_or(absent)?;
            } else {
                self.read_page(at / PAGE_LEN, &mut page).ok_or(absent)?;
                part.copy_from_slice(page.get(within..within + len).ok_or(absent)?);
            }
            rest = later;
            at = at.checked_add(len as u64).ok_or(absent)?;
        }
        Ok(())
    }
}

fn absent(part: &'static str) -> impl Fn(Absent) -> KdumpError {
    move |absent| KdumpError::Absent { part, absent }
}

/// Refuses what is not read, and what would cost too much.
fn check(header: &KdumpHeader) -> Result<(), KdumpError> {
    let bad = |field, value| Err(KdumpError::BadField { field, value });
    let frames_max = u64::from(header.bitmap_blocks) * BLOCK_LEN * 8;
    if u64::from(header.block_len) != BLOCK_LEN {
        return bad("block_size", header.block_len.into());
    }
    if header.version == 0 || header.version > 6 {
        return bad("header_version", header.version.into());
    }
    if header.is_split {
        return bad("split", 1);
    }
    if header.bitmap_blocks > KDUMP_BITMAP_BLOCKS_MAX {
        return bad("bitmap_blocks", header.bitmap_blocks.into());
    }
    if header.frames == 0 || header.frames > frames_max {
        return bad("max_mapnr", header.frames);
    }
    Ok(())
}

/// The notes; of older files, which have none, a VMCOREINFO note made of its text.
fn read_notes<F: FileBytes>(file: &Plain<F>, header: &KdumpHeader) -> Result<Vec<u8>, KdumpError> {
    let read = |(at, len): (u64, u64), field| {
        if len > READ_START_LEN_MAX {
            return Err(KdumpError::BadField { field, value: len });
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_at(at, &mut bytes).map_err(absent("notes"))?;
        Ok(bytes)
    };
    let mut notes = if header.notes.1 > 0 {
        read(header.notes, "size_note")?
    } else {
        Vec::new()
    };
    let has_text = crate::reader::CoreNotes::parse(&notes).is_ok_and(|found| found.vmcoreinfo.is_some());
    if !has_text && (1..=crate::limits::VMCOREINFO_LEN_MAX as u64).contains(&header.vmcoreinfo.1) {
        let text = read(header.vmcoreinfo, "size_vmcoreinfo")?;
        let mut note = crate::bytes::Writer::default();
        let (name, kind) = (crate::notes::vmcoreinfo::NAME, crate::notes::vmcoreinfo::TYPE);
        crate::notes::put(&mut note, name, kind, &text);
        notes.extend(note.into_vec());
    }
    Ok(notes)
}
