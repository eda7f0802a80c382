//! Reads headers of versions 1 to 4.

use super::{
    ARCHITECTURE_LEN, Compression, DumpKind, HOSTNAME_LEN, KERNEL_HEADER_LEN, KernelDumpHeader, MAGIC_CLEARED,
    MAGIC_KERNEL, MAGIC_LEN, MAGIC_TEXT, PANIC_LEN_V4, PARITY_AT, ParityVerdict, VERSION_STRING_LEN,
};
use crate::bytes::{slice, u32_be, u64_be, until_nul};

/// The bytes are not a kernel dump header that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KernelHeaderError {
    /// Not 512 bytes.
    #[error("kernel dump header of {len_bytes} bytes, expected {KERNEL_HEADER_LEN}")]
    Length {
        /// Length given.
        len_bytes: usize,
    },
    /// None of the known magic texts.
    #[error("no kernel dump header: the magic is unknown")]
    Magic,
    /// A version that is not known, so that the places of its fields are not.
    #[error("kernel dump header version {version}, known are 1 to 4")]
    Version {
        /// Version found.
        version: u32,
    },
}

/// Where the fields stand that moved between versions; none if the version lacks the field.
struct Places {
    dump_extent: Option<usize>,
    dump_time: usize,
    key_len: Option<usize>,
    block_len: usize,
    compression: Option<usize>,
    hostname: usize,
    panic_len: usize,
}

const PLACES: [Places; 4] = [
    Places {
        dump_extent: None,
        dump_time: 48,
        key_len: None,
        block_len: 56,
        compression: None,
        hostname: 60,
        panic_len: 192,
    },
    Places {
        dump_extent: None,
        dump_time: 48,
        key_len: Some(56),
        block_len: 60,
        compression: None,
        hostname: 64,
        panic_len: 188,
    },
    Places {
        dump_extent: Some(48),
        dump_time: 56,
        key_len: Some(64),
        block_len: 68,
        compression: Some(72),
        hostname: 73,
        panic_len: 179,
    },
    Places {
        dump_extent: Some(496),
        dump_time: 48,
        key_len: Some(56),
        block_len: 60,
        compression: Some(495),
        hostname: 64,
        panic_len: PANIC_LEN_V4,
    },
];

impl KernelDumpHeader {
    /// Reads a header of exactly 512 bytes. A wrong parity is a verdict, not an error.
    ///
    /// # Errors
    /// [`KernelHeaderError`] for another length, an unknown magic or version.
    pub fn parse(bytes: &[u8]) -> Result<(Self, ParityVerdict), KernelHeaderError> {
        if bytes.len() != KERNEL_HEADER_LEN {
            return Err(KernelHeaderError::Length { len_bytes: bytes.len() });
        }
        let kind = kind(text_bytes(bytes, 0, MAGIC_LEN)).ok_or(KernelHeaderError::Magic)?;
        let version = u32_be(bytes, 32).unwrap_or_default();
        let places = usize::try_from(version)
            .ok()
            .and_then(|version| PLACES.get(version.checked_sub(1)?));
        let places = places.ok_or(KernelHeaderError::Version { version })?;
        // The length was checked, and every place lies below it.
        let u32_at = |at| u32_be(bytes, at).unwrap_or_default();
        let u64_at = |at| u64_be(bytes, at).unwrap_or_default();
        let version_string_at = places.hostname + HOSTNAME_LEN;
        let header = Self {
            kind,
            architecture: text(bytes, MAGIC_LEN, ARCHITECTURE_LEN),
            version,
            architecture_version: u32_at(36),
            dump_len_bytes: u64_at(40),
            dump_extent_bytes: places.dump_extent.map(u64_at).unwrap_or_default(),
            dump_time_s: u64_at(places.dump_time),
            key_len_bytes: places.key_len.map(u32_at).unwrap_or_default(),
            block_len_bytes: u32_at(places.block_len),
            compression: places
                .compression
                .and_then(|at| bytes.get(at))
                .copied()
                .map(Compression::from_byte)
                .unwrap_or_default(),
            hostname: text(bytes, places.hostname, HOSTNAME_LEN),
            version_string: text(bytes, version_string_at, VERSION_STRING_LEN),
            panic_string: text(bytes, version_string_at + VERSION_STRING_LEN, places.panic_len),
            parity: u32_at(PARITY_AT),
        };
        let verdict = if parity(bytes) == 0 {
            ParityVerdict::Pass
        } else {
            ParityVerdict::Fail
        };
        Ok((header, verdict))
    }
}

impl Compression {
    pub(crate) const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Zstd,
            other => Self::Other(other),
        }
    }

    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Zstd => 2,
            Self::Other(byte) => byte,
        }
    }
}

/// XOR of all big-endian words; zero for a sound header, parity word included.
pub(crate) fn parity(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().fold(0, |parity, word| parity ^ u32::from_be_bytes(*word))
}

fn kind(magic: &[u8]) -> Option<DumpKind> {
    let known = [
        (MAGIC_KERNEL, DumpKind::Kernel),
        (MAGIC_TEXT, DumpKind::Text),
        (MAGIC_CLEARED, DumpKind::Cleared),
    ];
    known
        .into_iter()
        .find_map(|(text, kind)| (text == magic).then_some(kind))
}

fn text_bytes(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    until_nul(slice(bytes, at, len).unwrap_or_default())
}

fn text(bytes: &[u8], at: usize, len: usize) -> String {
    String::from_utf8_lossy(text_bytes(bytes, at, len)).into_owned()
}
