//! FreeBSD's minidump of amd64, versions 1 to 3: the pages that the kernel uses (sys/amd64/include/minidump.h,
//! sys/kern/kern_dump.c; read as lib/libkvm/kvm_minidump_amd64.c does).
//!
//! ```text
//! ┌────────┬────────────────┬───────────────┬────────┬──────────────┬───────────────┐
//! │ header │ message buffer │ RAM ranges    │ bitmap │ page tables  │ pages, in the │
//! │ 1 page │                │ (version 3)   │        │ of the kernel│ order of bits │
//! └────────┴────────────────┴───────────────┴────────┴──────────────┴───────────────┘
//! ```
//!
//! A full dump of FreeBSD is an ELF core, which [`crate::image`] reads.

use crate::bytes::{u32_le, u64_le};
use crate::image::{Absent, FileBytes, PhysicalMemory};
use crate::kdump::PageBitmap;
use crate::kdump::RankedBitmap;
use crate::limits::{MINIDUMP_BITMAP_LEN_MAX, MINIDUMP_RANGES_MAX, PAGE_LEN};
use crate::memory::{self, MemoryRange};

/// First bytes of the file (`MINIDUMP_MAGIC`).
pub(crate) const MAGIC: &[u8; 24] = b"minidump FreeBSD/amd64\0\0";
/// Present, in an entry of a page table (AMD64 Architecture Programmer's Manual vol. 2, 5.4).
const PRESENT: u64 = 1;
/// A page directory entry that maps 2 MiB itself.
const LARGE: u64 = 1 << 7;
/// The address in an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bytes that a page directory entry covers.
const LARGE_LEN: u64 = 2 << 20;

/// `struct minidumphdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinidumpHeader {
    /// 1, 2 or 3.
    pub version: u32,
    /// Length of the message buffer.
    pub message_buffer_len: u32,
    /// Length of the bitmap.
    pub bitmap_len: u32,
    /// Length of the kernel's page tables.
    pub page_tables_len: u32,
    /// First virtual address that they cover.
    pub kernel_base: u64,
    /// First virtual address of the direct map.
    pub direct_map_base: u64,
    /// Its end.
    pub direct_map_end: u64,
    /// Length of the ranges of RAM, zero before version 3.
    pub ranges_len: u32,
}

