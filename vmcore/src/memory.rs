//! Ranges of guest physical memory.

use crate::limits::BITMAP_RANGES_MAX;

/// One range of guest RAM, in guest physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryRange {
    /// First guest physical address; a multiple of the page length.
    pub gpa: u64,
    /// Length in bytes; a multiple of the page length, not zero.
    pub len_bytes: u64,
}

/// The ranges of a bitmap. Of more than [`BITMAP_RANGES_MAX`] the last one reaches to `end`.
pub(crate) fn bounded(ranges: impl Iterator<Item = MemoryRange>, end: u64) -> Vec<MemoryRange> {
    let mut kept: Vec<MemoryRange> = ranges.take(BITMAP_RANGES_MAX).collect();
    if kept.len() == BITMAP_RANGES_MAX
        && let Some(last) = kept.last_mut()
    {
        last.len_bytes = last.len_bytes.max(end.saturating_sub(last.gpa));
    }
    kept
}

impl MemoryRange {
    /// The first address behind the range, or nothing if it would pass the end of the address space.
    #[must_use]
    pub const fn end(&self) -> Option<u64> {
        self.gpa.checked_add(self.len_bytes)
    }

    /// Does the range hold all of `len_bytes` bytes at `gpa`?
    #[must_use]
    pub fn contains(&self, gpa: u64, len_bytes: u64) -> bool {
        match (gpa.checked_add(len_bytes), self.end()) {
            (Some(wanted_end), Some(end)) => gpa >= self.gpa && wanted_end <= end,
            _ => false,
        }
    }

    /// The parts of the range that none of `holes` (ascending, disjoint) covers, ascending.
    #[must_use]
    pub fn without(&self, holes: &[Self]) -> Vec<Self> {
        self.parts(holes)
            .filter(|(_, is_hole)| !is_hole)
            .map(|(part, _)| part)
            .collect()
    }

    /// The whole range in parts, ascending: those that one of `holes` (ascending, disjoint) covers, and the others.
    pub fn parts<'h>(&self, holes: &'h [Self]) -> impl Iterator<Item = (Self, bool)> + use<'h> {
        let end = self.end().unwrap_or(self.gpa);
        let mut at = self.gpa;
        let first = holes.partition_point(|hole| hole.end().unwrap_or(u64::MAX) <= at);
        let mut holes = holes.get(first..).unwrap_or_default().iter().peekable();
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let hole = holes.peek().filter(|hole| hole.gpa < end);
            let (part_end, is_hole) = match hole {
                Some(hole) if hole.gpa > at => (hole.gpa, false),
                Some(hole) => (hole.end().unwrap_or(end).min(end), true),
                None => (end, false),
            };
            if is_hole {
                holes.next();
            }
            let part = Self {
                gpa: at,
                len_bytes: part_end.saturating_sub(at),
            };
            at = part_end.max(at);
            Some((part, is_hole))
        })
        .filter(|(part, _)| part.len_bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(gpa: u64, end: u64) -> MemoryRange {
        MemoryRange {
            gpa,
            len_bytes: end - gpa,
        }
    }

    #[test]
    fn of_too_many_ranges_the_last_one_has_the_rest() {
        let odd = |count: u64| (0..count).map(|at| range(2 * at, 2 * at + 1));
        assert_eq!(bounded(odd(2), 99), [range(0, 1), range(2, 3)]);
        let most = BITMAP_RANGES_MAX as u64;
        let kept = bounded(odd(most + 5), 2 * most + 9);
        assert_eq!(kept.len(), BITMAP_RANGES_MAX);
        assert_eq!(kept.last(), Some(&range(2 * most - 2, 2 * most + 9)));
    }

    #[test]
    fn holes_at_the_edges_in_the_middle_and_outside_are_cut_out() {
        let whole = range(10, 100);
        assert_eq!(whole.without(&[]), [whole]);
        assert_eq!(whole.without(&[range(0, 10), range(100, 200)]), [whole]);
        assert_eq!(whole.without(&[range(0, 200)]), []);
        let holes = [
            range(2, 5),
            range(8, 12),
            range(12, 20),
            range(30, 31),
            range(90, 120),
            range(130, 140),
        ];
        assert_eq!(whole.without(&holes), [range(20, 30), range(31, 90)]);
        let parts: Vec<_> = range(25, 40).parts(&holes).collect();
        assert_eq!(
            parts,
            [(range(25, 30), false), (range(30, 31), true), (range(31, 40), false)]
        );
    }
}
