//! Extents against a plain list of bytes.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one range is what is meant")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use netdump::{Extents, TooManyExtents};
use proptest::prelude::*;

fn runs(bytes: &[bool]) -> Vec<std::ops::Range<u64>> {
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for at in (0u64..).zip(bytes).filter(|(_, set)| **set).map(|(at, _)| at) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

proptest! {
    #[test]
    fn extents_are_what_a_list_of_bytes_is(
        inserts in prop::collection::vec((0u64..200, 0u64..40), 0..60),
        extents_max in prop_oneof![Just(usize::MAX), 1usize..8],
        (from, to) in (0u64..260, 0u64..260),
    ) {
        let mut extents = Extents::new(extents_max);
        let mut model = vec![false; 260];
        for (start, len) in inserts {
            let range = start..start + len;
            let places = usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap();
            let mut after = model.clone();
            after[places].fill(true);
            let fits = len == 0 || runs(&after).len() <= extents_max && {
                // At the bound only what touches is taken, even where it would join two others.
                extents.len() < extents_max || runs(&after).len() <= runs(&model).len()
            };
            prop_assert_eq!(extents.fits(&range), fits);
            match extents.insert(range.clone()) {
                Ok(new_bytes) => {
                    prop_assert!(fits);
                    let count = |bytes: &[bool]| bytes.iter().filter(|set| **set).count() as u64;
                    prop_assert_eq!(new_bytes, count(&after) - count(&model));
                    model = after;
                }
                Err(error) => {
                    prop_assert!(!fits);
                    prop_assert_eq!(error, TooManyExtents { range, extents_max });
                }
            }
        }
        let expected = runs(&model);
        prop_assert_eq!(extents.iter().collect::<Vec<_>>(), expected.clone());
        prop_assert_eq!(extents.len(), expected.len());
        prop_assert_eq!(extents.covered_bytes(), expected.iter().map(|run| run.end - run.start).sum::<u64>());
        prop_assert_eq!(extents.end(), expected.last().map_or(0, |run| run.end));
        let within: Vec<bool> = (0u64..).zip(&model).map(|(at, set)| !set && (from..to).contains(&at)).collect();
        prop_assert_eq!(extents.gaps(from..to).collect::<Vec<_>>(), runs(&within));
        let all = (from..to).all(|at| model[usize::try_from(at).unwrap()]);
        prop_assert_eq!(extents.contains(&(from..to)), all);
    }

    #[test]
    fn lost_is_what_neither_came_nor_was_declared(
        came in prop::collection::vec((0u64..200, 1u64..30), 0..20),
        declared in prop::collection::vec((0u64..200, 1u64..30), 0..20),
        file_len in 0u64..240,
    ) {
        let mut missing = vec![true; 240];
        let mut sets = [Extents::new(100), Extents::new(100)];
        for (set, ranges) in sets.iter_mut().zip([came, declared]) {
            for (start, len) in ranges {
                set.insert(start..start + len).unwrap();
                missing[usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap()].fill(false);
            }
        }
        missing.truncate(usize::try_from(file_len).unwrap());
        prop_assert_eq!(sets[0].lost(file_len, &sets[1]).collect::<Vec<_>>(), runs(&missing));
    }
}

#[test]
fn the_far_end_of_the_number_space_is_like_any_other_place() {
    let mut extents = Extents::new(2);
    assert_eq!(extents.insert(u64::MAX - 5..u64::MAX), Ok(5));
    assert_eq!(extents.insert(u64::MAX - 7..u64::MAX - 3), Ok(2));
    assert!(extents.contains(&(u64::MAX - 7..u64::MAX)));
    assert_eq!(extents.gaps(0..u64::MAX).collect::<Vec<_>>(), [0..u64::MAX - 7]);
}

#[test]
fn a_full_set_refuses_a_new_island_and_takes_what_touches() {
    let mut extents = Extents::new(2);
    assert_eq!(extents.insert(0..10), Ok(10));
    assert_eq!(extents.insert(20..30), Ok(10));
    assert!(extents.insert(40..50).is_err());
    assert!(!extents.contains(&(40..50)));
    assert_eq!(extents.insert(10..20), Ok(10));
    assert_eq!(extents.insert(40..50), Ok(10));
    assert_eq!(extents.iter().collect::<Vec<_>>(), [0..30, 40..50]);
}
