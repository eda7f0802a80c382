//! The EEPROM: 64 words of 16 bits behind a Microwire interface (SDM chapter 5).

/// Words in the EEPROM.
pub const WORDS: usize = 64;

/// What the sum of all words is, modulo 2^16 (SDM chapter 5, checksum word).
pub const CHECKSUM: u16 = 0xBABA;

/// Word that makes the sum right.
pub const CHECKSUM_WORD: usize = 0x3F;

/// PCI device id of the 82540EM.
pub const DEVICE_ID: u16 = 0x100E;

/// PCI vendor id of Intel.
pub const VENDOR_ID: u16 = 0x8086;

/// PCI subsystem id "PRO/1000 MT Desktop"; the configuration space must say the same.
pub const SUBSYSTEM_ID: u16 = 0x001E;

/// PCI subsystem vendor id.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x8086;

/// Microwire opcode: the start bit and READ.
pub const OPCODE_READ: u16 = 0b110;

/// Microwire opcode: the start bit and WRITE; 16 bits of data follow the address.
pub const OPCODE_WRITE: u16 = 0b101;

/// Microwire opcode: the start bit and ERASE.
pub const OPCODE_ERASE: u16 = 0b111;

/// Microwire opcode: the start bit and what the address' two high bits tell apart: [`EXTENDED_DISABLE`] and so on.
pub const OPCODE_EXTENDED: u16 = 0b100;

/// High address bits of EWDS: no more writes.
pub const EXTENDED_DISABLE: u8 = 0b00;

/// High address bits of WRAL: write one value to every word; 16 bits of data follow.
pub const EXTENDED_WRITE_ALL: u8 = 0b01;

/// High address bits of ERAL: erase every word.
pub const EXTENDED_ERASE_ALL: u8 = 0b10;

/// High address bits of EWEN: writes are allowed from now on.
pub const EXTENDED_ENABLE: u8 = 0b11;

/// What an erased word reads.
pub const ERASED: u16 = 0xFFFF;

/// Bits of start, opcode and address before data follows.
pub const COMMAND_BITS: u8 = 9;

/// PHY, pin and power words 0x10 to 0x23 (the values that other emulations carry; no driver branches on them).
const HARDWARE_WORDS: [u16; 20] = [
    0x0008, 0x2000, 0x7E14, 0x0048, 0x1000, 0x00D8, 0x0000, 0x2700, 0x6CC9, 0x3150, 0x0722, 0x040B, 0x0984, 0x0000,
    0xC000, 0x0706, 0x1008, 0x0000, 0x0F04, 0x7FFF,
];

/// The image for a station address: identification, defaults, no wake-up on LAN, and the checksum.
pub fn image(mac: [u8; 6]) -> [u16; WORDS] {
    let [a, b, c, d, e, f] = mac;
    let mut words = [0xFFFF; WORDS];
    let mut set = |at: usize, value: u16| {
        if let Some(word) = words.get_mut(at) {
            *word = value;
        }
    };
    for (n, value) in HARDWARE_WORDS.into_iter().enumerate() {
        set(0x10 + n, value);
    }
    let fixed = [
        (0x00, u16::from_le_bytes([a, b])),
        (0x01, u16::from_le_bytes([c, d])),
        (0x02, u16::from_le_bytes([e, f])),
        (0x03, 0x0000), // compatibility
        (0x07, 0x0000), // no SerDes, PHY class bit clear
        (0x08, 0x3000), // PBA number
        (0x09, 0x1000), // PBA number
        (0x0A, 0x6403), // initialization control 1
        (0x0B, SUBSYSTEM_ID),
        (0x0C, SUBSYSTEM_VENDOR_ID),
        (0x0D, DEVICE_ID),
        (0x0E, VENDOR_ID),
        (0x0F, 0x3040), // initialization control 2
        (0x24, 0x4901), // initialization control 3; bit 10 (wake-up) clear
        (0x30, 0x0100), // boot agent
        (0x31, 0x4000), // boot agent
        (0x32, 0x121C), // boot agent
        (CHECKSUM_WORD, 0),
    ];
    for (at, value) in fixed {
        set(at, value);
    }
    let sum = words.iter().fold(0_u16, |sum, word| sum.wrapping_add(*word));
    if let Some(word) = words.get_mut(CHECKSUM_WORD) {
        *word = CHECKSUM.wrapping_sub(sum);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_sum_to_the_checksum_and_carry_the_address() {
        let words = image([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
        assert_eq!(words.iter().fold(0_u16, |sum, word| sum.wrapping_add(*word)), CHECKSUM);
        assert_eq!(words[..3], [0x5452, 0x1200, 0x5634]);
        assert_eq!(words[0x24] & 1 << 10, 0, "no wake-up on LAN");
    }
}
