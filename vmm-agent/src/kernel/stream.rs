//! Bytes that are read forwards only: a part of a file, or what comes out of a decompressor.

use std::io::{self, Read};

use super::ReadAt;

/// Reads forwards, and leaves out what is not wanted.
pub(super) trait Forward: Read {
    /// Goes on behind the next `len_bytes`.
    fn skip(&mut self, len_bytes: u64) -> io::Result<()>;
}

/// A part of a file.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    bytes: &'a dyn ReadAt,
    at: u64,
    end: u64,
}

impl<'a> Section<'a> {
    /// At most `len_bytes` from `at` on.
    pub(super) fn new(bytes: &'a dyn ReadAt, at: u64, len_bytes: u64) -> Self {
        let end = at.saturating_add(len_bytes);
        Self { bytes, at, end }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let read = self.bytes.read_at(buf.get_mut(..len).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Forward for Section<'_> {
    fn skip(&mut self, len_bytes: u64) -> io::Result<()> {
        self.at = self.at.saturating_add(len_bytes).min(self.end);
        Ok(())
    }
}

/// What comes out of a decompressor.
pub(super) struct Unpacked<'a>(pub(super) Box<dyn Read + 'a>);

impl Read for Unpacked<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Forward for Unpacked<'_> {
    fn skip(&mut self, len_bytes: u64) -> io::Result<()> {
        // If less than that comes, whoever reads on learns it.
        io::copy(&mut self.0.by_ref().take(len_bytes), &mut io::sink()).map(drop)
    }
}
