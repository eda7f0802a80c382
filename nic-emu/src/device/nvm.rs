//! The EEPROM's two doors: the Microwire wires of EECD, and EERD (SDM chapter 5; chapter 13, EECD and EERD; the commands are
//! those of a 93C46 in its 64 x 16 form).
//!
//! ```text
//!   CS low ─► idle ─CS high─► command (9 bits in) ─READ─► data (16 bits out, next word, …)
//!     ▲                                  ├─ WRITE, WRAL ─► program (16 bits in)
//!     │                                  ├─ ERASE, ERAL ─► program (no data)
//!     │                                  └─ EWEN, EWDS ──► ignored until CS falls
//!     └─ CS low: a complete program command is carried out ◄──┴──────────────┘
//! ```

use super::EmConfig;
use crate::bits::index;
use crate::spec::eeprom::{
    self, COMMAND_BITS, ERASED, EXTENDED_DISABLE, EXTENDED_ENABLE, EXTENDED_ERASE_ALL, EXTENDED_WRITE_ALL,
    OPCODE_ERASE, OPCODE_EXTENDED, OPCODE_READ, OPCODE_WRITE, WORDS,
};
use crate::spec::registers::{eecd, eerd};

/// What a guest's writes to the EEPROM do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EepromWrites {
    /// They are taken, look done at once, and change nothing: the guest cannot change its own address for good.
    #[default]
    Ignored,
    /// They change the contents, as on the real part. Who wants to keep them reads [`Em::eeprom`](super::Em::eeprom), or
    /// saves the device's state.
    Kept,
}

/// The EEPROM and the state of its wires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nvm {
    /// The image.
    pub(super) words: [u16; WORDS],
    /// What writes do.
    pub(super) policy: EepromWrites,
    /// EWEN came, and no EWDS since.
    pub(super) unlocked: bool,
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
    /// Collecting what is to be written; once nothing is left, it is when CS falls.
    Program {
        /// Which words.
        target: Target,
        /// Bits so far.
        value: u16,
        /// Bits that are still to come.
        left: u8,
    },
    /// A command that has no effect any more.
    Ignored,
}

/// Which words a command changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One.
    Word(u8),
    /// Every one.
    All,
}

/// Waiting for a start bit.
const IDLE: Phase = Phase::Command { bits: 0, count: 0 };

impl Nvm {
    /// An EEPROM with the image for a station address.
    pub(super) fn new(config: EmConfig) -> Self {
        Self {
            words: eeprom::image(config.mac),
            policy: config.eeprom_writes,
            unlocked: false,
            wires: 0,
            eerd: 0,
            phase: IDLE,
            data_out: true,
        }
    }

    /// Releases the wires; the contents stay, and so does the EEPROM's own lock.
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
            self.program();
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

    /// Carries out a complete write or erase command. It is done at once, so the EEPROM is ready when it is selected again.
    fn program(&mut self) {
        let Phase::Program { target, value, left: 0 } = self.phase else {
            return;
        };
        if !self.unlocked || self.policy == EepromWrites::Ignored {
            return;
        }
        match target {
            Target::All => self.words = [value; WORDS],
            Target::Word(word) => {
                if let Some(to) = self.words.get_mut(usize::from(word)) {
                    *to = value;
                }
            }
        }
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
            Phase::Program { target, value, left } if left > 0 => {
                self.phase = Phase::Program {
                    target,
                    value: value << 1 | u16::from(data_in),
                    left: left - 1,
                };
            }
            // Surplus clocks change nothing.
            Phase::Program { .. } | Phase::Ignored => {}
        }
    }

    fn command(&mut self, bits: u16, count: u8) {
        if count < COMMAND_BITS {
            self.phase = Phase::Command { bits, count };
            return;
        }
        let [low, _] = bits.to_le_bytes();
        let address = low & ADDRESS_MASK;
        let write = |target| Phase::Program {
            target,
            value: 0,
            left: 16,
        };
        let erase = |target| Phase::Program {
            target,
            value: ERASED,
            left: 0,
        };
        self.phase = match (bits >> 6, address >> 4) {
            (OPCODE_READ, _) => {
                self.data_out = false; // the dummy bit before the data
                Phase::Data {
                    word: address,
                    left: 16,
                }
            }
            (OPCODE_WRITE, _) => write(Target::Word(address)),
            (OPCODE_ERASE, _) => erase(Target::Word(address)),
            (OPCODE_EXTENDED, EXTENDED_WRITE_ALL) => write(Target::All),
            (OPCODE_EXTENDED, EXTENDED_ERASE_ALL) => erase(Target::All),
            (OPCODE_EXTENDED, which) => {
                self.unlocked = match which {
                    EXTENDED_ENABLE => true,
                    EXTENDED_DISABLE => false,
                    _ => self.unlocked,
                };
                Phase::Ignored
            }
            _ => Phase::Ignored,
        };
    }
}

