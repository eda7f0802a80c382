//! The configuration header of one function: what the guest reads, what it may write, and which BAR answers where.
use super::{Bar, FunctionConfig};

/// Header of 64 bytes as the guest sees it, with the bits that it may write.
#[derive(Clone, Debug)]
pub(super) struct Header {
    words: [u32; 16],
    writable: [u32; 16],
    bar_lens: [u64; 6],
}

// PCI Local Bus Specification 3.0, 6.1 and 6.2: word offsets in the header.
const WORD_ID: usize = 0;
const WORD_COMMAND: usize = 1;
const WORD_CLASS: usize = 2;
const WORD_BAR0: usize = 4;
const WORD_SUBSYSTEM: usize = 11;
/// Command register: answer in memory space.
const COMMAND_MEMORY: u32 = 1 << 1;
/// Command register: bits that the guest may write (I/O, memory, bus master, parity, SERR, INTx disable).
const COMMAND_WRITABLE: u32 = 0x0547;

impl Header {
    pub(super) fn new(config: &FunctionConfig) -> Header {
        let mut words = [0; 16];
        let mut writable = [0; 16];
        let mut bar_lens = [0; 6];
        let halves = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
        for (index, word) in words.iter_mut().enumerate() {
            *word = match index {
                WORD_ID => halves(config.device, config.vendor),
                WORD_CLASS => config.class << 8 | u32::from(config.revision),
                WORD_SUBSYSTEM => halves(config.subsystem, config.subsystem_vendor),
                _ => 0,
            };
        }
        if let Some(command) = writable.get_mut(WORD_COMMAND) {
            *command = COMMAND_WRITABLE;
        }
        for ((bar, mask), len) in config
            .bars
            .iter()
            .zip(writable.iter_mut().skip(WORD_BAR0))
            .zip(&mut bar_lens)
        {
            if let Some(Bar::Memory { len_bytes }) = bar {
                // A guest writes all ones and reads back which bits took: the length (6.2.5.1).
                *mask = u32::try_from(len_bytes.wrapping_neg() & 0xffff_fff0).unwrap_or(0);
                *len = *len_bytes;
            }
        }
        Header {
            words,
            writable,
            bar_lens,
        }
    }

    pub(super) fn read(&self, register: usize) -> u32 {
        self.words.get(register / 4).copied().unwrap_or(0)
    }

    pub(super) fn write(&mut self, register: usize, value: u32, mask: u32) {
        if let (Some(word), Some(writable)) = (self.words.get_mut(register / 4), self.writable.get(register / 4)) {
            let mask = mask & writable;
            *word = *word & !mask | value & mask;
        }
    }

    /// Puts a function's BARs where `place` says and lets it answer. The error is the length that had no room.
    pub(super) fn place_bars(&mut self, mut place: impl FnMut(u64) -> Option<u32>) -> Result<(), u64> {
        for (bar, len_bytes) in self.bar_lens.into_iter().enumerate().filter(|(_, len)| *len != 0) {
            let base = place(len_bytes).ok_or(len_bytes)?;
            self.write((WORD_BAR0 + bar) * 4, base, u32::MAX);
        }
        self.write(WORD_COMMAND * 4, COMMAND_MEMORY, u32::MAX);
        Ok(())
    }

    /// Which BAR answers at `gpa`, and at which offset inside it.
    pub(super) fn decode(&self, gpa: u64, len: usize) -> Option<(usize, u64)> {
        if self.read(WORD_COMMAND * 4) & COMMAND_MEMORY == 0 {
            return None;
        }
        let len = u64::try_from(len).ok()?;
        let bases = self.words.iter().skip(WORD_BAR0);
        self.bar_lens
            .iter()
            .zip(bases)
            .enumerate()
            .find_map(|(bar, (bar_len, base))| {
                let offset = gpa.checked_sub(u64::from(base & !0xf))?;
                (offset.checked_add(len)? <= *bar_len).then_some((bar, offset))
            })
    }
}
