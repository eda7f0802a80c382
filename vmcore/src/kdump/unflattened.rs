//! A flattened file read as the plain one that it describes.

use std::collections::BTreeMap;

use super::flattened::{HEADER_LEN, RECORD_HEADER_LEN, parse_record};
use super::image::KdumpError;
use crate::image::{Absent, FileBytes};
use crate::limits::{FILE_LEN_MAX, FLATTENED_RECORDS_MAX};

/// Bytes of the plain file: how many, and where they are in the flattened one.
#[derive(Debug, Clone, Copy)]
struct Part {
    len: u64,
    source: u64,
}

/// The plain file.
#[derive(Debug, Clone)]
pub(crate) struct Unflattened<F> {
    file: F,
    /// By offset in the plain file, without overlaps.
    parts: BTreeMap<u64, Part>,
    len_bytes: u64,
}

impl<F: FileBytes> Unflattened<F> {
    /// Reads the head of every record. Of records that overlap the later one counts, as with `makedumpfile -R`.
    pub(crate) fn open(file: F) -> Result<Self, KdumpError> {
        let mut whole = Self {
            file,
            parts: BTreeMap::new(),
            len_bytes: 0,
        };
        let mut at = HEADER_LEN;
        for number in 0..FLATTENED_RECORDS_MAX {
            let bad = KdumpError::BadRecord { number };
            let mut head = [0; 16];
            whole.file.read_at(at, &mut head).map_err(|_| bad.clone())?;
            let Some((offset, len)) = parse_record(&head) else {
                return Ok(whole);
            };
            let end = offset.checked_add(len).filter(|end| *end <= FILE_LEN_MAX);
            let source = at + RECORD_HEADER_LEN;
            let next = source.checked_add(len).filter(|next| *next <= whole.file.len_bytes());
            let (Some(end), Some(next)) = (end, next) else {
                return Err(bad);
            };
            if len > 0 {
                whole.cover(offset, end);
                whole.parts.insert(offset, Part { len, source });
                whole.len_bytes = whole.len_bytes.max(end);
            }
            at = next;
        }
        Err(KdumpError::BadRecord {
            number: FLATTENED_RECORDS_MAX,
        })
    }

    /// Cuts what is there between two offsets out of the parts.
    fn cover(&mut self, start: u64, end: u64) {
        while let Some((at, part)) = self.parts.range(..end).next_back().map(|(at, part)| (*at, *part)) {
            let part_end = at + part.len;
            if part_end <= start {
                return;
            }
            self.parts.remove(&at);
            if at < start {
                let kept = Part {
                    len: start - at,
                    ..part
                };
                self.parts.insert(at, kept);
            }
            if part_end > end {
                let kept = Part {
                    len: part_end - end,
                    source: part.source + (end - at),
                };
                self.parts.insert(end, kept);
            }
            if at < start {
                return;
            }
        }
    }
}

impl<F: FileBytes> FileBytes for Unflattened<F> {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: file_offset,
            len_bytes: bytes.len(),
        };
        let end = file_offset.checked_add(bytes.len() as u64).ok_or(absent)?;
        if end > self.len_bytes {
            return Err(absent);
        }
        let mut at = file_offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let here = self.parts.range(..=at).next_back();
            let here = here.filter(|(start, part)| at < **start + part.len);
            // What no record brings was never written: it is zero, as in the plain file.
            let stop = match here {
                Some((start, part)) => start + part.len,
                None => self.parts.range(at..).next().map_or(end, |(start, _)| *start),
            };
            let len = usize::try_from(stop.min(end) - at).map_err(|_| absent)?;
            let (part, later) = rest.split_at_mut_checked(len).ok_or(absent)?;
            match here {
                Some((start, found)) => self
                    .file
                    .read_at(found.source + (at - start), part)
                    .map_err(|_| absent)?,
                None => part.fill(0),
            }
            rest = later;
            at += len as u64;
        }
        Ok(())
    }
}
