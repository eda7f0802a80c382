//! One bit for each page frame, least significant bit first.

use crate::limits::PAGE_LEN;
use crate::memory::MemoryRange;

/// A set of page frames below a bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageBitmap {
    bytes: Vec<u8>,
    frames: u64,
}

impl PageBitmap {
    /// An empty set of frames below `frames`.
    #[must_use]
    pub fn new(frames: u64) -> Self {
        let len = usize::try_from(frames.div_ceil(8)).unwrap_or(usize::MAX);
        Self {
            bytes: vec![0; len],
            frames,
        }
    }

    /// The set that these bytes are. Bits at or above `frames` are dropped.
    #[must_use]
    pub fn from_bytes(mut bytes: Vec<u8>, frames: u64) -> Self {
        let len = usize::try_from(frames.div_ceil(8)).unwrap_or(usize::MAX);
        bytes.resize(len, 0);
        let rest = frames % 8;
        if let Some(last) = bytes.last_mut().filter(|_| rest != 0) {
            *last &= (1 << rest) - 1;
        }
        Self { bytes, frames }
    }

    /// One more than the highest frame that can be in the set.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// The bytes, the last one filled with zero bits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a frame is in the set.
    #[must_use]
    pub fn contains(&self, frame: u64) -> bool {
        let byte = usize::try_from(frame / 8).ok().and_then(|at| self.bytes.get(at));
        byte.is_some_and(|byte| byte >> (frame % 8) & 1 == 1)
    }

    /// Puts frames into the set; those at or above the bound are left out.
    pub fn insert(&mut self, first: u64, count: u64) {
        self.change(first, count, |byte, mask| *byte |= mask);
    }

    /// Takes frames out of the set.
    pub fn remove(&mut self, first: u64, count: u64) {
        self.change(first, count, |byte, mask| *byte &= !mask);
    }

    fn change(&mut self, first: u64, count: u64, apply: impl Fn(&mut u8, u8)) {
        let end = first.saturating_add(count).min(self.frames);
        let mut at = first;
        while at < end {
            let bit = at % 8;
            let now = (8 - bit).min(end - at);
            // `now` bits from `bit` on; at most 8 of them.
            let mask = (((1_u16 << now) - 1) << bit).to_le_bytes()[0];
            if let Some(byte) = usize::try_from(at / 8).ok().and_then(|at| self.bytes.get_mut(at)) {
                apply(byte, mask);
            }
            at += now;
        }
    }

    /// How many frames are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        let (words, rest) = self.bytes.as_chunks::<8>();
        let ones = |sum: u64, word: &[u8; 8]| sum + u64::from(u64::from_le_bytes(*word).count_ones());
        words.iter().fold(0, ones) + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
    }

    /// The frames of the set below `frame`, counted from `from`.
    #[must_use]
    pub fn count_between(&self, from: u64, frame: u64) -> u64 {
        (from..frame.min(self.frames)).filter(|at| self.contains(*at)).count() as u64
    }

    /// The next run of frames of the set at or above `from`: its first frame and its length.
    #[must_use]
    pub fn next_run(&self, from: u64) -> Option<(u64, u64)> {
        let first = self.next(from, true)?;
        let end = self.next(first, false).unwrap_or(self.frames);
        Some((first, end - first))
    }

    /// The next frame at or above `from` that is in the set, or is not.
    fn next(&self, from: u64, wanted: bool) -> Option<u64> {
        let dull = if wanted { 0 } else { 0xff };
        let mut at = from;
        while at < self.frames {
            let byte = *usize::try_from(at / 8).ok().and_then(|at| self.bytes.get(at))?;
            if byte == dull {
                at = (at / 8 + 1) * 8;
            } else if (byte >> (at % 8) & 1 == 1) == wanted {
                return Some(at);
            } else {
                at += 1;
            }
        }
        None
    }

    /// The set as ranges of memory.
    #[must_use]
    pub fn ranges(&self) -> Vec<MemoryRange> {
        self.runs().collect()
    }

    /// The same, one by one: there can be one for every second frame.
    pub fn runs(&self) -> impl Iterator<Item = MemoryRange> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (first, count) = self.next_run(at)?;
            at = first + count;
            Some(MemoryRange {
                gpa: first * PAGE_LEN,
                len_bytes: count * PAGE_LEN,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn runs_are_what_was_put_in_and_not_taken_out() {
        let mut map = PageBitmap::new(101);
        let mut model = BTreeSet::new();
        for (first, count, put) in [
            (3, 1, true),
            (7, 30, true),
            (90, 50, true),
            (8, 8, false),
            (20, 3, false),
        ] {
            for frame in (first..first + count).filter(|frame| *frame < 101) {
                if put {
                    model.insert(frame);
                } else {
                    model.remove(&frame);
                }
            }
            if put {
                map.insert(first, count);
            } else {
                map.remove(first, count);
            }
            assert_eq!(map.count(), model.len() as u64);
            assert!((0..200).all(|frame| map.contains(frame) == model.contains(&frame)));
        }
        let mut runs = Vec::new();
        let mut at = 0;
        while let Some((first, count)) = map.next_run(at) {
            runs.push((first, count));
            at = first + count;
        }
        assert_eq!(runs, [(3, 1), (7, 1), (16, 4), (23, 14), (90, 11)]);
        assert_eq!(map.count_between(7, 24), 6);
        assert_eq!(PageBitmap::from_bytes(vec![0xff; 20], 101).count(), 101);
        assert_eq!(PageBitmap::from_bytes(map.as_bytes().to_vec(), 101), map);
    }
}
