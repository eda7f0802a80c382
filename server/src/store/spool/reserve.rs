//! Space set aside while there is some, so that a core can be made of a session on a full disk.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::len_u64;
use crate::limits::{RESERVE_BYTES_MIN, RESERVE_BYTES_PER_CHUNK, RESERVE_BYTES_PER_EXTENT};
use crate::store::layout;

/// Space set aside, so that the manifest can be written on a full disk: it is written into this very file.
#[derive(Debug)]
pub(super) struct Reserve {
    file: File,
    len_bytes: u64,
}

impl Reserve {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut reserve = Self {
            file: layout::new_file(path)?,
            len_bytes: 0,
        };
        reserve.grow_to(RESERVE_BYTES_MIN)?;
        Ok(reserve)
    }

    /// That of a session whose receiver died.
    pub(super) fn reopen(path: &Path) -> io::Result<Self> {
        let file = layout::kept_file(path)?;
        let len_bytes = file.metadata()?.len();
        let mut reserve = Self { file, len_bytes };
        reserve.grow_to(RESERVE_BYTES_MIN)?;
        Ok(reserve)
    }

    /// Sets aside at least this much; grows in large steps, so that it is called often and works seldom.
    pub(super) fn grow_to(&mut self, need_bytes: u64) -> io::Result<()> {
        if need_bytes <= self.len_bytes {
            return Ok(());
        }
        let len_bytes = need_bytes.max(self.len_bytes.saturating_mul(2));
        set_aside(&self.file, FallocateFlags::empty(), len_bytes)?;
        self.len_bytes = len_bytes;
        Ok(())
    }
}

/// Sets space aside in a file; a file system that cannot do this is used without.
pub(super) fn set_aside(file: &File, flags: FallocateFlags, len_bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, flags, 0, len_bytes) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// Bytes that the records of a core of this shape take at most.
pub(super) fn reserve_needed(chunks: usize, extents: usize) -> u64 {
    RESERVE_BYTES_MIN / 2
        + len_u64(chunks).saturating_mul(RESERVE_BYTES_PER_CHUNK)
        + len_u64(extents).saturating_mul(RESERVE_BYTES_PER_EXTENT)
}
