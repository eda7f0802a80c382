//! The head of any ELF64 core of x86-64: segments and notes, from the file's first bytes.
//!
//! Reads our own files and those of QEMU, Cloud Hypervisor, makedumpfile and /proc/vmcore. All bytes may be hostile:
//! counts and lengths are bounded, nothing is indexed unchecked.

use crate::bytes::{slice, u16_le, u32_le, u64_le};
use crate::coreferry::{self, CoreferryNote, CoreferryNoteError};
use crate::cpu::CpuState;
use crate::elf::{
    CLASS_64, DATA_LITTLE_ENDIAN, EHDR_LEN, MAGIC, PHDR_LEN, PHNUM_EXTENDED, PT_LOAD, PT_NOTE, SHDR_LEN, TYPE_CORE,
};
use crate::limits::{READ_CPUS_MAX, READ_PROGRAM_HEADERS_MAX, VMCOREINFO_LEN_MAX};
use crate::notes::{self, Note, NoteError, prstatus, qemu, vmcoreinfo};

/// One PT_LOAD as the file describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSegment {
    /// `p_vaddr`.
    pub va: u64,
    /// `p_paddr`, the guest physical address.
    pub gpa: u64,
    /// `p_offset`.
    pub file_offset: u64,
    /// `p_filesz`: bytes in the file.
    pub file_len_bytes: u64,
    /// `p_memsz`: bytes of memory; what the file lacks of them is zero.
    pub memory_len_bytes: u64,
}

/// Where bytes stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileExtent {
    /// First byte.
    pub file_offset: u64,
    /// Length in bytes.
    pub len_bytes: u64,
}

/// ELF header and program headers of a core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreHead {
    /// `e_machine`; 62 for x86-64.
    pub machine: u16,
    /// All PT_LOADs in the order of the file.
    pub loads: Vec<LoadSegment>,
    /// The first PT_NOTE, if there is one.
    pub notes: Option<FileExtent>,
}

/// The bytes are not the head of an ELF64 core, or not enough of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not ELF, or not a little-endian 64-bit core.
    #[error("not a little-endian ELF64 core file")]
    NotACore,
    /// More of the file must be given.
    #[error("the first {len_bytes} bytes of the core are given, {needed} are needed for its headers")]
    NeedMore {
        /// Bytes given.
        len_bytes: usize,
        /// Bytes that must be given, from the start of the file.
        needed: u64,
    },
    /// More program headers than are read.
    #[error("{count} program headers, at most {READ_PROGRAM_HEADERS_MAX} are read")]
    TooManySegments {
        /// How many the file claims.
        count: u64,
    },
    /// A field has a value that no core has.
    #[error("ELF header field {field} is {value}")]
    BadField {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The notes cannot be read.
    #[error("notes of the core")]
    Notes(#[from] NoteError),
}

/// What the notes of a core say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CoreNotes<'a> {
    /// Registers by PRSTATUS note, in the order of the file.
    pub prstatus: Vec<prstatus::Prstatus>,
    /// Registers by QEMU note, in the order of the file.
    pub qemu: Vec<CpuState>,
    /// VMCOREINFO text.
    pub vmcoreinfo: Option<&'a [u8]>,
    /// Descriptor of the COREFERRY note; see [`CoreNotes::coreferry`].
    pub coreferry: Option<&'a [u8]>,
}

impl CoreHead {
    /// Reads ELF header and program headers from the first bytes of a file.
    ///
    /// # Errors
    /// [`ReadError::NeedMore`] names how many bytes to come back with (never more than the limits allow); the others mean
    /// that the file is no core that can be read.
    pub fn parse(file_start: &[u8]) -> Result<Self, ReadError> {
        let identity = [CLASS_64, DATA_LITTLE_ENDIAN];
        let seen = file_start.len().min(EHDR_LEN);
        if !file_start
            .get(..seen.min(4))
            .is_some_and(|bytes| MAGIC.starts_with(bytes))
        {
            return Err(ReadError::NotACore);
        }
        let header = slice(file_start, 0, EHDR_LEN).ok_or_else(|| need(file_start, EHDR_LEN as u64))?;
        if slice(header, 4, 2) != Some(&identity) || u16_le(header, 16) != Some(TYPE_CORE) {
            return Err(ReadError::NotACore);
        }
        let entry_len = u16_le(header, 54).unwrap_or_default();
        if usize::from(entry_len) != PHDR_LEN {
            return Err(ReadError::BadField {
                field: "e_phentsize",
                value: entry_len.into(),
            });
        }
        let count = program_header_count(file_start, header)?;
        let table_at = u64_le(header, 32).unwrap_or_default();
        let table = table(file_start, "e_phoff", table_at, count * PHDR_LEN)?;
        let mut head = Self {
            machine: u16_le(header, 18).unwrap_or_default(),
            loads: Vec::new(),
            notes: None,
        };
        for entry in table.chunks_exact(PHDR_LEN) {
            head.add(entry);
        }
        Ok(head)
    }

