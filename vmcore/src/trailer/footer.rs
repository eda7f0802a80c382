//! The last bytes of the file.

use super::parse::TrailerError;
use super::{VERSION, body_len, file_len, trailer_len};
use crate::bytes::{Writer, array, slice, u32_le, u64_le};
use crate::limits::{HEADER_ROOM_LEN, PAGE_LEN};

/// Length of the footer in bytes; read so many from the end of the file.
pub const FOOTER_LEN: usize = 128;

/// First bytes of the footer.
const MAGIC: [u8; 8] = *b"CFERRYFT";
/// The footer's own digest covers what stands before it.
const DIGESTED_LEN: usize = FOOTER_LEN - 32;

/// Where the trailer stands, how long the file is, and the digest of the trailer's body: a digest of the whole dump, since
/// the body holds the digests of all chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Length of the whole file in bytes; compare it with the real length.
    pub file_len: u64,
    /// File offset of the trailer's first byte, where the covered part ends.
    pub trailer_offset: u64,
    /// Length of the trailer up to the end of the file.
    pub trailer_len: u64,
    /// Length of the trailer's body: its first bytes, without filler and footer.
    pub body_len: u64,
    /// BLAKE3 of the body.
    pub body_digest: blake3::Hash,
}

impl Footer {
    /// Footer of a file whose first `covered_len` bytes are covered by chunks; nothing if the file would be too long.
    pub(crate) fn new(covered_len: u64, body: &[u8]) -> Option<Self> {
        Some(Self {
            file_len: file_len(covered_len)?,
            trailer_offset: covered_len,
            trailer_len: trailer_len(covered_len),
            body_len: body.len() as u64,
            body_digest: blake3::hash(body),
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(FOOTER_LEN);
        out.bytes(&MAGIC);
        out.u32_le(VERSION);
        out.u32_le(u32::try_from(FOOTER_LEN).unwrap_or_default());
        for value in [self.file_len, self.trailer_offset, self.trailer_len, self.body_len] {
            out.u64_le(value);
        }
        out.bytes(self.body_digest.as_bytes());
        out.fill_to(DIGESTED_LEN, 0);
        let mut out = out.into_vec();
        let digest = blake3::hash(&out);
        out.extend_from_slice(digest.as_bytes());
        out
    }

    /// Reads the footer from the end of `file_end`, the last bytes of a file (at least [`FOOTER_LEN`]).
    ///
    /// # Errors
    /// [`TrailerError::NotFound`] if no footer stands there, which is normal for other writers' files; the other variants
    /// if one does but is damaged or impossible.
    pub fn parse(file_end: &[u8]) -> Result<Self, TrailerError> {
        let bytes = file_end
            .len()
            .checked_sub(FOOTER_LEN)
            .and_then(|at| slice(file_end, at, FOOTER_LEN));
        let bytes = bytes
            .filter(|bytes| bytes.starts_with(&MAGIC))
            .ok_or(TrailerError::NotFound)?;
        let damaged = || TrailerError::FooterDamaged;
        let (content, digest) = bytes.split_at_checked(DIGESTED_LEN).ok_or_else(damaged)?;
        if blake3::hash(content).as_bytes() != digest {
            return Err(damaged());
        }
        let version = u32_le(bytes, 8).ok_or_else(damaged)?;
        if version != VERSION {
            return Err(TrailerError::Version { version });
        }
        let at = |at: usize| u64_le(bytes, at).ok_or_else(damaged);
        let footer = Self {
            file_len: at(16)?,
            trailer_offset: at(24)?,
            trailer_len: at(32)?,
            body_len: at(40)?,
            body_digest: blake3::Hash::from_bytes(array(bytes, 48).ok_or_else(damaged)?),
        };
        if footer.is_possible() {
            Ok(footer)
        } else {
            Err(TrailerError::Impossible {
                footer: Box::new(footer),
            })
        }
    }

    /// All lengths follow from the trailer's offset; a footer that says otherwise is not ours.
    fn is_possible(&self) -> bool {
        let covered_len = self.trailer_offset;
        covered_len >= HEADER_ROOM_LEN
            && covered_len.is_multiple_of(PAGE_LEN)
            && file_len(covered_len) == Some(self.file_len)
            && trailer_len(covered_len) == self.trailer_len
            && body_len(covered_len) == self.body_len
    }
}
