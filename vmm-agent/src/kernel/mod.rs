//! The kernel file that a guest was started from: which kernel it is, and, if asked, the file itself for the core.
//!
//! A kernel that dies early says nothing of itself, and a core that is opened a year later needs symbols that nobody may have
//! any more. Both answers are in the file that was booted. It is looked at by a thread of its own while the guest starts, so
//! that neither a launch nor a dump waits for it.
//!
//! - [`KernelFile`]: the file, open as long as its guest lives; [`LoadedKernel`]: with its bytes, for a moment
//! - [`BootedKernel`]: the thread, and what it found
//! - [`KeptKernel`]: the file as a part of the core, proven to be what was booted
//! - [`build_id`]: the GNU build id of a vmlinux, or of the vmlinux within a bzImage
//! - `payload`: where a bzImage has its vmlinux
//! - `decompress`: what that is compressed with
//! - `stream`: bytes that are read forwards only

mod booted;
pub mod build_id;
mod decompress;
mod file;
mod kept;
mod payload;
mod stream;

pub use booted::{BootedKernel, KernelFacts};
pub use file::{KernelFile, LoadedKernel};
pub use kept::{KeepError, KeptKernel};

use std::fs::File;
use std::io;

/// Bytes that can be read anywhere: a file, or a part of this program.
pub trait ReadAt {
    /// As pread(2): fills `buf` from `at` on, less at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, at)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at)
            .ok()
            .and_then(|at| self.get(at..))
            .unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }
}
