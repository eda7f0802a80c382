//! What is written is read by decoders of others: libdeflate, and flate2's own.

use std::io::Read as _;

use libdeflater::Decompressor;
use proptest::prelude::*;

use super::*;
use crate::kdump::testing::{
    alphabets, arrays, copied, kernel_words, makes_each_page_alone, noise, page_of, refuses_what_is_no_page,
    stretches_of_noise,
};

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

#[test]
fn pages_of_every_kind_come_back() {
    let mut deflate = deflate();
    for byte in [0, 1, 143, 144, 255] {
        let len = there_and_back(&mut deflate, &[byte; PAGE]).unwrap();
        assert!(len < 60, "{byte}: {len}");
    }
    for page in stretches_of_noise() {
        there_and_back(&mut deflate, &page);
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
            there_and_back(&mut deflate, &copied(len, distance)).unwrap();
        }
    }
}

#[test]
fn alphabets_of_every_size_come_back() {
    let mut deflate = deflate();
    for page in alphabets() {
        assert!(there_and_back(&mut deflate, &page).is_some());
    }
}

#[test]
fn what_does_not_shrink_is_refused_and_so_is_what_is_no_page() {
    let mut deflate = deflate();
    assert_eq!(there_and_back(&mut deflate, &page_of(noise(1))), None);
    refuses_what_is_no_page(&mut deflate);
}

#[test]
fn a_page_does_not_depend_on_the_page_before() {
    makes_each_page_alone(deflate);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(page in kernel_words()) {
        there_and_back(&mut deflate(), &page);
    }

    #[test]
    fn arrays_of_objects_are_read_again(page in arrays()) {
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
