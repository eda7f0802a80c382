//! What is written is read by zstd's own library.

use proptest::prelude::*;

use super::*;
use crate::kdump::testing::{
    alphabets, arrays, copied, kernel_words, makes_each_page_alone, noise, page_of, refuses_what_is_no_page,
    stretches_of_noise,
};

/// Length of the frame, if the page was made smaller.
fn there_and_back(zstd: &mut Zstd, page: &Page) -> Option<usize> {
    let mut out = vec![1, 2, 3];
    if !zstd.compress(page, &mut out) {
        return None;
    }
    let frame = &out[3..];
    let mut back = [0; PAGE];
    let read = ::zstd::bulk::decompress_to_buffer(frame, &mut back);
    assert_eq!(read.ok(), Some(PAGE));
    assert!(back == *page);
    Some(frame.len())
}

#[test]
fn pages_of_every_kind_come_back() {
    let mut zstd = Zstd::default();
    for byte in [0, 1, 143, 144, 255] {
        let len = there_and_back(&mut zstd, &[byte; PAGE]).unwrap();
        assert!(len < 30, "{byte}: {len}");
    }
    for page in stretches_of_noise() {
        there_and_back(&mut zstd, &page);
    }
}

#[test]
fn literals_of_every_number_and_kind_come_back() {
    let mut zstd = Zstd::default();
    // As many different bytes as this, up to that one: weights as they are and by states, one stream and four.
    for kinds in [1, 2, 3, 17, 25, 26, 64, 100, 128, 129, 200, 256] {
        for len in [40, 49, 200, 1000, 1023, 1024, 1025, 2000, 3500, 4000] {
            for rise in [1, 2, 4] {
                let bytes = noise(kinds + len).take(usize::try_from(len).unwrap()).map(|byte| {
                    let share = (u64::from(byte).pow(rise) * kinds) >> (8 * rise);
                    u8::try_from(share).unwrap()
                });
                let page = page_of(bytes);
                let stored = there_and_back(&mut zstd, &page);
                assert!(
                    stored.is_some() || (len >= 3500 && kinds >= 200),
                    "{kinds} {len} {rise}"
                );
            }
        }
    }
}

#[test]
fn copies_of_every_length_and_distance_come_back() {
    let mut zstd = Zstd::default();
    for len in (6..400).chain([1000, 2047, 2048, 3000]) {
        for distance in [1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 512, 1025, 3000] {
            there_and_back(&mut zstd, &copied(len, distance)).unwrap();
        }
    }
}

#[test]
fn alphabets_of_every_size_come_back() {
    let mut zstd = Zstd::default();
    for page in alphabets() {
        assert!(there_and_back(&mut zstd, &page).is_some());
    }
}

#[test]
fn what_does_not_shrink_is_refused_and_so_is_what_is_no_page() {
    let mut zstd = Zstd::default();
    assert_eq!(there_and_back(&mut zstd, &page_of(noise(1))), None);
    refuses_what_is_no_page(&mut zstd);
}

#[test]
fn a_page_does_not_depend_on_the_page_before() {
    makes_each_page_alone(Zstd::default);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(page in kernel_words()) {
        there_and_back(&mut Zstd::default(), &page);
    }

    #[test]
    fn arrays_of_objects_are_read_again(page in arrays()) {
        there_and_back(&mut Zstd::default(), &page);
    }

    #[test]
    fn pieces_in_any_order_are_read_again(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..12),
        order in prop::collection::vec((0_usize..12, 0_u8..3), 1..400)
    ) {
        let mut bytes = Vec::new();
        for (piece, between) in order {
            bytes.extend(&pieces[piece % pieces.len()]);
            bytes.extend((0..between).map(|at| at.wrapping_mul(77) ^ between));
        }
        there_and_back(&mut Zstd::default(), &page_of(bytes));
    }
}
