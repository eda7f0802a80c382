//! LZO1X, written: the codec of `makedumpfile -l`.
//!
//! What repeats becomes a copy, in the shorter of the two forms that its length and distance allow (Linux,
//! Documentation/staging/lzo.rst, describes them byte by byte).

use super::codec::{Compress, PageCodec};
use super::repeats::{Finder, Page};
use crate::limits::PAGE_LEN_USIZE as PAGE;

/// The farthest copy of the short form, and its longest.
const SHORT_DISTANCE_MAX: usize = 2048;
const SHORT_LEN_MAX: usize = 8;
/// The end: a copy of the far form that copies nothing.
const END: [u8; 3] = [17, 0, 0];

/// Makes pages smaller. Keeps its tables from page to page.
#[derive(Debug, Clone, Default)]
pub struct Lzo {
    finder: Finder,
}

impl Compress for Lzo {
    fn codec(&self) -> PageCodec {
        PageCodec::Lzo
    }

    /// Only whole pages are compressed.
    fn compress(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        let Ok(page): Result<&Page, _> = page.try_into() else {
            return false;
        };
        let start = out.len();
        self.finder.find(page, PAGE);
        // The byte of the copy before that counts the literals behind it.
        let mut counter = None;
        let mut rest = self.finder.literals();
        for found in self.finder.found() {
            let (literals, behind) = rest.split_at_checked(found.literals.into()).unwrap_or_default();
            put_literals(literals, counter, out);
            put_copy(found.distance.into(), found.len.into(), out);
            counter = Some(out.len() - 2);
            rest = behind;
        }
        put_literals(rest, counter, out);
        out.extend(END);
        out.len() - start < PAGE
    }
}

/// Literals: up to three are counted by the copy before them, if there is one.
fn put_literals(literals: &[u8], counter: Option<usize>, out: &mut Vec<u8>) {
    let len = literals.len();
    match counter {
        Some(place) if len <= 3 => {
            if let Some(byte) = out.get_mut(place) {
                *byte |= low_byte(len);
            }
        }
        // The first byte of all may count them itself.
        None if len <= 238 => out.push(low_byte(17 + len)),
        _ if len <= 18 => out.push(low_byte(len - 3)),
        _ => {
            out.push(0);
            put_long(len - 18, out);
        }
    }
    out.extend_from_slice(literals);
}

/// A copy. The last byte but one counts the literals behind it in its two low bits.
fn put_copy(distance: usize, len: usize, out: &mut Vec<u8>) {
    let near = distance - 1;
    if len <= SHORT_LEN_MAX && distance <= SHORT_DISTANCE_MAX {
        out.extend([low_byte((len - 1) << 5 | (near & 7) << 2), low_byte(near >> 3)]);
        return;
    }
    if len <= 33 {
        out.push(low_byte(32 | (len - 2)));
    } else {
        out.push(32);
        put_long(len - 33, out);
    }
    out.extend([low_byte(near << 2), low_byte(near >> 6)]);
}

/// What a length has beyond its field: zeros for 255 each, and a last byte that is not zero.
fn put_long(mut rest: usize, out: &mut Vec<u8>) {
    while rest > 255 {
        out.push(0);
        rest -= 255;
    }
    out.push(low_byte(rest));
}

const fn low_byte(value: usize) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::super::lzo::decompress as decompress_lzo;
    use super::super::testing::refuses_what_is_no_page;
    use super::*;
    use proptest::prelude::*;

    /// What becomes of a page that begins so.
    fn there_and_back(begin: &[u8]) -> Option<usize> {
        let page: Vec<u8> = begin
            .iter()
            .copied()
            .chain([1, 2, 3].into_iter().cycle())
            .take(PAGE)
            .collect();
        let page = &page[..];
        let mut out = vec![1, 2, 3];
        let is_smaller = Lzo::default().compress(page, &mut out);
        if is_smaller {
            let mut back = vec![0; page.len()];
            assert!(decompress_lzo(&out[3..], &mut back), "{:?}", &out[3..]);
            assert!(back == page);
        }
        is_smaller.then(|| out.len() - 3)
    }

    #[test]
    fn every_form_of_literals_and_copies_comes_back() {
        let noise: Vec<u8> = (0..4096_u32)
            .map(|at| (at * at).wrapping_mul(2_654_435_761).to_le_bytes()[2])
            .collect();
        let mut smaller = 0;
        for literals in [1, 2, 3, 4, 5, 17, 18, 19, 237, 238, 239, 273, 274, 529] {
            for len in [4, 5, 8, 9, 33, 34, 35, 288, 289, 290, 600] {
                for between in [0, 1, 2, 3, 4, 18, 19, 300] {
                    let mut page = noise[..literals].to_vec();
                    page.extend(vec![7; len]);
                    page.extend(&noise[..between]);
                    page.extend(vec![7; len]);
                    smaller += usize::from(there_and_back(&page).is_some());
                }
            }
        }
        assert!(smaller > 800, "only {smaller} became smaller");
        let mut far = noise[..100].to_vec();
        far.resize(2500, 0);
        far.extend(&noise[..100]);
        assert!(there_and_back(&far).unwrap() < 160);
        assert!(there_and_back(&[9; 4096]).unwrap() < 40);
        assert_eq!(there_and_back(&noise), None, "noise does not get smaller");
        refuses_what_is_no_page(&mut Lzo::default());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(words in prop::collection::vec((0_u8..6, 1_usize..40), 1..300)) {
            let page: Vec<u8> = words.iter().flat_map(|(byte, count)| vec![*byte; *count % 7 + 1]).take(4096).collect();
            there_and_back(&page);
        }
    }
}
