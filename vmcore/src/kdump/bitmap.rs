//! One bit for each page frame, least significant bit first.

use std::ops::Range;

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

    /// The runs of frames of the set within a range, ascending: first frame and length. No more of the set is looked at.
    pub fn runs(&self, within: Range<u64>) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = within.end.min(self.frames);
        let mut at = within.start;
        std::iter::from_fn(move || {
            let first = self.next(at..end, true)?;
            at = self.next(first..end, false).unwrap_or(end);
            Some((first, at - first))
        })
    }

    /// The next frame of a range that is in the set, or is not.
    fn next(&self, within: Range<u64>, wanted: bool) -> Option<u64> {
        let dull = if wanted { 0 } else { u64::MAX };
        let mut at = within.start;
        while at < within.end {
            let rest = (self.word(at / 64)? ^ dull) >> (at % 64);
            if rest != 0 {
                return Some(at + u64::from(rest.trailing_zeros())).filter(|found| *found < within.end);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// 64 frames, with none above the last byte.
    fn word(&self, index: u64) -> Option<u64> {
        let bytes = self.bytes.get(usize::try_from(index).ok()?.checked_mul(8)?..)?;
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        Some(u64::from_le_bytes(word))
    }

    /// The set as ranges of memory.
    #[must_use]
    pub fn ranges(&self) -> Vec<MemoryRange> {
        self.memory_runs().collect()
    }

    /// The same, one by one: there can be one for every second frame.
    pub fn memory_runs(&self) -> impl Iterator<Item = MemoryRange> {
        self.runs(0..self.frames).map(|(first, count)| MemoryRange {
            gpa: first * PAGE_LEN,
            len_bytes: count * PAGE_LEN,
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
        let runs = |within| map.runs(within).collect::<Vec<_>>();
        assert_eq!(runs(0..u64::MAX), [(3, 1), (7, 1), (16, 4), (23, 14), (90, 11)]);
        for (from, end) in (0..102).flat_map(|from| (from..110_u64).map(move |end| (from, end))) {
            let frames: BTreeSet<u64> = map
                .runs(from..end)
                .flat_map(|(first, count)| first..first + count)
                .collect();
            assert_eq!(frames, model.range(from..end).copied().collect(), "{from}..{end}");
        }
        assert_eq!(map.count_between(7, 24), 6);
        assert_eq!(PageBitmap::from_bytes(vec![0xff; 20], 101).count(), 101);
        assert_eq!(PageBitmap::from_bytes(map.as_bytes().to_vec(), 101), map);
    }
}
