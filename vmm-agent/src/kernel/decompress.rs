//! What kernels are packed with (Linux scripts/Makefile.lib, `cmd_gzip` and those beside it), read as a stream.
//!
//! bzip2, LZMA and LZO are left out: no distribution packs its x86-64 kernel with them, and their readers are old.

use std::io::{self, Read};

use super::stream::Section;
use crate::limits::{KERNEL_DICTIONARY_LEN_MAX, KERNEL_ZSTD_WINDOW_LOG_MAX};

/// A packing, known by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// CONFIG_KERNEL_UNCOMPRESSED.
    None,
    /// RFC 1952.
    Gzip,
    /// The .xz file format, 2.1.1.
    Xz,
    /// RFC 8878, 3.1.1.
    Zstd,
    /// LZ4 frame format, "Legacy frame".
    Lz4,
}

impl Packing {
    /// What begins with these bytes.
    pub(super) fn of(first: [u8; 6]) -> Option<Self> {
        match first {
            [0x7f, b'E', b'L', b'F', ..] => Some(Self::None),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x02, 0x21, 0x4c, 0x18, ..] => Some(Self::Lz4),
            _ => None,
        }
    }

    /// The bytes as they were before.
    ///
    /// # Errors
    /// If the decompressor has no memory.
    pub(super) fn unpack(self, packed: Section<'_>) -> io::Result<Box<dyn Read + '_>> {
        let packed = io::BufReader::with_capacity(64 << 10, packed);
        Ok(match self {
            Self::None => Box::new(packed),
            Self::Gzip => Box::new(flate2::bufread::GzDecoder::new(packed)),
            Self::Xz => {
                let limit_kib = KERNEL_DICTIONARY_LEN_MAX >> 10;
                Box::new(lzma_rust2::XzReader::new_mem_limit(packed, false, limit_kib))
            }
            Self::Zstd => {
                let mut unpacked = zstd::stream::read::Decoder::with_buffer(packed)?.single_frame();
                unpacked.window_log_max(KERNEL_ZSTD_WINDOW_LOG_MAX)?;
                Box::new(unpacked)
            }
            Self::Lz4 => Box::new(Lz4::new(packed)),
        })
    }
}

/// A legacy frame: the magic, then blocks of at most 8 MiB, each behind its packed length.
struct Lz4<R> {
    packed: R,
    block: Vec<u8>,
    /// Bytes of the block that were delivered.
    next: usize,
    has_begun: bool,
}

/// Longest block, before and after packing ("Legacy frame"; LZ4_COMPRESSBOUND in lz4.h).
const LZ4_BLOCK_LEN: usize = 8 << 20;
const LZ4_PACKED_LEN_MAX: usize = LZ4_BLOCK_LEN + LZ4_BLOCK_LEN / 255 + 16;

impl<R: Read> Lz4<R> {
    fn new(packed: R) -> Self {
        Self {
            packed,
            block: Vec::new(),
            next: 0,
            has_begun: false,
        }
    }

    /// Unpacks the next block; says whether there was one.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut word = [0; 4];
        if !self.has_begun {
            self.packed.read_exact(&mut word)?;
            self.has_begun = true;
        }
        match self.packed.read_exact(&mut word) {
            Ok(()) => {}
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(why) => return Err(why),
        }
        let len = u32::from_le_bytes(word);
        // Behind the last block a kernel has its length, which is no length of a block, or ends the frame where it is.
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= LZ4_PACKED_LEN_MAX) else {
            return Ok(false);
        };
        let mut packed = vec![0; len];
        self.packed.read_exact(&mut packed)?;
        self.block.resize(LZ4_BLOCK_LEN, 0);
        let unpacked = lz4_flex::block::decompress_into(&packed, &mut self.block).map_err(io::Error::other)?;
        self.block.truncate(unpacked);
        self.next = 0;
        Ok(unpacked > 0)
    }
}

impl<R: Read> Read for Lz4<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.next >= self.block.len() && !self.next_block()? {
            return Ok(0);
        }
        let rest = self.block.get(self.next..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        self.next += len;
        Ok(len)
    }
}
