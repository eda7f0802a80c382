//! What of a file has arrived: a bounded set of byte ranges.

use alloc::collections::{BTreeMap, btree_map};
use core::{fmt, ops::Range};

/// Byte ranges that are kept apart, merged where they touch, and never more than a given number.
///
/// At the bound it refuses a range that would stand alone and still takes those that touch or fill one: it may know of
/// less than arrived, never of more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Start to end of each range; no two touch, none is empty.
    ranges: BTreeMap<u64, u64>,
    covered_bytes: u64,
    extents_max: usize,
}

impl Extents {
    /// An empty set that will hold at most `extents_max` separate ranges.
    #[must_use]
    pub const fn new(extents_max: usize) -> Self {
        Self {
            ranges: BTreeMap::new(),
            covered_bytes: 0,
            extents_max,
        }
    }

    /// Adds a range and returns how many of its bytes were not in the set before.
    ///
    /// # Errors
    ///
    /// [`TooManyExtents`] if it would be one separate range too many; the set is then as it was.
    pub fn insert(&mut self, range: Range<u64>) -> Result<u64, TooManyExtents> {
        if range.is_empty() {
            return Ok(0);
        }
        // The usual case: a packet that continues the last range of those that begin before it, and reaches no other.
        let before = self
            .ranges
            .range(..=range.start)
            .next_back()
            .filter(|(_, end)| **end >= range.start);
        let (mut start, mut end) = (range.start, range.end);
        let mut swallowed = 0;
        if let Some((&first, &last)) = before {
            if last >= range.end {
                return Ok(0);
            }
            swallowed += last - first;
            start = first;
        } else if !self.fits(&range) {
            return Err(TooManyExtents {
                range,
                extents_max: self.extents_max,
            });
        }
        while let Some((&next, &next_end)) = self.ranges.range(start.saturating_add(1)..=end).next() {
            swallowed += next_end - next;
            end = end.max(next_end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(start, end);
        let new_bytes = (end - start) - swallowed;
        self.covered_bytes += new_bytes;
        Ok(new_bytes)
    }

    /// Whether [`Extents::insert`] would take the range.
    #[must_use]
    pub fn fits(&self, range: &Range<u64>) -> bool {
        self.ranges.len() < self.extents_max || range.is_empty() || self.touches(range)
    }

    /// Whether every byte of the range is in the set; true for an empty range.
    #[must_use]
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty()
            || self
                .ranges
                .range(..=range.start)
                .next_back()
                .is_some_and(|(_, end)| *end >= range.end)
    }

    /// Separate ranges that the set may hold.
    #[must_use]
    pub const fn extents_max(&self) -> usize {
        self.extents_max
    }

    /// Bytes in the set.
    #[must_use]
    pub const fn covered_bytes(&self) -> u64 {
        self.covered_bytes
    }

    /// Separate ranges in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// One past the last byte in the set; zero when it is empty.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// The ranges in ascending order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            inner: self.ranges.iter(),
        }
    }

    /// The parts of `within` that are not in the set, in ascending order.
    #[must_use]
    pub fn gaps(&self, within: Range<u64>) -> Gaps<'_> {
        let covered_to = self
            .ranges
            .range(..=within.start)
            .next_back()
            .map_or(0, |(_, end)| *end);
        let from = within.start.max(covered_to);
        let inner = if from < within.end {
            self.ranges.range(from..within.end)
        } else {
            self.ranges.range(0..0)
        };
        Gaps {
            from,
            to: within.end,
            inner,
        }
    }

    /// What is missing of a file of `file_len` bytes: neither in this set nor in `declared`, ascending.
    pub fn lost<'a>(&'a self, file_len: u64, declared: &'a Self) -> impl Iterator<Item = Range<u64>> + 'a {
        self.gaps(0..file_len).flat_map(|gap| declared.gaps(gap))
    }

    fn touches(&self, range: &Range<u64>) -> bool {
        self.ranges
            .range(..=range.end)
            .next_back()
            .is_some_and(|(_, end)| *end >= range.start)
    }
}

/// The ranges of an [`Extents`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    inner: btree_map::Iter<'a, u64, u64>,
}

impl Iterator for Iter<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        self.inner.next().map(|(start, end)| *start..*end)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Extents {
    type Item = Range<u64>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// What lies between the ranges of an [`Extents`].
#[derive(Clone, Debug)]
pub struct Gaps<'a> {
    from: u64,
    to: u64,
    inner: btree_map::Range<'a, u64, u64>,
}

impl Iterator for Gaps<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        while self.from < self.to {
            let (start, end) = self
                .inner
                .next()
                .map_or((self.to, self.to), |(start, end)| (*start, *end));
            let gap = self.from..start;
            self.from = end;
            if !gap.is_empty() {
                return Some(gap);
            }
        }
        None
    }
}

/// A range was refused because the set is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooManyExtents {
    /// The range that was to be added.
    pub range: Range<u64>,
    /// Separate ranges that the set holds.
    pub extents_max: usize,
}

impl fmt::Display for TooManyExtents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, extents_max } = self;
        write!(
            f,
            "bytes {}..{} would be a separate range beyond the limit of {extents_max}",
            range.start, range.end
        )
    }
}

impl core::error::Error for TooManyExtents {}
