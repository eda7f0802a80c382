//! Puts a kernel into guest memory and says how its vCPUs start.
//!
//! The file itself says which of the three kinds it is:
//!
//! - `linux`: a Linux bzImage, by the 64-bit boot protocol
//! - `pvh`: an ELF64 executable with a PVH entry, such as an uncompressed Linux vmlinux
//! - `elf64`: an ELF64 executable whose note (`notes`) asks for the protocol of `guest_shim::boot`, entered in 64-bit mode
//!
//! The first two find their machine by ACPI (`acpi`, `dsdt`), and start the other vCPUs themselves.
mod acpi;
mod dsdt;
mod elf64;
mod layout;
mod linux;
mod notes;
mod pvh;
mod tables;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use guest_shim::boot::{NOTE_NAME, NOTE_TYPE};

use crate::kernel::{KernelFile, LoadedKernel};
use crate::kvm::Start;
use crate::limits::KERNEL_LEN_MAX;
use crate::memory::{Bytes as _, GuestAddress, GuestMemory};
use layout::{COMMAND_LINE_GPA, COMMAND_LINE_ROOM};

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
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any kernel.
    #[error("{} is longer than {KERNEL_LEN_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is no kernel that this program can start.
    #[error("the kernel is neither a Linux bzImage nor an x86-64 ELF executable that this program can start: {why}")]
    Format {
        /// What is wrong.
        why: String,
    },
    /// It is an executable that names no way to enter it.
    #[error(
        "the kernel is an x86-64 ELF executable without an entry that this program knows: neither a PVH entry (Xen note 18, \
         which Linux has with CONFIG_PVH) nor the note of a plain guest; for Linux, the bzImage (vmlinuz) starts as well"
    )]
    NoEntry,
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
    /// The initial RAM disk has no room beside the kernel.
    #[error(
        "an initial RAM disk of {len_bytes} bytes does not fit beside the kernel into {mem_mib} MiB of guest memory"
    )]
    Initrd {
        /// Its length.
        len_bytes: u64,
        /// Size of guest memory.
        mem_mib: u64,
    },
    /// A plain executable takes none.
    #[error("only Linux bzImages and PVH kernels take an initial RAM disk")]
    InitrdRefused,
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
    /// Where its file is on this machine, for those who look for its symbols later.
    pub(crate) fn absolute_path(&self) -> Option<String> {
        match self {
            Self::File(path) => std::path::absolute(path).ok()?.to_str().map(str::to_owned),
            Self::Bytes(_) => None,
        }
    }

    /// Opens and reads it.
    ///
    /// # Errors
    /// [`KernelError::Read`] and [`KernelError::TooLong`].
    pub fn load(&self) -> Result<LoadedKernel, KernelError> {
        let file = match self {
            Self::Bytes(bytes) => KernelFile::built_in(bytes),
            Self::File(path) => KernelFile::open(path).map_err(self.read_error())?,
        };
        let bytes = file.read(KERNEL_LEN_MAX + 1).map_err(self.read_error())?;
        if bytes.len() as u64 > KERNEL_LEN_MAX {
            return Err(KernelError::TooLong { path: self.path() });
        }
        Ok(LoadedKernel { file, bytes })
    }

    /// The bytes.
    ///
    /// # Errors
    /// As [`KernelImage::load`].
    pub fn bytes(&self) -> Result<Cow<'static, [u8]>, KernelError> {
        Ok(self.load()?.bytes)
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Bytes(_) => PathBuf::new(),
        }
    }

    fn read_error(&self) -> impl Fn(io::Error) -> KernelError {
        let path = self.path();
        move |source| KernelError::Read {
            path: path.clone(),
            source,
        }
    }
}

/// What a machine starts with.
#[derive(Clone, Copy, Debug)]
pub struct BootParts<'a> {
    /// The kernel file.
    pub kernel: &'a [u8],
    /// The initial RAM disk.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Number of vCPUs.
    pub vcpus: u8,
}

/// How a machine starts.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The state of each vCPU.
    pub starts: Vec<Start>,
    /// Whether all RAM below the device hole is mapped one to one for good, as plain executables have it.
    pub identity_mapped: bool,
}

