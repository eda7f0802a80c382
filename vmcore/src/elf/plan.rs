//! An ELF core of any number of ranges, without trailer: the form for other tools of memory that has gaps.
//!
//! Only ranges that are in the file get a segment. Beyond 65,534 segments their number stands in a section header (elf(5),
//! PN_XNUM).

use super::header::{ProgramHeader, put_elf_header, put_program_header};
use super::{EHDR_LEN, PHDR_LEN, PHNUM_EXTENDED, SHDR_LEN, Segment, TextMapping};
use crate::bytes::Writer;
use crate::limits::{FILE_LEN_MAX, PAGE_LEN, READ_PROGRAM_HEADERS_MAX, READ_START_LEN_MAX};
use crate::memory::MemoryRange;

/// Where everything stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElfPlan {
    start: Vec<u8>,
    segments: Vec<Segment>,
    file_len: u64,
}

/// The memory cannot become such a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfPlanError {
    /// No memory.
    #[error("no memory is given, an ELF core needs at least one page")]
    NoMemory,
    /// More segments than readers take.
    #[error("the memory is in {count} pieces or more, at most {} fit an ELF core that is read; a kdump format has no such bound", READ_PROGRAM_HEADERS_MAX - 1)]
    TooManyPieces {
        /// How many.
        count: usize,
    },
    /// The file would be too long.
    #[error("an ELF core of this memory would be longer than {FILE_LEN_MAX} bytes")]
    TooLong,
}

impl ElfPlan {
    /// Plans a file of these ranges (whole pages, ascending, disjoint) with these notes (a PT_NOTE's bytes). Mappings of the
    /// kernel's text get segments of their own at the end, one for each range that they touch.
    ///
    /// # Errors
    /// [`ElfPlanError`] says which bound.
    pub fn new(ranges: &[MemoryRange], notes: &[u8], texts: &[TextMapping]) -> Result<Self, ElfPlanError> {
        if ranges.is_empty() {
            return Err(ElfPlanError::NoMemory);
        }
        if ranges.len() + 1 > READ_PROGRAM_HEADERS_MAX {
            return Err(ElfPlanError::TooManyPieces { count: ranges.len() });
        }
        // The kernel's text is in pieces where something in it was left out.
        let texts: Vec<(MemoryRange, &TextMapping)> = texts
            .iter()
            .flat_map(|text| pieces_within(ranges, text).map(move |piece| (piece, text)))
            .take(READ_PROGRAM_HEADERS_MAX - 1 - ranges.len())
            .collect();
        let count = 1 + ranges.len() + texts.len();
        let is_extended = count >= usize::from(PHNUM_EXTENDED);
        let section_at = EHDR_LEN + count * PHDR_LEN;
        let notes_at = section_at + if is_extended { SHDR_LEN } else { 0 };
        let memory_at = ((notes_at + notes.len()) as u64).next_multiple_of(PAGE_LEN);
        if memory_at > READ_START_LEN_MAX {
            return Err(ElfPlanError::TooLong);
        }
        let mut segments = Vec::with_capacity(ranges.len());
        let mut file_len = memory_at;
        for range in ranges {
            segments.push(Segment {
                gpa: range.gpa,
                file_offset: file_len,
                len_bytes: range.len_bytes,
            });
            let end = file_len.checked_add(range.len_bytes);
            file_len = end.filter(|end| *end <= FILE_LEN_MAX).ok_or(ElfPlanError::TooLong)?;
        }
        let mut out = Writer::with_capacity(usize::try_from(memory_at).unwrap_or(usize::MAX));
        put_elf_header(&mut out, count, if is_extended { section_at as u64 } else { 0 });
        put_program_header(&mut out, &ProgramHeader::notes(notes_at, notes.len()));
        for segment in &segments {
            put_program_header(&mut out, &ProgramHeader::memory(segment));
        }
        for (piece, text) in texts {
            let after = segments.partition_point(|segment| segment.gpa <= piece.gpa);
            let holder = after.checked_sub(1).and_then(|index| segments.get(index));
            if let Some(segment) = holder {
                put_program_header(&mut out, &text.header(&segment.part(&piece)));
            }
        }
        if is_extended {
            put_section_header(&mut out, count);
        }
        out.bytes(notes);
        out.fill_to(usize::try_from(memory_at).unwrap_or(usize::MAX), 0);
        Ok(Self {
            start: out.into_vec(),
            segments,
            file_len,
        })
    }

    /// The file's first bytes, up to the first segment.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The memory in the order of the file.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Length of the whole file.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        self.file_len
    }
}

/// The parts of `ranges` that a mapping covers.
fn pieces_within<'r>(ranges: &'r [MemoryRange], text: &TextMapping) -> impl Iterator<Item = MemoryRange> + use<'r> {
    let wanted = text.memory();
    let end = wanted.end().unwrap_or(wanted.gpa);
    let first = ranges.partition_point(|range| range.end().is_some_and(|end| end <= wanted.gpa));
    let touched = ranges.get(first..).unwrap_or_default().iter();
    touched
        .take_while(move |range| range.gpa < end)
        .filter_map(move |range| {
            let gpa = range.gpa.max(wanted.gpa);
            let len_bytes = range.end()?.min(end).checked_sub(gpa)?;
            (len_bytes > 0).then_some(MemoryRange { gpa, len_bytes })
        })
}

/// Elf64_Shdr of section 0, whose `sh_info` counts the program headers.
fn put_section_header(out: &mut Writer, program_headers: usize) {
    let end = out.len() + SHDR_LEN;
    out.fill_to(end - SHDR_LEN + 32, 0); // sh_name to sh_offset
    out.u64_le(1); // sh_size: number of sections
    out.u32_le(0); // sh_link
    out.u32_le(u32::try_from(program_headers).unwrap_or(u32::MAX)); // sh_info
    out.fill_to(end, 0);
}
