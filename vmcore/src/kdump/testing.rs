//! Pages that compressors are tried with.

use proptest::prelude::*;

use super::codec::Compress;
use super::repeats::Page;
use crate::limits::PAGE_LEN_USIZE as PAGE;

/// A page that begins with these bytes.
pub(super) fn page_of(bytes: impl IntoIterator<Item = u8>) -> Page {
    let mut page = [0; PAGE];
    for (to, from) in page.iter_mut().zip(bytes) {
        *to = from;
    }
    page
}

pub(super) fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
}

/// A stretch of noise of each length before, behind and within something that repeats.
pub(super) fn stretches_of_noise() -> impl Iterator<Item = Page> {
    (0..PAGE).step_by(61).flat_map(|len| {
        let again = noise(3).take(len.max(1)).collect::<Vec<_>>().into_iter().cycle();
        [
            page_of(noise(7).take(len)),
            page_of(std::iter::repeat_n(9, PAGE - len).chain(noise(8))),
            page_of(again),
        ]
    })
}

/// Noise in which so many bytes stand again so far behind, and something to gain, so that it is not stored as it is.
pub(super) fn copied(len: usize, distance: usize) -> Page {
    let mut page = page_of(noise(distance as u64));
    for at in distance..(distance + len).min(PAGE) {
        page[at] = page[at - distance];
    }
    page[PAGE - 600..].fill(0);
    page
}

/// Noise of every number of different bytes, some more often than others, which lie close together or far apart.
pub(super) fn alphabets() -> impl Iterator<Item = Page> {
    (2..=255_u8).flat_map(|size| {
        [1, 2, 5, 17, 85].map(move |apart: u8| {
            let (one, other) = (noise(size.into()), noise(apart.into()).skip(9));
            let bytes = one
                .zip(other)
                .map(move |(one, other)| (one % size).min(other % size).wrapping_mul(apart));
            let mut page = page_of(bytes);
            page[PAGE - 600..].fill(0);
            page
        })
    })
}

/// Only whole pages are taken.
pub(super) fn refuses_what_is_no_page(compressor: &mut impl Compress) {
    for len in [0, 1, PAGE - 1, PAGE + 1] {
        assert!(!compressor.compress(&vec![1; len], &mut Vec::new()), "{len}");
    }
}

/// What becomes of a page does not depend on the page before.
pub(super) fn makes_each_page_alone<C: Compress>(new: impl Fn() -> C) {
    let pages = [
        page_of(noise(1)),
        [5; PAGE],
        page_of((0..=250).cycle()),
        page_of(noise(2).take(900)),
        page_of(noise(2).map(|byte| byte % 5)),
    ];
    let mut one = new();
    for page in pages.iter().chain(pages.iter().rev()) {
        let (mut kept, mut fresh) = (Vec::new(), Vec::new());
        assert_eq!(one.compress(page, &mut kept), new().compress(page, &mut fresh));
        assert_eq!(kept, fresh);
    }
}

/// Words of a kernel: pointers that share their upper bytes, small numbers, runs.
pub(super) fn kernel_words() -> impl Strategy<Value = Page> {
    let word = (any::<u64>(), any::<u64>(), 0_usize..40, 1_usize..60);
    prop::collection::vec(word, 1..300).prop_map(|words| {
        let bytes = words.iter().flat_map(|(word, mask, shift, count)| {
            (0..*count).flat_map(move |at| (word >> shift).wrapping_add(mask & at as u64).to_le_bytes())
        });
        page_of(bytes)
    })
}

/// Objects of 64 bytes that resemble each other.
pub(super) fn arrays() -> impl Strategy<Value = Page> {
    let object = prop::collection::vec(any::<u8>(), 64);
    let changes = prop::collection::vec((0..PAGE, any::<u8>()), 0..600);
    (object, changes).prop_map(|(object, changes)| {
        let mut page = page_of(object.into_iter().cycle());
        for (at, byte) in changes {
            page[at] = byte;
        }
        page
    })
}
