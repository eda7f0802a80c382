//! ELF notes (elf(5), "Notes"): a 12-byte header of name length, descriptor length and type, then name and descriptor,
//! each padded to four bytes.

pub mod prstatus;
pub mod qemu;
pub mod vmcoreinfo;

use crate::bytes::{Writer, slice, u32_le};
use crate::limits::NOTE_NAME_LEN_MAX;

/// Length of Elf64_Nhdr.
pub(crate) const NOTE_HEADER_LEN: usize = 12;

/// The most that header, name and padding of one of our notes add to its descriptor.
pub(crate) const NOTE_OVERHEAD_MAX: usize = NOTE_HEADER_LEN + 12 + 3;

/// PRSTATUS and QEMU note of one vCPU, with headers, in bytes.
pub(crate) const REGISTER_NOTES_LEN_PER_CPU: usize =
    2 * (NOTE_HEADER_LEN + 8) + prstatus::DESCRIPTOR_LEN + qemu::DESCRIPTOR_LEN;

/// One note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'a> {
    /// Name without its NUL.
    pub name: &'a [u8],
    /// Type; its meaning depends on the name.
    pub kind: u32,
    /// Descriptor.
    pub descriptor: &'a [u8],
}

/// The bytes of a PT_NOTE segment are not a sequence of notes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A note's header, name or descriptor passes the end.
    #[error("note at byte {at} of {len_bytes} passes the end")]
    Truncated {
        /// Where the note starts.
        at: usize,
        /// Length of all notes in bytes.
        len_bytes: usize,
    },
    /// A name longer than any real one.
    #[error("note at byte {at} has a name of {name_len_bytes} bytes, at most {NOTE_NAME_LEN_MAX} are read")]
    NameTooLong {
        /// Where the note starts.
        at: usize,
        /// Claimed length of the name.
        name_len_bytes: u32,
    },
}

/// Iterates over the notes of a PT_NOTE segment. Ends after the first error.
#[must_use]
pub const fn iter(bytes: &[u8]) -> Notes<'_> {
    Notes { bytes, at: 0 }
}

/// See [`iter`].
#[derive(Debug, Clone)]
pub struct Notes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Notes<'a> {
    type Item = Result<Note<'a>, NoteError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let at = self.at;
        let result = self.read_at(at);
        if result.is_err() {
            self.at = self.bytes.len();
        }
        Some(result)
    }
}

impl<'a> Notes<'a> {
    fn read_at(&mut self, at: usize) -> Result<Note<'a>, NoteError> {
        let truncated = || NoteError::Truncated {
            at,
            len_bytes: self.bytes.len(),
        };
        let name_len_bytes = u32_le(self.bytes, at).ok_or_else(truncated)?;
        let descriptor_len = u32_le(self.bytes, at + 4).and_then(to_usize).ok_or_else(truncated)?;
        let kind = u32_le(self.bytes, at + 8).ok_or_else(truncated)?;
        let name_len = match to_usize(name_len_bytes) {
            Some(len) if len <= NOTE_NAME_LEN_MAX => len,
            _ => return Err(NoteError::NameTooLong { at, name_len_bytes }),
        };
        let name = slice(self.bytes, at + NOTE_HEADER_LEN, name_len).ok_or_else(truncated)?;
        let descriptor_at = at + NOTE_HEADER_LEN + name_len.next_multiple_of(4);
        let descriptor = slice(self.bytes, descriptor_at, descriptor_len).ok_or_else(truncated)?;
        // The padding behind the last descriptor may be missing.
        self.at = descriptor_at + descriptor_len.next_multiple_of(4);
        Ok(Note {
            name: crate::bytes::until_nul(name),
            kind,
            descriptor,
        })
    }
}

fn to_usize(value: u32) -> Option<usize> {
    usize::try_from(value).ok()
}

/// Appends one note. `name` comes without its NUL.
pub(crate) fn put(out: &mut Writer, name: &[u8], kind: u32, descriptor: &[u8]) {
    // Our own names and descriptors are bounded far below 4 GiB.
    out.u32_le(u32::try_from(name.len() + 1).unwrap_or(u32::MAX));
    out.u32_le(u32::try_from(descriptor.len()).unwrap_or(u32::MAX));
    out.u32_le(kind);
    out.bytes(name);
    out.bytes(&[0]);
    out.align4();
    out.bytes(descriptor);
    out.align4();
}
