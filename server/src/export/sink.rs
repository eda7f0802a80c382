//! Where exported bytes go.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use vmcore::kdump::flattened;

/// Takes the bytes of a file.
pub trait Sink {
    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// The system's.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Whether it takes bytes in any order, and zeros where nothing was written.
    fn can_seek(&self) -> bool;

    /// Everything was written; the file has this length.
    ///
    /// # Errors
    /// The system's.
    fn finish(&mut self, file_len: u64) -> io::Result<()>;
}

/// A file of one's own; zeros become holes.
#[derive(Debug)]
pub struct FileSink<'f>(pub &'f File);

impl Sink for FileSink<'_> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn finish(&mut self, file_len: u64) -> io::Result<()> {
        self.0.set_len(file_len)
    }
}

/// A stream: bytes must come in order, gaps are filled with zeros.
#[derive(Debug)]
pub struct StreamSink<W> {
    out: W,
    at: u64,
}

impl<W: Write> StreamSink<W> {
    /// To a stream.
    pub const fn new(out: W) -> Self {
        Self { out, at: 0 }
    }

    fn zeros_to(&mut self, offset: u64) -> io::Result<()> {
        static ZEROS: [u8; 65_536] = [0; 65_536];
        while self.at < offset {
            let len = usize::try_from(offset - self.at).map_or(ZEROS.len(), |len| len.min(ZEROS.len()));
            self.out.write_all(ZEROS.get(..len).unwrap_or_default())?;
            self.at += len as u64;
        }
        Ok(())
    }
}

impl<W: Write> Sink for StreamSink<W> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset < self.at {
            return Err(io::Error::other(format!(
                "a stream at byte {} cannot go back to {offset}",
                self.at
            )));
        }
        self.zeros_to(offset)?;
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn can_seek(&self) -> bool {
        false
    }

    fn finish(&mut self, file_len: u64) -> io::Result<()> {
        self.zeros_to(file_len)?;
        self.out.flush()
    }
}

/// A stream of records that say where their bytes belong.
#[derive(Debug)]
pub struct FlatSink<W> {
    out: W,
    has_begun: bool,
}

impl<W: Write> FlatSink<W> {
    /// To a stream.
    pub const fn new(out: W) -> Self {
        Self { out, has_begun: false }
    }
}

impl<W: Write> Sink for FlatSink<W> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.has_begun {
            self.out.write_all(&flattened::header())?;
            self.has_begun = true;
        }
        self.out
            .write_all(&flattened::record_header(offset, bytes.len() as u64))?;
        self.out.write_all(bytes)
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn finish(&mut self, _: u64) -> io::Result<()> {
        self.out.write_all(&flattened::end())?;
        self.out.flush()
    }
}
