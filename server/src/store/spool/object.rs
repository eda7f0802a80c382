//! What comes beside the file: the kernel dump header and the key.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;

use super::reserve::set_aside;
use super::{SpoolError, io_error};
use crate::limits::HEAD_BYTES_MAX;
use crate::store::layout;

/// Space set aside for the kernel dump header: one block.
pub(super) const OBJECT_BYTES: u64 = 4096;

/// A small object that comes beside the file: kernel dump header or key.
#[derive(Debug)]
pub(super) struct Object {
    path: PathBuf,
    file: Option<File>,
    pub(super) bytes: Vec<u8>,
}

impl Object {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            bytes: Vec::new(),
        }
    }

    /// One whose space is set aside, so that it can come when the disk is full.
    pub(super) fn prepared(path: PathBuf) -> Result<Self, SpoolError> {
        let file = layout::new_file(&path).map_err(io_error("make", &path))?;
        let set_aside = set_aside(&file, FallocateFlags::KEEP_SIZE, OBJECT_BYTES);
        set_aside.map_err(io_error("set aside space in", &path))?;
        Ok(Self {
            file: Some(file),
            ..Self::new(path)
        })
    }

    /// One that a receiver left behind.
    pub(super) fn reopen(path: PathBuf) -> Result<Self, SpoolError> {
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Some(file),
            Err(why) if why.kind() == io::ErrorKind::NotFound => None,
            Err(why) => return Err(io_error("open", &path)(why)),
        };
        let mut bytes = Vec::new();
        if let Some(file) = &file {
            let read = file.take(HEAD_BYTES_MAX).read_to_end(&mut bytes);
            read.map_err(io_error("read", &path))?;
        }
        Ok(Self { path, file, bytes })
    }

    /// Takes bytes; the protocol's session has bounded `offset` to a few KiB.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SpoolError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(layout::new_file(&self.path).map_err(io_error("make", &self.path))?),
        };
        file.write_all_at(bytes, offset)
            .map_err(io_error("write to", &self.path))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(room) = self.bytes.get_mut(start..end) {
            room.copy_from_slice(bytes);
        }
        Ok(())
    }
}
