//! How a page is stored. The codecs themselves are not this crate's: they enter by traits.

/// How the bytes of a page are stored. The values of [`PageCodec::flag`] are those of makedumpfile (diskdump_mod.h,
/// `DUMP_DH_COMPRESSED_*`), in a page's descriptor and in the header's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageCodec {
    /// As they are.
    Raw,
    /// A zlib stream (RFC 1950).
    Zlib,
    /// LZO1X without any frame.
    Lzo,
    /// Snappy without frames.
    Snappy,
    /// A zstd frame (RFC 8878).
    Zstd,
}

impl PageCodec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Zlib, Self::Lzo, Self::Snappy, Self::Zstd];

    /// The flag of this codec.
    #[must_use]
    pub const fn flag(self) -> u32 {
        match self {
            Self::Raw => 0,
            Self::Zlib => 1,
            Self::Lzo => 2,
            Self::Snappy => 4,
            Self::Zstd => 0x20,
        }
    }

    /// The codec of a descriptor's flags; nothing if they name none or more than one.
    #[must_use]
    pub fn from_flags(flags: u32) -> Option<Self> {
        let codecs = flags & 0x27;
        Self::ALL.into_iter().find(|codec| codec.flag() == codecs)
    }
}

/// Makes pages smaller.
pub trait Compress {
    /// Which codec it is.
    fn codec(&self) -> PageCodec;

    /// Appends `page`, compressed, to `out`. False if that failed; what was appended then is thrown away and the page is
    /// stored as it is.
    fn compress(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool;
}

/// Makes pages of what a [`Compress`] gave.
pub trait Decompress {
    /// Fills `page` wholly from `stored`. False if `stored` is damaged, is not of exactly that length, or the codec is not
    /// known. `stored` is hostile.
    fn decompress(&self, codec: PageCodec, stored: &[u8], page: &mut [u8]) -> bool;
}

impl<D: Decompress + ?Sized> Decompress for &D {
    fn decompress(&self, codec: PageCodec, stored: &[u8], page: &mut [u8]) -> bool {
        (**self).decompress(codec, stored, page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_one_codec_or_none() {
        for codec in PageCodec::ALL {
            assert_eq!(PageCodec::from_flags(codec.flag()), Some(codec));
        }
        assert_eq!(PageCodec::from_flags(3), None);
        assert_eq!(PageCodec::from_flags(0x21), None);
        assert_eq!(
            PageCodec::from_flags(0x18),
            Some(PageCodec::Raw),
            "states of the file, no codec"
        );
    }
}