/// Puts a kernel and what goes with it into memory.
///
/// # Errors
/// [`KernelError`] if it is no kernel or does not fit.
pub fn load(memory: &GuestMemory, parts: BootParts<'_>) -> Result<Boot, KernelError> {
    let BootParts {
        kernel,
        initrd,
        command_line,
        vcpus,
    } = parts;
    let first = if linux::is_bz_image(kernel) {
        let rsdp_gpa = acpi::write(memory, vcpus)?;
        linux::load(memory, kernel, initrd, command_line, rsdp_gpa)?
    } else {
        let loaded = elf64::load(memory, kernel)?;
        let Some(entry) = loaded.pvh_entry else {
            if !notes::has(kernel, &NOTE_NAME, NOTE_TYPE) {
                return Err(KernelError::NoEntry);
            }
            if initrd.is_some() {
                return Err(KernelError::InitrdRefused);
            }
            let starts = elf64::finish(memory, &loaded, command_line, vcpus)?;
            return Ok(Boot {
                starts,
                identity_mapped: true,
            });
        };
        let rsdp_gpa = acpi::write(memory, vcpus)?;
        pvh::finish(memory, entry, loaded.end, initrd, command_line, rsdp_gpa)?
    };
    let mut starts = vec![first];
    starts.resize(usize::from(vcpus), Start::WaitForSipi);
    Ok(Boot {
        starts,
        identity_mapped: false,
    })
}

fn place_command_line(memory: &GuestMemory, text: &str, len_max: usize) -> Result<(), KernelError> {
    let (len_bytes, len_max) = (text.len(), len_max.min(COMMAND_LINE_ROOM - 1));
    if len_bytes > len_max || text.contains('\0') {
        return Err(KernelError::CommandLine { len_bytes, len_max });
    }
    let place_error = |source| KernelError::Place {
        what: "command line",
        source,
    };
    let text = [text.as_bytes(), &[0]].concat();
    memory
        .ram()
        .write_slice(&text, GuestAddress(COMMAND_LINE_GPA))
        .map_err(place_error)
}

/// Puts the initial RAM disk as high as it may lie, but not below `lowest`; returns where and how long it is.
fn place_initrd(
    memory: &GuestMemory,
    initrd: Option<&[u8]>,
    lowest: u64,
    end_max: u64,
) -> Result<(u64, u64), KernelError> {
    let mem_mib = memory.len_bytes() >> 20;
    let len_bytes = initrd.map_or(0, |initrd| initrd.len() as u64);
    let low_ram = memory.ranges().first().and_then(vmcore::MemoryRange::end).unwrap_or(0);
    let start = low_ram.min(end_max).checked_sub(len_bytes).map(|start| start & !0xfff);
    let gpa = start.filter(|start| *start >= lowest);
    let (Some(initrd), Some(gpa)) = (initrd, gpa) else {
        // Without one, the kernel itself must still fit.
        return match gpa {
            Some(_) => Ok((0, 0)),
            None => Err(KernelError::Initrd { len_bytes, mem_mib }),
        };
    };
    let place_error = |source| KernelError::Place {
        what: "initial RAM disk",
        source,
    };
    memory
        .ram()
        .write_slice(initrd, GuestAddress(gpa))
        .map_err(place_error)?;
    Ok((gpa, len_bytes))
}

/// The bytes at an offset.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use guest_shim::DEMO_GUEST_ELF;

    use super::*;

    fn load_plain(kernel: &[u8]) -> Result<Boot, KernelError> {
        let memory = GuestMemory::create(32).unwrap();
        let parts = BootParts {
            kernel,
            initrd: None,
            command_line: "",
            vcpus: 2,
        };
        load(&memory, parts)
    }

    #[test]
    fn an_executable_that_names_no_entry_is_refused_and_the_demo_guest_is_not() {
        let boot = load_plain(DEMO_GUEST_ELF).unwrap();
        assert!(boot.identity_mapped && boot.starts.len() == 2);
        let mut other = DEMO_GUEST_ELF.to_vec();
        let at = other.windows(10).position(|window| window == NOTE_NAME).unwrap();
        other[at] = b'k';
        let refused = load_plain(&other).unwrap_err().to_string();
        assert!(
            refused.contains("CONFIG_PVH") && refused.contains("vmlinuz"),
            "{refused}"
        );
    }
}
