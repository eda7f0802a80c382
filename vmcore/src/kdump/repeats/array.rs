//! Pages that are arrays of objects of 64 bytes, each much like the one before.
//!
//! The kernel's page structures are: 16 MiB of them for each GiB of the guest, most of what is left of a large core without what a
//! debugger does not need. There it is known where something like this stood, and nothing is looked up.

use super::{PAGE, Text};

/// Length of an object, and the distance to what resembles it.
pub(super) const OBJECT_LEN: usize = 64;
/// Words of eight bytes that are the same an object before, from which on a page counts as an array: three of five.
const SAME_MIN: u16 = 300;

/// Whether the page is such an array.
pub(super) fn is_array(text: &Text) -> bool {
    let (words, _) = text.get(..PAGE).unwrap_or_default().as_chunks::<8>();
    let pairs = words.iter().zip(words.iter().skip(OBJECT_LEN / 8));
    let same = pairs.map(|(before, now)| u16::from(before == now));
    same.fold(0, u16::wrapping_add) >= SAME_MIN
}

/// Of the difference of eight bytes and those of an object before: how many differ before four in a row that do not. Nothing if there
/// are no such four.
#[inline(always)]
pub(super) fn differ_first(difference: u64) -> Option<usize> {
    const BELOW_TOP: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The top bit of each byte that is zero: no carry leaves its byte.
    let same = !((difference & BELOW_TOP).wrapping_add(BELOW_TOP) | difference | BELOW_TOP);
    let four = same & same >> 8 & same >> 16 & same >> 24;
    (four != 0).then(|| (four.trailing_zeros() / 8) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_same_bytes_are_found_wherever_they_are() {
        for differing in 0..=u8::MAX {
            let bytes: [u8; 8] = std::array::from_fn(|at| if differing >> at & 1 == 1 { 1 << at } else { 0 });
            let expected = bytes.windows(4).position(|four| four == [0; 4]);
            assert_eq!(differ_first(u64::from_le_bytes(bytes)), expected, "{bytes:?}");
        }
    }

    #[test]
    fn page_structures_are_an_array_and_noise_is_none() {
        let mut text = [0; 2 * PAGE];
        let mut seed = 1_u64;
        for (at, word) in text.as_chunks_mut::<8>().0.iter_mut().take(PAGE / 8).enumerate() {
            // Two of eight words differ from one object to the next.
            let number = if matches!(at % 8, 1 | 2) { at as u64 / 8 } else { 7 };
            *word = number.to_le_bytes();
        }
        assert!(is_array(&text));
        for word in text.as_chunks_mut::<8>().0.iter_mut().take(PAGE / 8) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *word = seed.to_le_bytes();
        }
        assert!(!is_array(&text));
    }
}
