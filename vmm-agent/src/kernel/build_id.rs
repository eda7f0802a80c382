//! The GNU build id of a kernel file. The file is the operator's, and is read as if it were hostile all the same.

use std::io::{self, Read as _};

use vmcore::notes;

use super::ReadAt;
use super::decompress::Packing;
use super::payload;
use super::stream::{Forward, Section, Unpacked};
use crate::limits::{KERNEL_NOTES_LEN_MAX, KERNEL_NOTES_OFFSET_MAX, KERNEL_PROGRAM_HEADERS_MAX};

// Elf64_Ehdr and Elf64_Phdr (elf(5)).
const EHDR_LEN: usize = 64;
const E_PHOFF: usize = 32;
const E_PHENTSIZE: usize = 54;
const E_PHNUM: usize = 56;
const PHDR_LEN: usize = 56;
const P_OFFSET: usize = 8;
const P_FILESZ: usize = 32;
const PT_NOTE: u32 = 4;
/// ELF, 64 bits, little-endian.
const IDENTITY: &[u8] = b"\x7fELF\x02\x01";
/// `NT_GNU_BUILD_ID` (elf.h).
const GNU_BUILD_ID: u32 = 3;
/// Longest id in bytes: that of a SHA-512 (ld(1), `--build-id`).
const ID_LEN_MAX: usize = 64;

/// A kernel file does not tell its build id.
#[derive(Debug, thiserror::Error)]
pub enum BuildIdError {
    /// It cannot be read, or not be unpacked.
    #[error("cannot read the kernel as far as its notes: {0}")]
    Read(#[from] io::Error),
    /// The vmlinux of a bzImage is packed in a way that is not known here.
    #[error(
        "the kernel is packed in an unknown way, its payload begins with {first:02x?}; gzip, xz, zstd and lz4 are known"
    )]
    Packing {
        /// The first bytes of what is packed.
        first: [u8; 6],
    },
    /// No vmlinux.
    #[error("the kernel is no little-endian ELF64 file, nor a bzImage of one")]
    NoElf,
    /// Its headers make no sense, or lead too far.
    #[error("the kernel's ELF header says {field} = {value}, which is not read")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// It has none.
    #[error("the kernel has no build id in its notes; `ld --build-id` gives it one")]
    None,
}

/// The build id of a vmlinux or of the vmlinux in a bzImage, in lower-case hexadecimal. Of a packed one no more is unpacked
/// than is needed.
///
/// # Errors
/// [`BuildIdError`] says why it is not known.
pub fn of(image: &dyn ReadAt) -> Result<String, BuildIdError> {
    let Some((at, len_bytes)) = payload::find(image) else {
        return in_elf(&mut Section::new(image, 0, u64::MAX));
    };
    let mut packed = Section::new(image, at, len_bytes);
    let mut first = [0; 6];
    packed.read_exact(&mut first)?;
    let packed = Section::new(image, at, len_bytes);
    match Packing::of(first) {
        Some(Packing::None) => in_elf(&mut { packed }),
        Some(packing) => in_elf(&mut Unpacked(packing.unpack(packed)?)),
        None => Err(BuildIdError::Packing { first }),
    }
}

/// The build id in the notes of an ELF file.
fn in_elf(file: &mut dyn Forward) -> Result<String, BuildIdError> {
    let mut header = [0; EHDR_LEN];
    file.read_exact(&mut header)?;
    if !header.starts_with(IDENTITY) {
        return Err(BuildIdError::NoElf);
    }
    let mut at = EHDR_LEN as u64;
    for (offset, len_bytes) in note_segments(file, &header, &mut at)? {
        // What lies before the end of an earlier one is not read again.
        let Some(gap) = offset.checked_sub(at) else { continue };
        let len = usize::try_from(len_bytes)
            .ok()
            .filter(|len| *len <= KERNEL_NOTES_LEN_MAX);
        let len = len.ok_or(BuildIdError::Field {
            field: "p_filesz",
            value: len_bytes,
        })?;
        file.skip(gap)?;
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes)?;
        at = offset + len_bytes;
        if let Some(id) = in_notes(&bytes) {
            return Ok(id);
        }
    }
    Err(BuildIdError::None)
}

/// Offset and length of the note segments in the order of the file; `at` moves to the end of their table.
fn note_segments(
    file: &mut dyn Forward,
    header: &[u8; EHDR_LEN],
    at: &mut u64,
) -> Result<Vec<(u64, u64)>, BuildIdError> {
    let bad = |field, value| BuildIdError::Field { field, value };
    let table = long(header, E_PHOFF);
    let entries = short(header, E_PHNUM);
    if usize::from(short(header, E_PHENTSIZE)) != PHDR_LEN {
        return Err(bad("e_phentsize", short(header, E_PHENTSIZE).into()));
    }
    if entries > KERNEL_PROGRAM_HEADERS_MAX {
        return Err(bad("e_phnum", entries.into()));
    }
    let gap = table.checked_sub(*at).filter(|gap| *gap <= KERNEL_NOTES_OFFSET_MAX);
    file.skip(gap.ok_or_else(|| bad("e_phoff", table))?)?;
    let mut bytes = vec![0; usize::from(entries) * PHDR_LEN];
    file.read_exact(&mut bytes)?;
    *at = table + bytes.len() as u64;
    let mut found = Vec::new();
    for entry in bytes.chunks_exact(PHDR_LEN) {
        if entry.first_chunk().map(|kind| u32::from_le_bytes(*kind)) != Some(PT_NOTE) {
            continue;
        }
        let offset = long(entry, P_OFFSET);
        if offset > KERNEL_NOTES_OFFSET_MAX {
            return Err(bad("p_offset", offset));
        }
        found.push((offset, long(entry, P_FILESZ)));
    }
    found.sort_unstable();
    Ok(found)
}

fn in_notes(bytes: &[u8]) -> Option<String> {
    let id = notes::iter(bytes)
        .map_while(Result::ok)
        .find(|note| note.name == b"GNU" && note.kind == GNU_BUILD_ID)?
        .descriptor;
    let is_id = (1..=ID_LEN_MAX).contains(&id.len());
    is_id.then(|| id.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn short(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map_or(0, |found| u16::from_le_bytes(*found))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map_or(0, |found| u64::from_le_bytes(*found))
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "files of a test are small")]
mod tests;
