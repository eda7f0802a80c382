//! A set of page frames that knows how many of its frames come before each.

use super::bitmap::PageBitmap;

/// Frames whose count is kept: 512 bytes of the bitmap, which are counted in a hundred nanoseconds.
const BLOCK_FRAMES: u64 = 4096;

/// A bitmap with counts.
#[derive(Debug, Clone)]
pub(crate) struct RankedBitmap {
    bitmap: PageBitmap,
    /// Frames of the set before each block.
    before: Vec<u64>,
}

impl RankedBitmap {
    pub(crate) fn new(bitmap: PageBitmap) -> Self {
        let mut sum = 0;
        let before = bitmap.as_bytes().chunks(512).map(|block| {
            let here = sum;
            sum += ones(block);
            here
        });
        Self {
            before: before.collect(),
            bitmap,
        }
    }

    pub(crate) const fn bitmap(&self) -> &PageBitmap {
        &self.bitmap
    }

    /// How many frames of the set come before this one; nothing if it is not in the set.
    pub(crate) fn index_of(&self, frame: u64) -> Option<u64> {
        if !self.bitmap.contains(frame) {
            return None;
        }
        let block = usize::try_from(frame / BLOCK_FRAMES).ok()?;
        let byte = usize::try_from(frame / 8).ok()?;
        let bytes = self.bitmap.as_bytes();
        let whole = bytes.get(block * 512..byte)?;
        let part = bytes.get(byte)? & ((1_u8 << (frame % 8)) - 1);
        Some(self.before.get(block)? + ones(whole) + u64::from(part.count_ones()))
    }
}

fn ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word).count_ones());
    words
        .chain(rest.iter().map(|byte| byte.count_ones()))
        .map(u64::from)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_number_of_frames_before() {
        let mut bitmap = PageBitmap::new(20_001);
        for first in (0..20_001).step_by(7) {
            bitmap.insert(first, 3);
        }
        let ranked = RankedBitmap::new(bitmap);
        let mut count = 0;
        for frame in 0..20_010 {
            let is_in = frame % 7 < 3 && frame < 20_001;
            assert_eq!(ranked.index_of(frame), is_in.then_some(count), "{frame}");
            count += u64::from(is_in);
        }
    }
}
