/// The Internet checksum of RFC 1071, as a running sum over parts of even length; only the last may be odd.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checksum(u64);

impl Checksum {
    pub(crate) fn add(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        // Thirty-two bits at a time: the carries of one's complement addition gather above and are folded in the end.
        let sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
        let mut tail = [0; 4];
        for (place, byte) in tail.iter_mut().zip(rest) {
            *place = *byte;
        }
        self.0 += sum + u64::from(u32::from_be_bytes(tail));
        self
    }

    pub(crate) fn add_word(mut self, word: u16) -> Self {
        self.0 += u64::from(word);
        self
    }

    /// The value to be sent: the complement of the folded sum.
    pub(crate) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let [.., high, low] = sum.to_be_bytes();
        !u16::from_be_bytes([high, low])
    }

    /// Whether a sum over bytes that include their checksum is right.
    pub(crate) fn holds(self) -> bool {
        self.finish() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let sum = Checksum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn an_odd_byte_counts_as_the_high_half_of_a_word() {
        assert_eq!(Checksum::default().add(&[0x12]).finish(), !0x1200);
        assert_eq!(Checksum::default().add(&[0, 0, 0, 0, 0, 1, 0x12]).finish(), !0x1201);
        assert!(Checksum::default().add(&[0x12, 0x34]).add_word(!0x1234).holds());
    }
}