    fn add(&mut self, entry: &[u8]) {
        let u64_at = |at| u64_le(entry, at).unwrap_or_default();
        match u32_le(entry, 0) {
            Some(PT_LOAD) => self.loads.push(LoadSegment {
                file_offset: u64_at(8),
                va: u64_at(16),
                gpa: u64_at(24),
                file_len_bytes: u64_at(32),
                memory_len_bytes: u64_at(40),
            }),
            Some(PT_NOTE) if self.notes.is_none() => {
                self.notes = Some(FileExtent {
                    file_offset: u64_at(8),
                    len_bytes: u64_at(32),
                });
            }
            _ => {}
        }
    }

    /// The notes' bytes, if the first bytes of the file that are given hold them.
    ///
    /// # Errors
    /// [`ReadError::NeedMore`] if they do not.
    pub fn notes_in<'a>(&self, file_start: &'a [u8]) -> Result<&'a [u8], ReadError> {
        let Some(extent) = self.notes else { return Ok(&[]) };
        let at = usize::try_from(extent.file_offset).ok();
        let len = usize::try_from(extent.len_bytes).ok();
        let found = at.zip(len).and_then(|(at, len)| slice(file_start, at, len));
        found.ok_or_else(|| need(file_start, extent.file_offset.saturating_add(extent.len_bytes)))
    }
}

impl<'a> CoreNotes<'a> {
    /// Sorts the notes of a core. Unknown notes are skipped, register notes that are too short too.
    ///
    /// # Errors
    /// [`NoteError`] if the bytes are not a sequence of notes.
    pub fn parse(notes: &'a [u8]) -> Result<Self, NoteError> {
        let mut found = Self::default();
        for note in notes::iter(notes) {
            found.add(note?);
        }
        Ok(found)
    }

    fn add(&mut self, note: Note<'a>) {
        match (note.name, note.kind) {
            (prstatus::NAME, prstatus::TYPE) if self.prstatus.len() < READ_CPUS_MAX => {
                self.prstatus.extend(prstatus::decode(note.descriptor));
            }
            (qemu::NAME, qemu::TYPE) if self.qemu.len() < READ_CPUS_MAX => {
                self.qemu.extend(qemu::decode(note.descriptor));
            }
            (vmcoreinfo::NAME, vmcoreinfo::TYPE) if note.descriptor.len() <= VMCOREINFO_LEN_MAX => {
                self.vmcoreinfo = Some(note.descriptor);
            }
            (coreferry::NOTE_NAME, coreferry::NOTE_TYPE) => self.coreferry = Some(note.descriptor),
            _ => {}
        }
    }

    /// State of each vCPU: the QEMU notes if there is one for every PRSTATUS note, as they hold more, else the PRSTATUS
    /// notes.
    #[must_use]
    pub fn cpu_states(&self) -> Vec<CpuState> {
        if !self.qemu.is_empty() && self.qemu.len() >= self.prstatus.len() {
            return self.qemu.clone();
        }
        self.prstatus.iter().map(|status| status.registers.clone()).collect()
    }

    /// The COREFERRY note, if the core has one.
    ///
    /// # Errors
    /// [`CoreferryNoteError`] if it has one that cannot be read.
    pub fn coreferry(&self) -> Result<Option<CoreferryNote>, CoreferryNoteError> {
        self.coreferry.map(CoreferryNote::decode).transpose()
    }
}

/// `e_phnum`, or `sh_info` of section 0 if that is full (elf(5), PN_XNUM).
fn program_header_count(file_start: &[u8], header: &[u8]) -> Result<usize, ReadError> {
    let plain = u16_le(header, 56).unwrap_or_default();
    let count = if plain == PHNUM_EXTENDED {
        let section_at = u64_le(header, 40).unwrap_or_default();
        let section = table(file_start, "e_shoff", section_at, SHDR_LEN)?;
        u64::from(u32_le(section, 44).unwrap_or_default())
    } else {
        u64::from(plain)
    };
    match usize::try_from(count) {
        Ok(count) if count <= READ_PROGRAM_HEADERS_MAX => Ok(count),
        _ => Err(ReadError::TooManySegments { count }),
    }
}

/// A table of the file. One that starts far into the file is refused, else its place would size the caller's buffer.
fn table<'a>(file_start: &'a [u8], field: &'static str, at: u64, len: usize) -> Result<&'a [u8], ReadError> {
    let start_max = (READ_PROGRAM_HEADERS_MAX * PHDR_LEN) as u64;
    if at > start_max {
        return Err(ReadError::BadField { field, value: at });
    }
    let found = usize::try_from(at).ok().and_then(|at| slice(file_start, at, len));
    found.ok_or_else(|| need(file_start, at + len as u64))
}

const fn need(file_start: &[u8], needed: u64) -> ReadError {
    ReadError::NeedMore {
        len_bytes: file_start.len(),
        needed,
    }
}