/// Why a minidump cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MinidumpError {
    /// Part of it is not there.
    #[error("the {part} of the minidump: {absent}")]
    Absent {
        /// Which part.
        part: &'static str,
        /// What is not there.
        absent: Absent,
    },
    /// A field has a value that is not read.
    #[error("minidump header field {field} is {value}, which is not read")]
    BadField {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// A range of RAM and the bit of its first page.
#[derive(Debug, Clone, Copy)]
struct Ram {
    gpa: u64,
    pages: u64,
    first_bit: u64,
}

/// A minidump.
#[derive(Debug, Clone)]
pub struct Minidump<F> {
    /// What its header says.
    pub header: MinidumpHeader,
    file: F,
    ram: Vec<Ram>,
    present: RankedBitmap,
    page_tables_at: u64,
    pages_at: u64,
}

impl MinidumpHeader {
    /// Reads the header; nothing if it is not one of amd64.
    #[must_use]
    pub fn parse(start: &[u8]) -> Option<Self> {
        if !start.starts_with(MAGIC) {
            return None;
        }
        let version = u32_le(start, 24)?;
        Some(Self {
            version,
            message_buffer_len: u32_le(start, 28)?,
            bitmap_len: u32_le(start, 32)?,
            page_tables_len: u32_le(start, 36)?,
            kernel_base: u64_le(start, 40)?,
            direct_map_base: u64_le(start, 48)?,
            direct_map_end: u64_le(start, 56)?,
            ranges_len: if version >= 3 { u32_le(start, 64)? } else { 0 },
        })
    }
}

impl<F: FileBytes> Minidump<F> {
    /// Whether a file that begins so is a minidump of amd64.
    #[must_use]
    pub fn is_one(start: &[u8]) -> bool {
        start.starts_with(MAGIC)
    }

    /// Reads header, ranges and bitmap.
    ///
    /// # Errors
    /// [`MinidumpError`] says what cannot be read.
    pub fn open(file: F) -> Result<Self, MinidumpError> {
        let bad = |field, value| MinidumpError::BadField { field, value };
        let start: [u8; 128] = read_array(&file)?;
        let header =
            MinidumpHeader::parse(&start).ok_or_else(|| bad("magic", u64_le(&start, 0).unwrap_or_default()))?;
        if !(1..=3).contains(&header.version) {
            return Err(bad("version", header.version.into()));
        }
        let bitmap_len = u64::from(header.bitmap_len);
        if bitmap_len > MINIDUMP_BITMAP_LEN_MAX {
            return Err(bad("bitmapsize", bitmap_len));
        }
        let ranges_at = PAGE_LEN + whole_pages(header.message_buffer_len);
        let bitmap_at = ranges_at + whole_pages(header.ranges_len);
        let page_tables_at = bitmap_at + whole_pages(header.bitmap_len);
        let mut bitmap = vec![0; usize::try_from(bitmap_len).unwrap_or(usize::MAX)];
        file.read_at(bitmap_at, &mut bitmap)
            .map_err(|absent| MinidumpError::Absent { part: "bitmap", absent })?;
        let bits = bitmap_len * 8;
        let ram = match header.ranges_len {
            0 => vec![Ram {
                gpa: 0,
                pages: bits,
                first_bit: 0,
            }],
            len => read_ranges(&file, ranges_at, len)?,
        };
        Ok(Self {
            ram,
            present: RankedBitmap::new(PageBitmap::from_bytes(bitmap, bits)),
            page_tables_at,
            pages_at: page_tables_at + whole_pages(header.page_tables_len),
            header,
            file,
        })
    }

    /// The kernel's message buffer, a ring whose write position the kernel keeps elsewhere.
    ///
    /// # Errors
    /// [`Absent`] if it is not wholly there, or is longer than `len_max`.
    pub fn message_buffer(&self, len_max: usize) -> Result<Vec<u8>, Absent> {
        let len_bytes = usize::try_from(self.header.message_buffer_len).unwrap_or(usize::MAX);
        if len_bytes > len_max {
            return Err(Absent {
                at: PAGE_LEN,
                len_bytes,
            });
        }
        let mut bytes = vec![0; len_bytes];
        self.file.read_at(PAGE_LEN, &mut bytes)?;
        Ok(bytes)
    }

    /// The pages of the dump, as ranges of memory, ascending and disjoint.
    #[must_use]
    pub fn ranges(&self) -> Vec<MemoryRange> {
        let last = self.ram.last();
        let end = last.map_or(0, |ram| ram.gpa.saturating_add(ram.pages.saturating_mul(PAGE_LEN)));
        memory::bounded(self.ram.iter().flat_map(|ram| self.runs(ram)), end)
    }

    /// The runs of pages of a range of RAM.
    fn runs(&self, ram: &Ram) -> impl Iterator<Item = MemoryRange> {
        let Ram { gpa, pages, first_bit } = *ram;
        let runs = self.present.bitmap().runs(first_bit..first_bit.saturating_add(pages));
        runs.map(move |(first, count)| MemoryRange {
            gpa: gpa + (first - first_bit) * PAGE_LEN,
            len_bytes: count * PAGE_LEN,
        })
    }

    /// The physical address of a kernel address.
    #[must_use]
    pub fn translate(&self, va: u64) -> Option<u64> {
        let header = &self.header;
        if (header.direct_map_base..header.direct_map_end).contains(&va) {
            return Some(va - header.direct_map_base);
        }
        let offset = va.checked_sub(header.kernel_base)?;
        // Version 1 brings the page tables themselves, later ones the directories above them.
        if header.version == 1 {
            let entry = self.page_table_entry(offset / PAGE_LEN)?;
            return Some((entry & ADDRESS) | (va % PAGE_LEN));
        }
        let entry = self.page_table_entry(offset / LARGE_LEN)?;
        if entry & LARGE != 0 {
            return Some((entry & ADDRESS & !(LARGE_LEN - 1)) | (va % LARGE_LEN));
        }
        let mut bytes = [0; 8];
        let index = va / PAGE_LEN % 512;
        self.read((entry & ADDRESS) + index * 8, &mut bytes).ok()?;
        let entry = Some(u64::from_le_bytes(bytes)).filter(|entry| entry & PRESENT != 0)?;
        Some((entry & ADDRESS) | (va % PAGE_LEN))
    }

    /// An entry of the tables in the file, if it is present.
    fn page_table_entry(&self, index: u64) -> Option<u64> {
        let at = index
            .checked_mul(8)
            .filter(|at| at + 8 <= u64::from(self.header.page_tables_len))?;
        let mut bytes = [0; 8];
        self.file.read_at(self.page_tables_at + at, &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes)).filter(|entry| entry & PRESENT != 0)
    }

    /// Where a page stands in the file.
    fn file_offset_of(&self, gpa: u64) -> Option<u64> {
        let holds = |ram: &&Ram| gpa >= ram.gpa && (gpa - ram.gpa) / PAGE_LEN < ram.pages;
        let ram = self.ram.iter().find(holds)?;
        let index = self
            .present
            .index_of(ram.first_bit.checked_add((gpa - ram.gpa) / PAGE_LEN)?)?;
        self.pages_at.checked_add(index.checked_mul(PAGE_LEN)?)
    }
}

