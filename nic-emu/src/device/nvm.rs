//! The EEPROM's two doors: the Microwire wires of EECD, and EERD (SDM chapter 5; chapter 13, EECD and EERD).
//!
//! ```text
//!   CS low ─► idle ─CS high─► command (9 bits in) ─READ─► data (16 bits out, next word, …)
//!     ▲                                  └─ other opcode ─► ignored until CS falls
//!     └──────────────── CS low ◄─────────────────┴──────────────┘
//! ```

use crate::bits::index;
use crate::spec::eeprom::{self, COMMAND_BITS, OPCODE_READ, WORDS};
use crate::spec::registers::{eecd, eerd};

/// The EEPROM and the state of its wires. Writing to it is not offered: write commands are taken and have no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nvm {
    /// The image.
    pub(super) words: [u16; WORDS],
    /// EECD as last written, writable bits only.
    pub(super) wires: u32,
    /// EERD as it reads.
    pub(super) eerd: u32,
    /// What the EEPROM is doing.
    pub(super) phase: Phase,
    /// The data-out wire.
    pub(super) data_out: bool,
}

/// What the EEPROM is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Collecting start bit, opcode and address.
    Command {
        /// Bits so far.
        bits: u16,
        /// How many.
        count: u8,
    },
    /// Shifting out a word, highest bit first.
    Data {
        /// Which word.
        word: u8,
        /// Bits of it that are still to come.
        left: u8,
    },
    /// A command that has no effect.
    Ignored,
}

/// Waiting for a start bit.
const IDLE: Phase = Phase::Command { bits: 0, count: 0 };

impl Nvm {
    /// An EEPROM with the image for a station address.
    pub(super) fn new(mac: [u8; 6]) -> Self {
        Self {
            words: eeprom::image(mac),
            wires: 0,
            eerd: 0,
            phase: IDLE,
            data_out: true,
        }
    }

    /// Releases the wires; the contents stay.
    pub(super) fn reset(&mut self) {
        (self.wires, self.eerd, self.phase, self.data_out) = (0, 0, IDLE, true);
    }

    /// The station address in the image.
    pub(super) fn mac(&self) -> [u8; 6] {
        let [first, second, third, ..] = self.words;
        let [[a, b], [c, d], [e, f]] = [first, second, third].map(u16::to_le_bytes);
        [a, b, c, d, e, f]
    }

    /// What EECD reads.
    pub(super) fn read_eecd(&self) -> u32 {
        self.wires | eecd::GNT | eecd::PRES | if self.data_out { eecd::DO } else { 0 }
    }

    /// A write of EECD: edges on the wires.
    pub(super) fn write_eecd(&mut self, value: u32) {
        let before = self.wires;
        self.wires = value & EECD_MASK;
        if self.wires & eecd::CS == 0 || before & eecd::CS == 0 {
            // Not selected, or just now: a clock level that was already high is no edge.
            (self.phase, self.data_out) = (IDLE, true);
        } else if before & eecd::SK == 0 && self.wires & eecd::SK != 0 {
            self.clock(self.wires & eecd::DI != 0);
        }
    }

    /// A write of EERD: the word is there at once; outside the image there is no data.
    pub(super) fn write_eerd(&mut self, value: u32) {
        if value & eerd::START == 0 {
            return;
        }
        let address = (value >> eerd::ADDRESS_SHIFT) & 0xFF;
        let data = self.words.get(index(address)).copied().unwrap_or(0);
        self.eerd = eerd::DONE | address << eerd::ADDRESS_SHIFT | u32::from(data) << eerd::DATA_SHIFT;
    }

    /// A rising edge of the clock.
    fn clock(&mut self, data_in: bool) {
        match self.phase {
            Phase::Command { count: 0, .. } if !data_in => {}
            Phase::Command { bits, count } => self.command(bits << 1 | u16::from(data_in), count + 1),
            Phase::Data { word, left } => {
                let value = self.words.get(usize::from(word)).copied().unwrap_or(0);
                self.data_out = value >> (left - 1) & 1 != 0;
                self.phase = match left - 1 {
                    0 => Phase::Data {
                        word: (word + 1) & ADDRESS_MASK,
                        left: 16,
                    },
                    left => Phase::Data { word, left },
                };
            }
            Phase::Ignored => {}
        }
    }

