//! Which of the pages that a level leaves out are left out of a core whose segments are counted: the longest runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::kdump::PageBitmap;
use crate::limits::PAGE_LEN;
use crate::memory::MemoryRange;

/// The longest `runs_max` runs of `excluded` pages within `ram` (ascending, disjoint), ascending. The first and the last page of
/// each range stay, so that a reader of the segments sees where the range was. Memory for `runs_max` runs is all that it takes, however
/// finely a guest has scattered its pages.
#[must_use]
pub fn longest_runs(excluded: &PageBitmap, ram: &[MemoryRange], runs_max: usize) -> Vec<MemoryRange> {
    let mut longest: BinaryHeap<Reverse<(u64, Reverse<u64>)>> = BinaryHeap::with_capacity(runs_max + 1);
    for range in ram {
        let last = (range.gpa + range.len_bytes) / PAGE_LEN - 1;
        for (first, count) in excluded.runs(range.gpa / PAGE_LEN + 1..last) {
            longest.push(Reverse((count, Reverse(first))));
            if longest.len() > runs_max {
                longest.pop();
            }
        }
    }
    let runs = longest.into_iter().map(|Reverse((pages, Reverse(first)))| MemoryRange {
        gpa: first * PAGE_LEN,
        len_bytes: pages * PAGE_LEN,
    });
    let mut runs: Vec<_> = runs.collect();
    runs.sort_unstable_by_key(|run| run.gpa);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(first: u64, end: u64) -> MemoryRange {
        MemoryRange {
            gpa: first * PAGE_LEN,
            len_bytes: (end - first) * PAGE_LEN,
        }
    }

    #[test]
    fn the_longest_runs_win_and_the_ends_of_ram_stay() {
        let mut excluded = PageBitmap::new(1000);
        for (first, count) in [(0, 3), (10, 5), (20, 1), (30, 1), (90, 30), (500, 10), (990, 10)] {
            excluded.insert(first, count);
        }
        let ram = [frames(0, 100), frames(110, 1000)];
        let all = [
            frames(1, 3),
            frames(10, 15),
            frames(20, 21),
            frames(30, 31),
            frames(90, 99),
            frames(111, 120),
            frames(500, 510),
            frames(990, 999),
        ];
        assert_eq!(longest_runs(&excluded, &ram, 100), all);
        assert_eq!(
            longest_runs(&excluded, &ram, 5),
            [all[1], all[4], all[5], all[6], all[7]]
        );
        assert_eq!(longest_runs(&excluded, &ram, 7), [&all[..3], &all[4..]].concat());
        assert_eq!(longest_runs(&excluded, &ram, 0), []);
        assert_eq!(
            longest_runs(&excluded, &[frames(5, 6)], 9),
            [],
            "one page is its range's first and last"
        );
    }
}