impl<F: FileBytes> PhysicalMemory for Minidump<F> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: gpa,
            len_bytes: bytes.len(),
        };
        let mut at = gpa;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = at % PAGE_LEN;
            let len = usize::try_from(PAGE_LEN - within).map_err(|_| absent)?.min(rest.len());
            let (part, later) = rest.split_at_mut_checked(len).ok_or(absent)?;
            let offset = self.file_offset_of(at - within).ok_or(absent)?;
            self.file.read_at(offset + within, part).map_err(|_| absent)?;
            rest = later;
            at = at.checked_add(len as u64).ok_or(absent)?;
        }
        Ok(())
    }
}

fn read_array<const N: usize, F: FileBytes>(file: &F) -> Result<[u8; N], MinidumpError> {
    let mut bytes = [0; N];
    file.read_at(0, &mut bytes)
        .map_err(|absent| MinidumpError::Absent { part: "header", absent })?;
    Ok(bytes)
}

/// `dump_avail`: pairs of start and end, ascending and disjoint, up to a pair whose end is zero.
fn read_ranges<F: FileBytes>(file: &F, at: u64, len: u32) -> Result<Vec<Ram>, MinidumpError> {
    let bad = |value| MinidumpError::BadField {
        field: "dump_avail",
        value,
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MINIDUMP_RANGES_MAX * 16 {
        return Err(bad(len as u64));
    }
    let mut bytes = vec![0; len];
    file.read_at(at, &mut bytes).map_err(|absent| MinidumpError::Absent {
        part: "ranges of RAM",
        absent,
    })?;
    let mut ram = Vec::new();
    let mut first_bit = 0_u64;
    let mut last_before = 0;
    for pair in bytes.chunks_exact(16) {
        let (start, end) = (u64_le(pair, 0).unwrap_or_default(), u64_le(pair, 8).unwrap_or_default());
        if end == 0 {
            break;
        }
        // Bits are counted from the page that the range begins in to the one it ends in.
        let (first, last) = (start / PAGE_LEN, end.div_ceil(PAGE_LEN));
        if first < last_before {
            return Err(bad(start));
        }
        last_before = last;
        let pages = last.checked_sub(first).ok_or_else(|| bad(start))?;
        ram.push(Ram {
            gpa: first * PAGE_LEN,
            pages,
            first_bit,
        });
        first_bit = first_bit.checked_add(pages).ok_or_else(|| bad(end))?;
    }
    Ok(ram)
}

fn whole_pages(len_bytes: u32) -> u64 {
    u64::from(len_bytes).next_multiple_of(PAGE_LEN)
}