    fn command(&mut self, bits: u16, count: u8) {
        if count < COMMAND_BITS {
            self.phase = Phase::Command { bits, count };
            return;
        }
        let [low, _] = bits.to_le_bytes();
        if bits >> 6 == OPCODE_READ {
            self.phase = Phase::Data {
                word: low & ADDRESS_MASK,
                left: 16,
            };
            self.data_out = false; // the dummy bit before the data
        } else {
            self.phase = Phase::Ignored;
        }
    }
}

/// Bits of EECD that keep what is written: SK, CS, DI, FWE, REQ.
const EECD_MASK: u32 = 0x77;

/// Word addresses are 6 bits wide.
pub(super) const ADDRESS_MASK: u8 = 0x3F;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads words as drivers do: select with the clock high, 9 bits in, 16 bits out for each word.
    fn bit_bang(nvm: &mut Nvm, first: u8, count: usize) -> std::vec::Vec<u16> {
        let put = |nvm: &mut Nvm, bits: u32| nvm.write_eecd(eecd::REQ | bits);
        put(nvm, eecd::SK);
        put(nvm, eecd::SK | eecd::CS);
        put(nvm, eecd::CS);
        let command = OPCODE_READ << 6 | u16::from(first);
        for n in (0..COMMAND_BITS).rev() {
            let data = if command >> n & 1 != 0 { eecd::DI } else { 0 };
            put(nvm, eecd::CS | data);
            put(nvm, eecd::CS | data | eecd::SK);
            put(nvm, eecd::CS | data);
        }
        let mut words = std::vec::Vec::new();
        for _ in 0..count {
            let mut word = 0;
            for _ in 0..16 {
                put(nvm, eecd::CS | eecd::SK);
                word = word << 1 | u16::from(nvm.read_eecd() & eecd::DO != 0);
                put(nvm, eecd::CS);
            }
            words.push(word);
        }
        put(nvm, 0);
        words
    }

    #[test]
    fn bit_banged_words_equal_eerd_and_the_image() {
        let mut nvm = Nvm::new([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        let image = eeprom::image([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        for (n, expected) in (0_u8..).zip(image) {
            assert_eq!(bit_bang(&mut nvm, n, 1), [expected], "word {n:#x} by EECD");
            nvm.write_eerd(eerd::START | u32::from(n) << eerd::ADDRESS_SHIFT);
            assert_eq!(nvm.eerd & (eerd::START | eerd::DONE), eerd::DONE);
            assert_eq!(nvm.eerd >> eerd::DATA_SHIFT, u32::from(expected), "word {n:#x} by EERD");
        }
        assert_eq!(bit_bang(&mut nvm, 0, WORDS), image, "sequential read");
    }

    #[test]
    fn select_and_clock_rising_together_clock_nothing_in() {
        let mut nvm = Nvm::new([2, 0, 0, 0, 0, 1]);
        nvm.write_eecd(eecd::CS | eecd::SK | eecd::DI);
        assert_eq!(nvm.phase, IDLE);
        nvm.write_eecd(eecd::CS | eecd::DI);
        nvm.write_eecd(eecd::CS | eecd::SK | eecd::DI);
        assert_eq!(nvm.phase, Phase::Command { bits: 1, count: 1 });
    }

    #[test]
    fn deselecting_ends_a_read_and_write_commands_change_nothing() {
        let mut nvm = Nvm::new([2, 0, 0, 0, 0, 1]);
        let before = nvm.words;
        nvm.write_eecd(eecd::CS);
        for bit in [1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1] {
            let data = if bit == 1 { eecd::DI } else { 0 };
            nvm.write_eecd(eecd::CS | data);
            nvm.write_eecd(eecd::CS | data | eecd::SK);
        }
        assert_eq!((nvm.words, nvm.phase), (before, Phase::Ignored));
        assert_ne!(nvm.read_eecd() & eecd::DO, 0, "ready");
        nvm.write_eecd(0);
        assert_eq!(nvm.phase, IDLE);
        nvm.write_eerd(eerd::START | 0x40 << eerd::ADDRESS_SHIFT);
        assert_eq!(nvm.eerd >> eerd::DATA_SHIFT, 0, "outside the image");
    }
}
