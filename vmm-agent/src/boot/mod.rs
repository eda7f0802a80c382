//! Puts a kernel into guest memory and says how its vCPUs start.
//!
//! - [`elf64`]: plain ELF64 executables that are entered in 64-bit mode, by the protocol of `guest_shim::boot`
pub mod elf64;
mod tables;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::limits::KERNEL_LEN_MAX;

/// Where a kernel comes from.
#[derive(Clone, Debug)]
pub enum KernelImage {
    /// A file.
    File(PathBuf),
    /// Bytes that are part of this program.
    Bytes(&'static [u8]),
}

/// A kernel could not be put into memory.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file could not be read.
    #[error("cannot read the kernel {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any kernel.
    #[error("the kernel {} is longer than {KERNEL_LEN_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is no kernel that this program can start.
    #[error("the kernel is not an x86-64 ELF executable that this program can start: {why}")]
    Format {
        /// What is wrong.
        why: String,
    },
    /// It does not fit into guest memory.
    #[error("cannot load the kernel into {mem_mib} MiB of guest memory")]
    Load {
        /// Size of guest memory.
        mem_mib: u64,
        /// Why not.
        #[source]
        source: linux_loader::loader::Error,
    },
    /// What goes with it does not fit into guest memory.
    #[error("cannot put the {what} into guest memory")]
    Place {
        /// What.
        what: &'static str,
        /// Why not.
        #[source]
        source: crate::memory::GuestMemoryError,
    },
    /// The command line is longer than its room.
    #[error("the kernel command line has {len_bytes} bytes, at most {len_max} fit")]
    CommandLine {
        /// Its length.
        len_bytes: usize,
        /// The room.
        len_max: usize,
    },
}

impl KernelImage {
    /// The bytes.
    ///
    /// # Errors
    /// [`KernelError::Read`] and [`KernelError::TooLong`].
    pub fn bytes(&self) -> Result<Cow<'static, [u8]>, KernelError> {
        let path = match self {
            KernelImage::Bytes(bytes) => return Ok(Cow::Borrowed(bytes)),
            KernelImage::File(path) => path,
        };
        let read_error = |source| KernelError::Read {
            path: path.clone(),
            source,
        };
        let file = File::open(path).map_err(read_error)?;
        let mut bytes = Vec::new();
        file.take(KERNEL_LEN_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(read_error)?;
        if bytes.len() as u64 > KERNEL_LEN_MAX {
            return Err(KernelError::TooLong { path: path.clone() });
        }
        Ok(Cow::Owned(bytes))
    }
}
