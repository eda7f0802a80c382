//! What is written is read by decoders of others: libdeflate, and flate2's own.

use std::io::Read as _;

use libdeflater::Decompressor;
use proptest::prelude::*;

use super::*;

/// Length of the stream, if the page was made smaller.
fn there_and_back(deflate: &mut Deflate, page: &Page) -> Option<usize> {
    let mut out = vec![1, 2, 3];
    let is_smaller = deflate.compress(page, &mut out);
    if !is_smaller {
        return None;
    }
    let stream = &out[3..];
    let mut back = [0; PAGE];
    let read = Decompressor::new().zlib_decompress(stream, &mut back);
    assert_eq!(read, Ok(PAGE));
    assert!(back == *page);
    let mut other = Vec::new();
    let mut decoder = flate2::read::ZlibDecoder::new(stream);
    assert_eq!(decoder.read_to_end(&mut other).unwrap(), PAGE);
    assert!(other == page);
    Some(stream.len())
}

fn deflate() -> Deflate {
    Deflate::new(libdeflater::adler32)
}

fn page_of(bytes: impl Iterator<Item = u8>) -> Page {
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
    let mut deflate = deflate();
    for byte in [0, 1, 143, 144, 255] {
        let len = there_and_back(&mut deflate, &[byte; PAGE]).unwrap();
        assert!(len < 60, "{byte}: {len}");
    }
    // A stretch of noise of each length before, behind and within something that repeats.
    for len in (0..PAGE).step_by(61) {
        let before = page_of(noise(7).take(len));
        there_and_back(&mut deflate, &before);
        let behind = page_of(std::iter::repeat_n(9, PAGE - len).chain(noise(8)));
        there_and_back(&mut deflate, &behind);
        let again = page_of(noise(3).take(len.max(1)).collect::<Vec<_>>().into_iter().cycle());
        there_and_back(&mut deflate, &again);
    }
    // Every byte as often as it likes: words of every length.
    let skewed = noise(5).map(|byte| u8::try_from(byte.leading_zeros()).unwrap() * 16 + (byte & 1));
    assert!(there_and_back(&mut deflate, &page_of(skewed)).unwrap() < PAGE / 2);
}

#[test]
fn copies_of_every_length_and_distance_come_back() {
    let mut deflate = deflate();
    for len in 5..300 {
        for distance in [1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 512, 1025, 3000] {
            let mut page = page_of(noise(distance as u64));
            for at in distance..(distance + len).min(PAGE) {
                page[at] = page[at - distance];
            }
            // Something to gain, so that the page is not stored as it is.
            page[PAGE - 600..].fill(0);
            there_and_back(&mut deflate, &page).unwrap();
        }
    }
}

#[test]
fn what_does_not_shrink_is_refused_and_so_is_what_is_no_page() {
    let mut deflate = deflate();
    assert_eq!(there_and_back(&mut deflate, &page_of(noise(1))), None);
    for len in [0, 1, PAGE - 1, PAGE + 1] {
        assert!(!deflate.compress(&vec![1; len], &mut Vec::new()), "{len}");
    }
}

#[test]
fn a_page_does_not_depend_on_the_page_before() {
    let pages = [
        page_of(noise(1)),
        [5; PAGE],
        page_of((0..=250).cycle()),
        page_of(noise(2).take(900)),
    ];
    let mut one = deflate();
    for page in pages.iter().chain(pages.iter().rev()) {
        let (mut kept, mut fresh) = (Vec::new(), Vec::new());
        assert_eq!(one.compress(page, &mut kept), deflate().compress(page, &mut fresh));
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
        there_and_back(&mut deflate(), &page_of(bytes));
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
        there_and_back(&mut deflate(), &page);
    }

    #[test]
    fn a_code_is_whole_and_no_word_is_too_long(
        counts in prop::collection::vec((0_usize..LITERALS, 1_u16..14), 0..200), rise in 0_u32..3
    ) {
        let mut table = [0; LITERALS];
        for (symbol, count) in counts {
            table[symbol] = count.pow(rise);
        }
        let used = table.iter().filter(|count| **count > 0).count();
        for len_max in [WORD_LEN_MAX, 9] {
            let mut code = Code::default();
            code.make(&table, &Logs::default(), len_max, Order::ShortestFirst);
            let lens = code.lens(0).iter().filter(|len| **len > 0);
            prop_assert_eq!(lens.clone().count(), used.max(2));
            prop_assert!(lens.clone().all(|len| u32::from(*len) <= len_max));
            prop_assert_eq!(lens.map(|len| 1 << (15 - len)).sum::<u32>(), 1 << 15);
            prop_assert!(table.iter().zip(0..).all(|(count, symbol)| *count == 0 || code.len_of(symbol) > 0));
        }
    }
}
