//! The bytes of the header room: ELF header, program headers, notes.

use super::{
    CLASS_64, DATA_LITTLE_ENDIAN, EHDR_LEN, Layout, MACHINE_X86_64, MAGIC, PF_R, PF_RWX, PHDR_LEN, PHNUM_EXTENDED,
    PT_LOAD, PT_NOTE, Segment, TYPE_CORE, VERSION_CURRENT,
};
use crate::bytes::Writer;
use crate::coreferry::{self, CoreferryNote, CoreferryNoteError};
use crate::cpu::CpuState;
use crate::limits::{HEADER_ROOM_LEN, PROGRAM_HEADERS_MAX, VMCOREINFO_LEN_MAX};
use crate::memory::MemoryRange;
use crate::notes::{self, prstatus, qemu};

/// What the header says besides the layout.
#[derive(Debug, Clone, Copy)]
pub struct HeaderInput<'a> {
    /// Registers in vCPU order.
    pub cpus: &'a [CpuState],
    /// VMCOREINFO text of a Linux guest, at most [`VMCOREINFO_LEN_MAX`] bytes.
    pub vmcoreinfo: Option<&'a [u8]>,
    /// What the agent knows about the crash.
    pub coreferry: &'a CoreferryNote,
    /// Where the kernel's text is mapped, so that gdb can read kernel data by virtual address.
    pub text: Option<TextMapping>,
}

/// A mapping of kernel text: one more PT_LOAD over bytes that an earlier one holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextMapping {
    /// First virtual address; for Linux `__START_KERNEL_map` plus the physical address minus `phys_base`.
    pub va: u64,
    /// First guest physical address; must lie within one memory range.
    pub gpa: u64,
    /// Length in bytes.
    pub len_bytes: u64,
}

/// The header could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// More CPUs than the layout has room for.
    #[error("registers of {cpus} vCPUs given, the layout was planned for {planned}")]
    TooManyCpus {
        /// How many were given.
        cpus: usize,
        /// How many were planned.
        planned: usize,
    },
    /// VMCOREINFO is longer than any kernel writes it.
    #[error("VMCOREINFO of {len_bytes} bytes is longer than {VMCOREINFO_LEN_MAX}")]
    VmcoreinfoTooLong {
        /// Length in bytes.
        len_bytes: usize,
    },
    /// The text mapping is not inside one range of memory.
    #[error("text mapping of {len_bytes:#x} bytes at {gpa:#x} does not lie within one memory range")]
    TextOutside {
        /// First guest physical address.
        gpa: u64,
        /// Length in bytes.
        len_bytes: u64,
    },
    /// The COREFERRY note could not be encoded.
    #[error("COREFERRY note")]
    Coreferry(#[from] CoreferryNoteError),
    /// Headers and notes are longer than the room. The layout's own check excludes it.
    #[error("headers of {len_bytes} bytes do not fit the header room of {HEADER_ROOM_LEN}")]
    RoomExceeded {
        /// Length in bytes.
        len_bytes: usize,
    },
}

impl Layout {
    /// The first bytes of the file: at most [`HEADER_ROOM_LEN`], not padded (the rest of the room is zero).
    ///
    /// # Errors
    /// [`HeaderError`] if something given does not fit the layout.
    pub fn header(&self, input: &HeaderInput<'_>) -> Result<Vec<u8>, HeaderError> {
        self.header_without(input, &[])
    }

    /// As [`Layout::header`], of a file in which `excluded` memory (whole pages, ascending, disjoint) is left out: it is in no
    /// segment, so that no reader takes its hole in the file for zeros. [`Layout::excluded_runs_max`] of them surely fit.
    ///
    /// # Errors
    /// As [`Layout::header`].
    pub fn header_without(&self, input: &HeaderInput<'_>, excluded: &[MemoryRange]) -> Result<Vec<u8>, HeaderError> {
        if input.cpus.len() > self.vcpus() {
            return Err(HeaderError::TooManyCpus {
                cpus: input.cpus.len(),
                planned: self.vcpus(),
            });
        }
        let loads = self.loads(input.text, excluded)?;
        let notes = encode_notes(input)?;
        let notes_offset = EHDR_LEN + PHDR_LEN * (loads.len() + 1);
        let mut out = Writer::with_capacity(notes_offset + notes.len());
        put_elf_header(&mut out, loads.len() + 1, 0);
        put_program_header(&mut out, &ProgramHeader::notes(notes_offset, notes.len()));
        for load in &loads {
            put_program_header(&mut out, load);
        }
        out.bytes(&notes);
        if out.len() as u64 > HEADER_ROOM_LEN {
            return Err(HeaderError::RoomExceeded { len_bytes: out.len() });
        }
        Ok(out.into_vec())
    }

