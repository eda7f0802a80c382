//! A stored vmcore as bytes that are there or not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use api::ByteRange;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use vmcore::image::{Absent, FileBytes};

use crate::store::layout;
use crate::store::manifest::Manifest;

/// The vmcore of a stored core. Lost bytes are absent. Bytes that were declared zero are zero; so are those that were left
/// out on purpose, since the manifest only counts them: [`vmcore::dumpfile`] knows by the trailer which they are.
#[derive(Debug)]
pub struct VmcoreBytes {
    file: File,
    len_bytes: u64,
    /// Start and end of each lost range.
    lost: Vec<(u64, u64)>,
}

impl VmcoreBytes {
    /// Opens the vmcore in a core's directory.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(core_dir: &Path, manifest: &Manifest) -> io::Result<Self> {
        let file = File::open(core_dir.join(layout::VMCORE))?;
        Ok(Self::of(file, manifest.file_len_bytes, &manifest.coverage.lost))
    }

    /// A file of that length, of which these ranges are lost.
    #[must_use]
    pub fn of(file: File, len_bytes: u64, lost: &[ByteRange]) -> Self {
        let lost = lost.iter();
        Self {
            file,
            len_bytes,
            lost: lost
                .map(|range| (range.offset, range.offset.saturating_add(range.length)))
                .collect(),
        }
    }

    /// Whether no byte from `start` to `end` is lost or behind the end.
    fn is_there(&self, start: u64, end: u64) -> bool {
        let is_lost = |(lost, lost_end): &(u64, u64)| *lost < end && start < *lost_end;
        end <= self.len_bytes && !self.lost.iter().any(is_lost)
    }
}

impl FileBytes for VmcoreBytes {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: file_offset,
            len_bytes: bytes.len(),
        };
        let end = file_offset.checked_add(bytes.len() as u64).ok_or(absent)?;
        if !self.is_there(file_offset, end) {
            return Err(absent);
        }
        self.file.read_exact_at(bytes, file_offset).map_err(|_| absent)
    }

    fn hole_len_bytes(&self, file_offset: u64, len_bytes: u64) -> u64 {
        let end = file_offset.saturating_add(len_bytes);
        if !self.is_there(file_offset, end) {
            return 0;
        }
        match seek(&self.file, SeekFrom::Data(file_offset)) {
            Ok(data) => data.clamp(file_offset, end) - file_offset,
            // lseek(2): there is nothing but a hole up to the end of the file, whose length it may say otherwise than we.
            Err(Errno::NXIO) if self.file.metadata().is_ok_and(|file| file.len() >= end) => len_bytes,
            Err(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_bytes_are_absent_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmcore");
        std::fs::write(&path, vec![7; 10_000]).unwrap();
        let bytes = VmcoreBytes {
            file: File::open(path).unwrap(),
            len_bytes: 10_000,
            lost: vec![(4096, 8192)],
        };
        for (at, len, is_there) in [
            (0, 4096, true),
            (0, 4097, false),
            (8191, 1, false),
            (8192, 1808, true),
            (9000, 1001, false),
        ] {
            let mut buffer = vec![0; len];
            assert_eq!(bytes.read_at(at, &mut buffer).is_ok(), is_there, "{at} {len}");
            assert_eq!(buffer.iter().all(|byte| *byte == 7), is_there);
        }
        assert!(bytes.read_at(u64::MAX, &mut [0; 2]).is_err());
    }

    #[test]
    fn holes_are_zero_unless_they_are_lost() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        file.write_all_at(&[7; 65536], 1 << 20).unwrap();
        let bytes = VmcoreBytes {
            file,
            len_bytes: 4 << 20,
            lost: vec![(3 << 20, (3 << 20) + 4096)],
        };
        for (at, len, expected) in [
            (0, 4096, 4096),
            (0, 2 << 20, 1 << 20),
            (1 << 20, 4096, 0),
            (2 << 20, 1 << 20, 1 << 20),
            (2 << 20, (1 << 20) + 1, 0),
            (3 << 20, 4096, 0),
            ((4 << 20) - 4096, 4096, 4096),
            ((4 << 20) - 4096, 4097, 0),
        ] {
            let hole = bytes.hole_len_bytes(at, len);
            assert_eq!(hole, expected, "{len} bytes at {at:#x}");
            let mut buffer = vec![1; usize::try_from(hole).unwrap()];
            bytes.read_at(at, &mut buffer).unwrap();
            assert!(buffer.iter().all(|byte| *byte == 0));
        }
    }
}
