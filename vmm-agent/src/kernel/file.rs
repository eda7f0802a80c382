//! The kernel file, open for as long as its guest lives: a package that replaces it meanwhile does not change what this one is.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::ReadAt;

/// An open kernel file, or bytes of this program.
#[derive(Debug)]
pub struct KernelFile(Content);

#[derive(Debug)]
enum Content {
    File {
        path: PathBuf,
        file: File,
        /// When it was opened.
        stamp: Option<Stamp>,
    },
    Bytes(&'static [u8]),
}

/// A kernel file as it was read to boot a guest.
#[derive(Debug)]
pub struct LoadedKernel {
    /// The file.
    pub file: KernelFile,
    /// What was in it.
    pub bytes: Cow<'static, [u8]>,
}

/// What changes with a write to a file. The time of its last change of any kind does not count: it also comes from a new file that
/// takes the name, which leaves this one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    len_bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of a file proper; nothing of a pipe.
    fn of(metadata: &Metadata) -> Option<Self> {
        metadata.is_file().then(|| Self {
            len_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl KernelFile {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        let path = path.to_owned();
        Ok(Self(Content::File { path, file, stamp }))
    }

    /// Bytes that are part of this program.
    #[must_use]
    pub fn built_in(bytes: &'static [u8]) -> Self {
        Self(Content::Bytes(bytes))
    }

    /// All of it, but no more than `len_max` bytes. To be read once: a pipe gives its bytes only once.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, len_max: u64) -> io::Result<Cow<'static, [u8]>> {
        match &self.0 {
            Content::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Content::File { file, .. } => {
                let mut bytes = Vec::new();
                file.take(len_max).read_to_end(&mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// The last part of its path.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match &self.0 {
            Content::File { path, .. } => Some(path.file_name()?.to_string_lossy().into_owned()),
            Content::Bytes(_) => None,
        }
    }

    /// Whether it is a file that can be read again, as a pipe cannot.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(&self.0, Content::File { stamp: Some(_), .. })
    }

    /// Whether nobody wrote to it since it was opened, as its times tell. What replaced it on disk is another file.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        match &self.0 {
            Content::File { file, stamp, .. } => {
                let now = file.metadata().ok().as_ref().and_then(Stamp::of);
                stamp.is_some() && now == *stamp
            }
            Content::Bytes(_) => true,
        }
    }
}

impl ReadAt for KernelFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        match &self.0 {
            Content::File { file, .. } => file.read_at(buf, at),
            Content::Bytes(bytes) => bytes.read_at(buf, at),
        }
    }
}