/// Bits of EECD that keep what is written: SK, CS, DI, FWE, REQ.
pub(super) const EECD_MASK: u32 = 0x77;

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
        let mut nvm = Nvm::new(EmConfig::new([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
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
        let mut nvm = Nvm::new(EmConfig::new([2, 0, 0, 0, 0, 1]));
        nvm.write_eecd(eecd::CS | eecd::SK | eecd::DI);
        assert_eq!(nvm.phase, IDLE);
        nvm.write_eecd(eecd::CS | eecd::DI);
        nvm.write_eecd(eecd::CS | eecd::SK | eecd::DI);
        assert_eq!(nvm.phase, Phase::Command { bits: 1, count: 1 });
    }

    /// Clocks bits in, highest first, from a fresh selection on, and deselects.
    fn clock_in(nvm: &mut Nvm, bits: u32, count: u32) {
        nvm.write_eecd(eecd::CS);
        for n in (0..count).rev() {
            let data = if bits >> n & 1 != 0 { eecd::DI } else { 0 };
            nvm.write_eecd(eecd::CS | data);
            nvm.write_eecd(eecd::CS | data | eecd::SK);
        }
        assert_ne!(nvm.read_eecd() & eecd::DO, 0, "ready");
        nvm.write_eecd(0);
    }

    fn enable(nvm: &mut Nvm) {
        clock_in(nvm, u32::from(OPCODE_EXTENDED << 6 | 0x30), 9);
    }

    /// WRITE of a value to word 5.
    fn write_word_5(nvm: &mut Nvm, value: u16) {
        clock_in(nvm, u32::from(OPCODE_WRITE << 6 | 5) << 16 | u32::from(value), 25);
    }

    #[test]
    fn writes_change_the_contents_only_where_they_are_kept_and_enabled() {
        for policy in [EepromWrites::Ignored, EepromWrites::Kept] {
            let mut nvm = Nvm::new(EmConfig {
                mac: [2, 0, 0, 0, 0, 1],
                eeprom_writes: policy,
            });
            let before = nvm.words;
            write_word_5(&mut nvm, 0x1234);
            assert_eq!(nvm.words, before, "not enabled");
            enable(&mut nvm);
            nvm.reset();
            clock_in(&mut nvm, u32::from(OPCODE_WRITE << 6 | 5) << 15 | 0x91A, 24);
            assert_eq!(nvm.words, before, "a bit is missing");
            write_word_5(&mut nvm, 0x1234);
            let mut expected = before;
            if policy == EepromWrites::Kept {
                expected[5] = 0x1234;
            }
            assert_eq!((nvm.words, nvm.phase), (expected, IDLE));
            assert_eq!(bit_bang(&mut nvm, 5, 1), [expected[5]]);
            clock_in(&mut nvm, u32::from(OPCODE_EXTENDED << 6), 9);
            write_word_5(&mut nvm, 0x4321);
            assert_eq!(nvm.words, expected, "disabled again");
        }
    }

    #[test]
    fn erasing_and_writing_all_words() {
        let mut nvm = Nvm::new(EmConfig {
            mac: [2, 0, 0, 0, 0, 1],
            eeprom_writes: EepromWrites::Kept,
        });
        enable(&mut nvm);
        clock_in(&mut nvm, u32::from(OPCODE_ERASE << 6 | 1), 9);
        assert_eq!(nvm.words[..3], [0x0002, ERASED, 0x0100]);
        clock_in(&mut nvm, u32::from(OPCODE_EXTENDED << 6 | 0x10) << 16 | 0xABCD, 25);
        assert_eq!(nvm.words, [0xABCD; WORDS]);
        clock_in(&mut nvm, u32::from(OPCODE_EXTENDED << 6 | 0x20), 9);
        assert_eq!(nvm.words, [ERASED; WORDS]);
    }

    #[test]
    fn deselecting_ends_a_read() {
        let mut nvm = Nvm::new(EmConfig::new([2, 0, 0, 0, 0, 1]));
        clock_in(&mut nvm, u32::from(OPCODE_READ << 6), 8);
        assert_eq!(nvm.phase, IDLE);
        nvm.write_eerd(eerd::START | 0x40 << eerd::ADDRESS_SHIFT);
        assert_eq!(nvm.eerd >> eerd::DATA_SHIFT, 0, "outside the image");
    }
}
