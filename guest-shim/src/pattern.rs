//! The pattern that the demo guest fills its memory with: every 64-bit word depends on a seed and on its own
//! guest-physical address, so a page that went missing, moved or was cut shows at once.

/// Seed of the demo guest.
pub const DEMO_SEED: u64 = 0x636f_7265_6665_7272;

/// First guest-physical address that the demo guest fills.
pub const DEMO_FILL_GPA: u64 = 16 << 20;

/// The first word of the page at `page_gpa`: SplitMix64 of seed and address (Steele, Lea and Flood, 2014).
#[must_use]
pub const fn page_word(seed: u64, page_gpa: u64) -> u64 {
    let mut z = seed ^ page_gpa.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Word number `index` of a page whose first word is `first`. Cheap, for guests that fill gigabytes.
#[must_use]
pub const fn word(first: u64, index: u64) -> u64 {
    first
        .wrapping_add(index.wrapping_mul(0x2545_f491_4f6c_dd1d))
        .rotate_left(17)
        ^ first
}
