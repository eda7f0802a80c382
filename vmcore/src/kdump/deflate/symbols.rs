//! The symbols of lengths and distances (RFC 1951, 3.2.5).

/// Symbols of literals, the end and lengths; the last two never occur, but have words among the fixed ones.
pub(super) const LITERALS: usize = 288;
/// Symbols of distances within a page.
pub(super) const DISTANCES: usize = 24;
/// The end of the block.
pub(super) const END: usize = 256;
/// Lengths are below.
const LENGTHS_END: usize = 512;

/// A length: its symbol, the extra bits behind it and their number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Length {
    pub(super) symbol: u16,
    pub(super) extra: u8,
    pub(super) extra_bits: u8,
}

/// The symbols of all lengths.
#[derive(Debug, Clone)]
pub(super) struct Lengths(Box<[Length; LENGTHS_END]>);

impl Default for Lengths {
    fn default() -> Self {
        let mut lengths = Box::new([Length::default(); LENGTHS_END]);
        for (length, len) in lengths.iter_mut().zip(0_u16..).skip(3) {
            *length = length_symbol(len);
        }
        Self(lengths)
    }
}

impl Lengths {
    #[inline(always)]
    pub(super) fn of(&self, len: u16) -> Length {
        self.0.get(usize::from(len) % LENGTHS_END).copied().unwrap_or_default()
    }
}

fn length_symbol(len: u16) -> Length {
    let above = len - 3;
    let (symbol, extra, extra_bits) = match above {
        0..=7 => (257 + above, 0, 0),
        255.. => (285, 0, 0),
        _ => {
            let extra_bits = above.ilog2() - 2;
            let group = (extra_bits + 1) & 7;
            let group = u16::try_from(group).unwrap_or(0);
            (
                257 + 4 * group + (above >> extra_bits & 3),
                above & ((1 << extra_bits) - 1),
                extra_bits,
            )
        }
    };
    Length {
        symbol,
        extra: (extra & 0xff) as u8,
        extra_bits: (extra_bits & 0xff) as u8,
    }
}

/// A distance of at least one: its symbol, extra bits and their number.
#[inline(always)]
pub(super) fn distance_symbol(distance: u16) -> (u32, u32, u32) {
    let above = u32::from(distance).wrapping_sub(1) & 0x7fff;
    if above < 4 {
        return (above, 0, 0);
    }
    let extra_bits = above.ilog2().wrapping_sub(1);
    let symbol = extra_bits
        .wrapping_add(1)
        .wrapping_mul(2)
        .wrapping_add(above >> extra_bits & 1);
    (symbol, above & (1_u32 << extra_bits).wrapping_sub(1), extra_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_distance_has_its_symbol_and_extra_bits() {
        let lengths = Lengths::default();
        // RFC 1951, 3.2.5, the last row of each group.
        for (len, symbol) in [
            (3, (257, 0, 0)),
            (10, (264, 0, 0)),
            (12, (265, 1, 1)),
            (130, (280, 15, 4)),
            (257, (284, 30, 5)),
            (258, (285, 0, 0)),
        ] {
            let length = lengths.of(len);
            assert_eq!((length.symbol, length.extra, length.extra_bits), symbol, "{len}");
        }
        for (distance, symbol) in [
            (1, (0, 0, 0)),
            (4, (3, 0, 0)),
            (6, (4, 1, 1)),
            (1537, (21, 0, 9)),
            (4096, (23, 1023, 10)),
        ] {
            assert_eq!(distance_symbol(distance), symbol, "{distance}");
        }
    }
}
