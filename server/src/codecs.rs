//! The codecs of kdump files' pages. `vmcore` writes zlib, zstd and LZO itself, and reads LZO; all else is done by libraries.

use std::cell::RefCell;

use libdeflater::Decompressor;
use vmcore::kdump::{Compress, Decompress, Deflate, Lzo, PageCodec, Zstd};

/// A compressor of a codec.
#[must_use]
pub fn compressor(codec: PageCodec) -> Box<dyn Compress + Send> {
    match codec {
        PageCodec::Raw => Box::new(Raw),
        PageCodec::Zlib => Box::new(Deflate::new(libdeflater::adler32)),
        PageCodec::Lzo => Box::new(Lzo::default()),
        PageCodec::Snappy => Box::new(Snappy(snap::raw::Encoder::new())),
        PageCodec::Zstd => Box::new(Zstd::default()),
    }
}

/// CRC-32 of a page: the same for the same content.
#[must_use]
pub fn checksum(page: &[u8]) -> u32 {
    libdeflater::crc32(page)
}

/// Pages as they are.
struct Raw;

impl Compress for Raw {
    fn codec(&self) -> PageCodec {
        PageCodec::Raw
    }

    fn compress(&mut self, _: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }
}

struct Snappy(snap::raw::Encoder);

impl Compress for Snappy {
    fn codec(&self) -> PageCodec {
        PageCodec::Snappy
    }

    fn compress(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.resize(start + snap::raw::max_compress_len(page.len()), 0);
        let written = out.get_mut(start..).and_then(|room| self.0.compress(page, room).ok());
        out.truncate(start + written.unwrap_or(0));
        written.is_some()
    }
}

/// Reads pages of every codec but LZO, which `vmcore` reads itself. One set of decompressors for each thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Codecs;

thread_local! {
    static ZLIB: RefCell<Decompressor> = RefCell::new(Decompressor::new());
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = RefCell::new(zstd::bulk::Decompressor::new().ok());
}

impl Decompress for Codecs {
    fn decompress(&self, codec: PageCodec, stored: &[u8], page: &mut [u8]) -> bool {
        let len = page.len();
        let written = match codec {
            PageCodec::Raw | PageCodec::Lzo => None,
            PageCodec::Zlib => ZLIB.with_borrow_mut(|zlib| zlib.zlib_decompress(stored, page).ok()),
            // Snappy says its length first; one that is too long is refused before anything is written.
            PageCodec::Snappy => snap::raw::Decoder::new().decompress(stored, page).ok(),
            PageCodec::Zstd => ZSTD.with_borrow_mut(|zstd| zstd.as_mut()?.decompress_to_buffer(stored, page).ok()),
        };
        written == Some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore::kdump::{StoredPage, store_page};

    #[test]
    fn pages_come_back_and_damaged_ones_do_not() {
        let page: Vec<u8> = (0..4096_u32)
            .flat_map(|at| (at / 16).to_le_bytes())
            .take(4096)
            .collect();
        for codec in [PageCodec::Zlib, PageCodec::Snappy, PageCodec::Zstd] {
            let mut compressor = compressor(codec);
            let mut out = vec![7; 3];
            let stored = store_page(&page, &mut *compressor, &mut out);
            assert_eq!(stored, StoredPage::Bytes(codec, u32::try_from(out.len() - 3).unwrap()));
            assert!(out.len() < 2048, "{codec:?}: {}", out.len());
            let mut back = vec![0; 4096];
            assert!(
                Codecs.decompress(codec, &out[3..], &mut back) && back == page,
                "{codec:?}"
            );
            assert!(!Codecs.decompress(codec, &out[3..], &mut vec![0; 4095]));
            assert!(!Codecs.decompress(codec, &out[3..], &mut vec![0; 4097]));
            assert!(!Codecs.decompress(codec, &out[3..out.len() - 1], &mut back));
        }
    }

    #[test]
    fn pages_that_do_not_shrink_are_stored_as_they_are() {
        let mut seed = 1_u64;
        let page: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        })
        .take(4096)
        .collect();
        for codec in PageCodec::ALL {
            let mut out = Vec::new();
            let stored = store_page(&page, &mut *compressor(codec), &mut out);
            assert_eq!((stored, &out), (StoredPage::Bytes(PageCodec::Raw, 4096), &page));
            let zero = store_page(&[0; 4096], &mut *compressor(codec), &mut out);
            assert_eq!((zero, out.len()), (StoredPage::Zero, 4096));
        }
    }
}
