//! Narrowing and byte-order helpers, so that no conversion in the crate can panic or lose bits by accident.

/// The low 16 bits; the rest is meant to be dropped.
pub(crate) const fn low16(value: u32) -> u16 {
    let [a, b, _, _] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// The low 32 bits; the rest is meant to be dropped.
pub(crate) const fn low32(value: u64) -> u32 {
    let [a, b, c, d, _, _, _, _] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The high 32 bits.
pub(crate) const fn high32(value: u64) -> u32 {
    low32(value >> 32)
}

/// A length as 16 bits, saturating: the callers' lengths are bounded far below.
pub(crate) fn len16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// A length as 32 bits, saturating: the callers' lengths are bounded far below.
pub(crate) fn len32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A 32-bit index or length in the host's width; lossless wherever this crate runs.
pub(crate) const fn index(value: u32) -> usize {
    value as usize
}