    /// PT_LOADs of all memory that is there at its guest physical addresses, and last the text at its virtual ones.
    ///
    /// `p_vaddr` is the physical address: crash and drgn look at `p_paddr` alone, and gdb then reads the memory of a guest
    /// that maps it one to one.
    fn loads(&self, text: Option<TextMapping>, excluded: &[MemoryRange]) -> Result<Vec<ProgramHeader>, HeaderError> {
        let mut loads = Vec::with_capacity(self.segments().len());
        for segment in self.segments() {
            let parts = segment.memory().without(excluded);
            loads.extend(parts.iter().map(|part| ProgramHeader::memory(&segment.part(part))));
        }
        if let Some(text) = text {
            let outside = HeaderError::TextOutside {
                gpa: text.gpa,
                len_bytes: text.len_bytes,
            };
            let mut holders = self.segments().iter();
            let segment = holders.find(|segment| segment.memory().contains(text.gpa, text.len_bytes));
            let segment = segment.ok_or(outside)?;
            let parts = text.memory().without(excluded);
            loads.extend(parts.iter().map(|part| text.header(&segment.part(part))));
        }
        if loads.len() >= PROGRAM_HEADERS_MAX {
            let len_bytes = loads.len().saturating_mul(PHDR_LEN);
            return Err(HeaderError::RoomExceeded { len_bytes });
        }
        Ok(loads)
    }
}

impl TextMapping {
    /// What is mapped.
    pub(super) const fn memory(&self) -> MemoryRange {
        MemoryRange {
            gpa: self.gpa,
            len_bytes: self.len_bytes,
        }
    }

    /// The segment of a part of it, which stands in the file as `part` says.
    pub(super) const fn header(&self, part: &Segment) -> ProgramHeader {
        ProgramHeader {
            va: self.va.wrapping_add(part.gpa.wrapping_sub(self.gpa)),
            ..ProgramHeader::memory(part)
        }
    }
}

/// Elf64_Phdr with `p_filesz` = `p_memsz`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProgramHeader {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) file_offset: u64,
    pub(super) va: u64,
    pub(super) gpa: u64,
    pub(super) len: u64,
    pub(super) align: u64,
}

impl ProgramHeader {
    /// The notes; p_align 4 is the alignment that they really have; drgn misreads 8.
    pub(super) fn notes(at: usize, len_bytes: usize) -> Self {
        Self {
            kind: PT_NOTE,
            flags: PF_R,
            file_offset: at as u64,
            va: 0,
            gpa: 0,
            len: len_bytes as u64,
            align: 4,
        }
    }

    pub(super) const fn memory(segment: &Segment) -> Self {
        Self {
            kind: PT_LOAD,
            flags: PF_RWX,
            file_offset: segment.file_offset,
            va: segment.gpa,
            gpa: segment.gpa,
            len: segment.len_bytes,
            align: 0,
        }
    }
}

/// Elf64_Ehdr of a core (elf(5)); with the place of one section header if the number of segments needs it.
pub(super) fn put_elf_header(out: &mut Writer, program_headers: usize, section_at: u64) {
    out.bytes(&MAGIC);
    out.bytes(&[CLASS_64, DATA_LITTLE_ENDIAN, VERSION_CURRENT]);
    out.fill_to(16, 0); // EI_OSABI (System V) and padding
    out.u16_le(TYPE_CORE);
    out.u16_le(MACHINE_X86_64);
    out.u32_le(u32::from(VERSION_CURRENT));
    out.u64_le(0); // e_entry
    out.u64_le(EHDR_LEN as u64); // e_phoff
    out.u64_le(section_at); // e_shoff
    out.u32_le(0); // e_flags
    out.bytes(&[64, 0]); // e_ehsize
    out.bytes(&[56, 0]); // e_phentsize
    out.u16_le(u16::try_from(program_headers).unwrap_or(PHNUM_EXTENDED));
    let has_section = u16::from(section_at != 0);
    out.u16_le(has_section * 64); // e_shentsize
    out.u16_le(has_section); // e_shnum
    out.fill_to(EHDR_LEN, 0); // e_shstrndx
}

pub(super) fn put_program_header(out: &mut Writer, header: &ProgramHeader) {
    out.u32_le(header.kind);
    out.u32_le(header.flags);
    out.u64_le(header.file_offset);
    out.u64_le(header.va);
    out.u64_le(header.gpa);
    out.u64_le(header.len);
    out.u64_le(header.len);
    out.u64_le(header.align);
}

/// All notes: registers first as crash and drgn count them, then the texts.
fn encode_notes(input: &HeaderInput<'_>) -> Result<Vec<u8>, HeaderError> {
    let mut out = Writer::default();
    for (index, cpu) in (0u32..).zip(input.cpus) {
        notes::put(
            &mut out,
            prstatus::NAME,
            prstatus::TYPE,
            &prstatus::encode(index + 1, cpu),
        );
    }
    for cpu in input.cpus {
        notes::put(&mut out, qemu::NAME, qemu::TYPE, &qemu::encode(cpu));
    }
    if let Some(text) = input.vmcoreinfo {
        if text.len() > VMCOREINFO_LEN_MAX {
            return Err(HeaderError::VmcoreinfoTooLong { len_bytes: text.len() });
        }
        notes::put(&mut out, notes::vmcoreinfo::NAME, notes::vmcoreinfo::TYPE, text);
    }
    notes::put(
        &mut out,
        coreferry::NOTE_NAME,
        coreferry::NOTE_TYPE,
        &input.coreferry.encode()?,
    );
    Ok(out.into_vec())
}
