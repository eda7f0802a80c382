//! The symbols of lengths (RFC 8878, 3.1.1.3.2.1.1), and distances that occurred before.

/// Symbols of lengths of literals, of copies, and of distances within a page and a little more.
pub(super) const LITERAL_LENS: usize = 36;
pub(super) const COPY_LENS: usize = 53;
pub(super) const DISTANCES: usize = 29;
/// The shortest copy.
const COPY_LEN_MIN: u32 = 3;

/// A value: its symbol, the extra bits behind it and their number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) symbol: u8,
    pub(super) extra: u16,
    pub(super) extra_bits: u8,
}

impl Value {
    /// All symbols' values begin at a multiple of what their extra bits tell apart.
    #[inline(always)]
    fn new(symbol: u32, extra_bits: u32, value: u32) -> Self {
        Self {
            symbol: (symbol & 0xff) as u8,
            extra: (value & ((1 << extra_bits) - 1) & 0xffff) as u16,
            extra_bits: (extra_bits & 0xff) as u8,
        }
    }
}

/// A length that needs no look at a table: from these on each symbol has all lengths of as many bits.
const PLAIN_LITERALS: u32 = 64;
const PLAIN_COPY: u32 = 128;

/// The symbols of short lengths.
#[derive(Debug, Clone)]
pub(super) struct Lengths {
    literals: [Value; PLAIN_LITERALS as usize],
    copy: [Value; PLAIN_COPY as usize],
}

impl Default for Lengths {
    fn default() -> Self {
        let mut lengths = Self {
            literals: [Value::default(); PLAIN_LITERALS as usize],
            copy: [Value::default(); PLAIN_COPY as usize],
        };
        // How many extra bits the symbols have, from the first that has any.
        fill(&mut lengths.literals, 16, &[1, 1, 1, 1, 2, 2, 3, 3, 4]);
        fill(&mut lengths.copy, 32, &[1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5]);
        lengths
    }
}

/// Values below `direct` are their own symbols, those above have these extra bits.
fn fill(values: &mut [Value], direct: u32, extra_bits: &[u32]) {
    let above = (direct..).zip(extra_bits);
    let symbols = (0..direct)
        .map(|symbol| (symbol, 0))
        .chain(above.flat_map(|(symbol, bits)| std::iter::repeat_n((symbol, *bits), 1 << bits)));
    for ((value, number), (symbol, bits)) in values.iter_mut().zip(0..).zip(symbols) {
        *value = Value::new(symbol, bits, number);
    }
}

impl Lengths {
    /// So many literals.
    #[inline(always)]
    pub(super) fn of_literals(&self, len: u16) -> Value {
        match self.literals.get(usize::from(len)) {
            Some(value) => *value,
            None => Value::new(u32::from(len).ilog2() + 19, u32::from(len).ilog2(), len.into()),
        }
    }

    /// A copy of so many bytes.
    #[inline(always)]
    pub(super) fn of_copy(&self, len: u16) -> Value {
        let above = u32::from(len).saturating_sub(COPY_LEN_MIN);
        match self.copy.get(above as usize) {
            Some(value) => *value,
            None => Value::new(above.ilog2() + 36, above.ilog2(), above),
        }
    }
}

/// The last three distances, the latest first (RFC 8878, 3.1.1.5).
#[derive(Debug)]
pub(super) struct Latest([u16; 3]);

impl Default for Latest {
    fn default() -> Self {
        Self([1, 4, 8])
    }
}

impl Latest {
    /// A distance behind so many literals.
    #[inline(always)]
    pub(super) fn of(&mut self, distance: u16, literals: u16) -> Value {
        let [first, second, third] = self.0;
        // Without literals the latest cannot be meant: two copies of the same distance would be one.
        let shift = u32::from(literals == 0);
        let value = if distance == first && literals > 0 {
            1
        } else if distance == second {
            self.0 = [second, first, third];
            2 - shift
        } else {
            self.0 = [distance, first, second];
            if distance == third {
                3 - shift
            } else {
                u32::from(distance) + 3
            }
        };
        Value::new(value.ilog2(), value.ilog2(), value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_its_symbol_and_extra_bits() {
        let lengths = Lengths::default();
        // RFC 8878, 3.1.1.3.2.1.1, rows of both tables.
        for (len, symbol, extra, extra_bits) in [
            (0, 0, 0, 0),
            (15, 15, 0, 0),
            (17, 16, 1, 1),
            (24, 20, 0, 2),
            (47, 23, 7, 3),
            (63, 24, 15, 4),
            (64, 25, 0, 6),
            (4095, 30, 2047, 11),
        ] {
            let expected = Value {
                symbol,
                extra,
                extra_bits,
            };
            assert_eq!(lengths.of_literals(len), expected, "{len} literals");
        }
        for (len, symbol, extra, extra_bits) in [
            (3, 0, 0, 0),
            (34, 31, 0, 0),
            (36, 32, 1, 1),
            (43, 36, 0, 2),
            (66, 39, 7, 3),
            (98, 41, 15, 4),
            (130, 42, 31, 5),
            (131, 43, 0, 7),
            (4096, 47, 2045, 11),
        ] {
            let expected = Value {
                symbol,
                extra,
                extra_bits,
            };
            assert_eq!(lengths.of_copy(len), expected, "a copy of {len}");
        }
    }
}
