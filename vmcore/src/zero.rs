//! The zero-page test of the single pass over guest memory.

/// Are all bytes zero? True for no bytes.
///
/// Looks at 128 bytes at a time, so that the compiler uses vector registers, and stops at the first block that is not
/// zero: pages in use mostly show it at once, so the cost is that of reading the zero pages.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<128>();
    blocks.iter().all(is_zero_block) && rest.iter().all(|&b| b == 0)
}

fn is_zero_block(block: &[u8; 128]) -> bool {
    let (words, _) = block.as_chunks::<8>();
    words.iter().fold(0, |seen, word| seen | u64::from_ne_bytes(*word)) == 0
}

#[cfg(test)]
mod tests {
    use super::is_zero;

    #[test]
    fn one_set_bit_anywhere_is_seen() {
        for len in [0, 1, 7, 8, 127, 128, 129, 4096] {
            let mut page = vec![0u8; len];
            assert!(is_zero(&page), "{len} zeros");
            for at in 0..len {
                page[at] = 0x10;
                assert!(!is_zero(&page), "byte {at} of {len}");
                page[at] = 0;
            }
        }
    }
}
