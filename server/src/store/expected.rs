//! The length that a FreeBSD minidump will have, known from its first pages long before the kernel dump header comes.
//!
//! The header (`struct minidumphdr`, sys/amd64/include/minidump.h) gives the sizes of what stands in front of the pages,
//! and the bitmap behind it has one bit for each page that follows (sys/amd64/amd64/minidump_machdep.c). Only amd64 is
//! known; the header of other machines has other fields.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use netdump::Extents;
use vmcore::limits::FILE_LEN_MAX;

use crate::limits::BITMAP_BYTES_MAX;

/// How the header begins.
const MAGIC: &[u8] = b"minidump FreeBSD/amd64\0";
/// Bytes of the header that are looked at.
const HEADER_LEN: usize = 72;
const PAGE_LEN: u64 = 4096;
/// Read at a time while bits are counted.
const PIECE_BYTES: usize = 64 * 1024;

/// What is known of the length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The first bytes have not come.
    Unseen,
    /// The bitmap, which is here, has not come whole.
    Bitmap {
        /// Where the bitmap is.
        place: Range<u64>,
        /// Length of everything but the pages.
        before_pages: u64,
    },
    /// So long.
    Known(u64),
    /// No minidump, or none that is understood.
    Never,
}

impl Expected {
    /// Looks again, after more has come.
    pub(crate) fn look(&mut self, file: &File, received: &Extents) -> io::Result<()> {
        if *self == Self::Unseen && received.contains(&(0..HEADER_LEN as u64)) {
            let mut header = [0; HEADER_LEN];
            file.read_exact_at(&mut header, 0)?;
            *self = of_header(&header).unwrap_or(Self::Never);
        }
        if let Self::Bitmap { place, before_pages } = self
            && received.contains(place)
        {
            let pages = count_bits(file, place)?;
            let len = pages.saturating_mul(PAGE_LEN).saturating_add(*before_pages);
            *self = if len <= FILE_LEN_MAX {
                Self::Known(len)
            } else {
                Self::Never
            };
        }
        Ok(())
    }

    /// The length, once it is known.
    pub(crate) const fn len_bytes(&self) -> Option<u64> {
        match self {
            Self::Known(len) => Some(*len),
            _ => None,
        }
    }
}

/// The length of the file of which `received` is here, if that is enough to tell.
pub(crate) fn expected_len(file: &File, received: &Extents) -> io::Result<Option<u64>> {
    let mut expected = Expected::Unseen;
    expected.look(file, received)?;
    Ok(expected.len_bytes())
}

/// Where the bitmap is, by the header.
fn of_header(header: &[u8]) -> Option<Expected> {
    if !header.starts_with(MAGIC) {
        return None;
    }
    let word = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let rounded = |at: usize| Some(u64::from(word(at)?).next_multiple_of(PAGE_LEN));
    let (version, message_buffer, bitmap, page_map) = (word(24)?, rounded(28)?, rounded(32)?, rounded(36)?);
    let ranges = match version {
        1 | 2 => 0,
        3 => rounded(64)?,
        _ => return None,
    };
    let start = PAGE_LEN + message_buffer + ranges;
    (bitmap <= BITMAP_BYTES_MAX).then(|| Expected::Bitmap {
        place: start..start + bitmap,
        before_pages: start + bitmap + page_map,
    })
}

/// Bits that are set in a part of a file.
fn count_bits(file: &File, place: &Range<u64>) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_BYTES];
    let (mut at, mut bits) = (place.start, 0);
    while at < place.end {
        let left = usize::try_from(place.end - at).unwrap_or(usize::MAX);
        let piece = piece.get_mut(..left.min(PIECE_BYTES)).unwrap_or_default();
        file.read_exact_at(piece, at)?;
        bits += piece.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
        at += u64::try_from(piece.len()).unwrap_or(u64::MAX);
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minidump whose bitmap names `pages` pages.
    fn minidump(version: u32, pages: u32) -> Vec<u8> {
        let mut file = vec![0; 4096];
        file[..MAGIC.len()].copy_from_slice(MAGIC);
        let bitmap_len = 8192_u32;
        for (at, word) in [(24, version), (28, 5000), (32, bitmap_len), (36, 4096), (64, 16)] {
            file[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let bitmap_at = 4096 + 8192 + if version == 3 { 4096 } else { 0 };
        file.resize(bitmap_at + 8192 + 4096, 0);
        for page in 0..pages as usize {
            file[bitmap_at + page / 8] |= 1 << (page % 8);
        }
        file.resize(file.len() + pages as usize * 4096, 7);
        file
    }

    fn look(bytes: &[u8], received: Range<u64>) -> Option<u64> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let mut extents = Extents::new(10);
        extents.insert(received).unwrap();
        expected_len(&file, &extents).unwrap()
    }

    #[test]
    fn the_length_is_known_as_soon_as_the_bitmap_is_here() {
        for version in [1, 2, 3] {
            let bytes = minidump(version, 300);
            let bitmap_ends = (bytes.len() - 300 * 4096 - 4096) as u64;
            assert_eq!(
                look(&bytes, 0..bitmap_ends),
                Some(bytes.len() as u64),
                "version {version}"
            );
            assert_eq!(look(&bytes, 0..bitmap_ends - 1), None);
        }
    }

    #[test]
    fn what_is_no_minidump_says_nothing() {
        let mut other = minidump(2, 3);
        other[0] = b'M';
        assert_eq!(look(&other, 0..100_000), None);
        assert_eq!(look(&minidump(4, 3), 0..100_000), None, "a version that is not known");
        let mut huge = minidump(2, 3);
        huge[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(look(&huge, 0..u64::MAX), None);
        assert_eq!(look(&[], 0..0), None);
    }
}
