//! The kernel file as a part of the core: only as it was when the guest was started.

use std::io;

use super::{KernelFile, LoadedKernel, ReadAt as _};
use crate::limits::{KERNEL_LEN_MAX, KERNEL_PIECE_LEN};

/// A kernel file and what its bytes were. Its bytes are read again as they are sent: a kernel with its symbols does not stay in
/// memory for the life of a guest.
#[derive(Debug)]
pub struct KeptKernel {
    file: KernelFile,
    name: String,
    len_bytes: u64,
    digest: blake3::Hash,
    /// One for each [`KERNEL_PIECE_LEN`] bytes.
    pieces: Vec<blake3::Hash>,
}

/// The kernel file cannot travel with the core.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A pipe, or no file at all.
    #[error("it is no file that can be read twice; --kernel names one")]
    NoFile,
    /// Longer than any kernel, or nothing.
    #[error("it has {len_bytes} bytes; from 1 to {KERNEL_LEN_MAX} can be kept")]
    Length {
        /// Its length.
        len_bytes: u64,
    },
    /// It cannot be read.
    #[error("it cannot be read at byte {at}: {source}")]
    Read {
        /// Where.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// It is not what it was.
    #[error(
        "it was overwritten since the guest was started, at byte {at} or behind; replace such a file by renaming another"
    )]
    Changed {
        /// The first piece that differs.
        at: u64,
    },
    /// Its digest was not ready.
    #[error("the guest died before the file had been read")]
    TooEarly,
    /// The host was out of threads, or there is a bug.
    #[error("it could not be looked at: {why}")]
    NotExamined {
        /// What happened.
        why: String,
    },
}

impl KeptKernel {
    /// Takes the digests of a kernel as it was booted, and lets go of its bytes.
    ///
    /// # Errors
    /// [`KeepError::NoFile`], [`KeepError::Length`].
    pub fn new(kernel: LoadedKernel) -> Result<Self, KeepError> {
        let LoadedKernel { file, bytes } = kernel;
        let name = file.name().filter(|_| file.is_lasting()).ok_or(KeepError::NoFile)?;
        let len_bytes = bytes.len() as u64;
        if len_bytes == 0 || len_bytes > KERNEL_LEN_MAX {
            return Err(KeepError::Length { len_bytes });
        }
        Ok(Self {
            file,
            name,
            len_bytes,
            digest: blake3::hash(&bytes),
            pieces: bytes.chunks(KERNEL_PIECE_LEN).map(blake3::hash).collect(),
        })
    }

    /// Its file's name, without a path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its length.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// BLAKE3 of all of it, as `blake3:` and hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("blake3:{}", self.digest.to_hex())
    }

    /// How many pieces of [`KERNEL_PIECE_LEN`] bytes it has; the last one may be shorter.
    #[must_use]
    pub const fn piece_count(&self) -> u64 {
        self.len_bytes.div_ceil(KERNEL_PIECE_LEN as u64)
    }

    /// Whether the file still is what it was. Costs nothing if its times say that nobody wrote to it, else reading it. Whoever
    /// forges those is found out by [`KeptKernel::piece`].
    ///
    /// # Errors
    /// [`KeepError::Changed`], [`KeepError::Read`].
    pub fn check(&self) -> Result<(), KeepError> {
        if self.file.is_untouched() {
            return Ok(());
        }
        let mut buffer = vec![0; KERNEL_PIECE_LEN];
        (0..self.piece_count()).try_for_each(|index| self.piece(index, &mut buffer).map(drop))
    }

    /// Reads a piece into `buffer`, which has room for [`KERNEL_PIECE_LEN`] bytes.
    ///
    /// # Errors
    /// [`KeepError::Changed`] if the bytes are not those that were booted, [`KeepError::Read`].
    pub fn piece<'b>(&self, index: u64, buffer: &'b mut [u8]) -> Result<&'b [u8], KeepError> {
        let piece = self.read(index, buffer)?;
        let was = usize::try_from(index).ok().and_then(|index| self.pieces.get(index));
        if was == Some(&blake3::hash(piece)) {
            Ok(piece)
        } else {
            Err(KeepError::Changed { at: start_of(index) })
        }
    }

    fn read<'b>(&self, index: u64, buffer: &'b mut [u8]) -> Result<&'b [u8], KeepError> {
        let start = start_of(index);
        let left = usize::try_from(self.len_bytes.saturating_sub(start)).unwrap_or(usize::MAX);
        let len = left.min(KERNEL_PIECE_LEN).min(buffer.len());
        let mut done = 0;
        while done < len {
            let at = start + done as u64;
            let room = buffer.get_mut(done..len).unwrap_or_default();
            match self.file.read_at(room, at) {
                // It is shorter now.
                Ok(0) => return Err(KeepError::Changed { at }),
                Ok(read) => done += read,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(KeepError::Read { at, source }),
            }
        }
        Ok(buffer.get(..len).unwrap_or_default())
    }
}

