//! What is written is read by zstd's own library.

use proptest::prelude::*;

use super::*;

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

fn page_of(bytes: impl IntoIterator<Item = u8>) -> Page {
    let mut page = [0; PAGE];
    for (to, from) in page.iter_mut().zip(bytes) {
        *to = from;
    }
    page
}

fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
}

#[test]
fn pages_of_every_kind_come_back() {
    let mut zstd = Zstd::default();
    for byte in [0, 1, 143, 144, 255] {
        let len = there_and_back(&mut zstd, &[byte; PAGE]).unwrap();
        assert!(len < 30, "{byte}: {len}");
    }
    // A stretch of noise of each length before, behind and within something that repeats.
    for len in (0..PAGE).step_by(61) {
        there_and_back(&mut zstd, &page_of(noise(7).take(len)));
        there_and_back(&mut zstd, &page_of(std::iter::repeat_n(9, PAGE - len).chain(noise(8))));
        let again = noise(3).take(len.max(1)).collect::<Vec<_>>().into_iter().cycle();
        there_and_back(&mut zstd, &page_of(again));
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
            let mut page = page_of(noise(distance as u64));
            for at in distance..(distance + len).min(PAGE) {
                page[at] = page[at - distance];
            }
            // Something to gain, so that the page is not stored as it is.
            page[PAGE - 600..].fill(0);
            there_and_back(&mut zstd, &page).unwrap();
        }
    }
}

#[test]
fn what_does_not_shrink_is_refused_and_so_is_what_is_no_page() {
    let mut zstd = Zstd::default();
    assert_eq!(there_and_back(&mut zstd, &page_of(noise(1))), None);
    for len in [0, 1, PAGE - 1, PAGE + 1] {
        assert!(!zstd.compress(&vec![1; len], &mut Vec::new()), "{len}");
    }
}

#[test]
fn a_page_does_not_depend_on_the_page_before() {
    let pages = [
        page_of(noise(1)),
        [5; PAGE],
        page_of((0..=250).cycle()),
        page_of(noise(2).take(900)),
        page_of(noise(2).map(|byte| byte % 5)),
    ];
    let mut one = Zstd::default();
    for page in pages.iter().chain(pages.iter().rev()) {
        let (mut kept, mut fresh) = (Vec::new(), Vec::new());
        assert_eq!(
            one.compress(page, &mut kept),
            Zstd::default().compress(page, &mut fresh)
        );
        assert_eq!(kept, fresh);
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        words in prop::collection::vec((any::<u64>(), any::<u64>(), 0_usize..40, 1_usize..60), 1..300)
    ) {
        // Words of a kernel: pointers that share their upper bytes, small numbers, runs.
        let bytes = words.iter().flat_map(|(word, mask, shift, count)| {
            (0..*count).flat_map(move |at| (word >> shift).wrapping_add(mask & at as u64).to_le_bytes())
        });
        there_and_back(&mut Zstd::default(), &page_of(bytes));
    }

    #[test]
    fn arrays_of_objects_are_read_again(
        object in prop::collection::vec(any::<u8>(), 64),
        changes in prop::collection::vec((0..PAGE, any::<u8>()), 0..600)
    ) {
        let mut page = page_of(object.into_iter().cycle());
        for (at, byte) in changes {
            page[at] = byte;
        }
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
