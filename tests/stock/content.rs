//! What the senders send.

/// A dump of `pages` pages of which none is zero, so that every byte of it has to arrive.
pub(crate) fn dense_core(seed: u64, pages: u64) -> Vec<u8> {
    let mut state = seed;
    let words = (0..pages * 512).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 8) | 1
    });
    words.flat_map(u64::to_le_bytes).collect()
}