const fn start_of(index: u64) -> u64 {
    index.saturating_mul(KERNEL_PIECE_LEN as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt as _;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const LEN: usize = 2 * KERNEL_PIECE_LEN + 1234;

    fn kernel(dir: &tempfile::TempDir) -> (PathBuf, Vec<u8>) {
        let bytes: Vec<u8> = (0..LEN).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
        let path = dir.path().join("vmlinuz-6.1");
        fs::write(&path, &bytes).unwrap();
        // A file system's clock may tick so seldom that a write right behind this one has the same time.
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
            .unwrap();
        (path, bytes)
    }

    fn load(path: &Path) -> LoadedKernel {
        let file = KernelFile::open(path).unwrap();
        let bytes = file.read(KERNEL_LEN_MAX).unwrap();
        LoadedKernel { file, bytes }
    }

    fn kept(path: &Path) -> KeptKernel {
        KeptKernel::new(load(path)).unwrap()
    }

    #[test]
    fn the_pieces_are_the_file_and_its_digest_is_anybodys() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes) = kernel(&dir);
        let kept = kept(&path);
        assert_eq!((kept.name(), kept.len_bytes()), ("vmlinuz-6.1", LEN as u64));
        assert_eq!(kept.digest(), format!("blake3:{}", blake3::hash(&bytes).to_hex()));
        let mut buffer = vec![0; KERNEL_PIECE_LEN];
        let mut all = Vec::new();
        for index in 0..kept.piece_count() {
            all.extend_from_slice(kept.piece(index, &mut buffer).unwrap());
        }
        assert!(all == bytes);
    }

    #[test]
    fn a_file_that_is_replaced_or_touched_is_still_there_and_one_that_is_overwritten_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes) = kernel(&dir);
        let kept = kept(&path);
        let next = dir.path().join("next");
        fs::write(&next, b"another kernel").unwrap();
        fs::rename(&next, &path).unwrap();
        kept.check().unwrap();

        let (path, _) = kernel(&dir);
        let kept = self::kept(&path);
        fs::write(&path, &bytes).unwrap();
        kept.check().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"!", KERNEL_PIECE_LEN as u64 + 5).unwrap();
        let why = kept.check().unwrap_err();
        assert!(
            matches!(why, KeepError::Changed { at } if at == KERNEL_PIECE_LEN as u64),
            "{why}"
        );
        let mut buffer = vec![0; KERNEL_PIECE_LEN];
        assert!(kept.piece(0, &mut buffer).is_ok() && kept.piece(1, &mut buffer).is_err());
        file.set_len(100).unwrap();
        assert!(matches!(kept.check(), Err(KeepError::Changed { .. })));
    }

    #[test]
    fn what_is_no_file_cannot_be_kept() {
        let refused = |kernel| KeptKernel::new(kernel).unwrap_err();
        let built_in = LoadedKernel {
            file: KernelFile::built_in(b"x"),
            bytes: b"x".into(),
        };
        assert!(matches!(refused(built_in), KeepError::NoFile));
        let device = load("/dev/null".as_ref());
        assert!(matches!(refused(device), KeepError::NoFile));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nothing");
        fs::write(&path, b"").unwrap();
        assert!(matches!(refused(load(&path)), KeepError::Length { len_bytes: 0 }));
    }
}
