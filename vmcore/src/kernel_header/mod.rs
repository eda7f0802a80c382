//! The FreeBSD kernel dump header, the 512 bytes with which a dump introduces itself (`struct kerneldumpheader`,
//! sys/sys/kerneldump.h), and the text that savecore(8) and netdumpd make of it.
//!
//! Versions 1 to 4 are read (1 to 3 as in netdumpd's kerneldump_compat.h), version 4 is written. All integers are
//! big-endian ("dump byte order") and there is no padding.

mod encode;
mod info;
mod parse;

pub use info::{DumpStatus, InfoSource, InfoText, escape};
pub use parse::KernelHeaderError;

/// Length of the header in bytes, in every version.
pub const KERNEL_HEADER_LEN: usize = 512;

/// `magic` of a kernel dump, KERNELDUMPMAGIC.
pub(crate) const MAGIC_KERNEL: &[u8] = b"FreeBSD Kernel Dump";
/// `magic` of a text dump, TEXTDUMPMAGIC.
pub(crate) const MAGIC_TEXT: &[u8] = b"FreeBSD Text Dump";
/// `magic` that savecore leaves behind, KERNELDUMPMAGIC_CLEARED.
pub(crate) const MAGIC_CLEARED: &[u8] = b"Cleared Kernel Dump";
/// KERNELDUMP_TEXT_VERSION and the current KERNELDUMPVERSION.
pub(crate) const VERSION_CURRENT: u32 = 4;
/// KERNELDUMP_AMD64_VERSION, the architecture version of amd64 minidumps and cores.
pub const ARCHITECTURE_VERSION_AMD64: u32 = 2;

/// Field lengths (sys/sys/kerneldump.h); the panic string gives way to new fields.
pub(crate) const MAGIC_LEN: usize = 20;
pub(crate) const ARCHITECTURE_LEN: usize = 12;
pub(crate) const HOSTNAME_LEN: usize = 64;
pub(crate) const VERSION_STRING_LEN: usize = 192;
pub(crate) const PANIC_LEN_V4: usize = 175;
/// Where the parity word stands, in every version.
pub(crate) const PARITY_AT: usize = 508;

/// What kind of dump the magic announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DumpKind {
    /// A dump of kernel memory.
    #[default]
    Kernel,
    /// A textdump(4), a tar archive.
    Text,
    /// A header that savecore has marked as used.
    Cleared,
}

/// `compression`: how the dump's bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// KERNELDUMP_COMP_NONE.
    #[default]
    None,
    /// KERNELDUMP_COMP_GZIP.
    Gzip,
    /// KERNELDUMP_COMP_ZSTD.
    Zstd,
    /// A value that this version does not know.
    Other(u8),
}

/// Does the XOR of all 128 words of the header give zero?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParityVerdict {
    /// It does.
    Pass,
    /// It does not: the header is damaged. It is parsed all the same, as netdumpd does.
    Fail,
}

/// A kernel dump header. Texts end at their first NUL; bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelDumpHeader {
    /// From the magic.
    pub kind: DumpKind,
    /// MACHINE_ARCH of the sender, such as `amd64`.
    pub architecture: String,
    /// Version of the header, 1 to 4.
    pub version: u32,
    /// Version of the dump format of this architecture.
    pub architecture_version: u32,
    /// Length of the dump in bytes, without headers; of the compressed bytes if compressed.
    pub dump_len_bytes: u64,
    /// Planned uncompressed length in bytes; versions 3 and 4, else 0.
    pub dump_extent_bytes: u64,
    /// When the dump was made, seconds since 1970.
    pub dump_time_s: u64,
    /// Length of the encrypted key in bytes, 0 for a plain dump; from version 2 on.
    pub key_len_bytes: u32,
    /// Block size of the dump device in bytes; 4096 with netdump.
    pub block_len_bytes: u32,
    /// Compression; versions 3 and 4, else none.
    pub compression: Compression,
    /// Host name of the sender.
    pub hostname: String,
    /// Kernel version, normally two lines that end with a newline.
    pub version_string: String,
    /// Why the kernel panicked; may be empty.
    pub panic_string: String,
    /// The parity word as it stands in the header, big-endian. Ignored when encoding.
    pub parity: u32,
}
