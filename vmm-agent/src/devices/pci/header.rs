//! The configuration space of one function: what the guest reads, what it may write, and which BAR answers where.
use super::{Bar, Capability, FunctionConfig, PciError};

/// Bytes of conventional configuration space (PCI Local Bus Specification 3.0, 6.1).
pub const CONFIG_SPACE_LEN: usize = 256;
const WORDS: usize = CONFIG_SPACE_LEN / 4;

/// Configuration space as the guest sees it, with the bits that it may write.
#[derive(Clone, Debug)]
pub(super) struct Header {
    words: [u32; WORDS],
    writable: [u32; WORDS],
    bars: [Option<Bar>; 6],
}

// PCI Local Bus Specification 3.0, 6.1 and 6.2: word offsets in the header.
const WORD_ID: usize = 0;
const WORD_COMMAND: usize = 1;
const WORD_CLASS: usize = 2;
const WORD_BAR0: usize = 4;
const WORD_SUBSYSTEM: usize = 11;
const WORD_CAPABILITIES: usize = 13;
const WORD_INTERRUPT: usize = 15;
/// First byte behind the header, where capabilities are laid out.
const CAPABILITIES_START: usize = 64;
/// Command register: answer in I/O space.
const COMMAND_IO: u32 = 1 << 0;
/// Command register: answer in memory space.
const COMMAND_MEMORY: u32 = 1 << 1;
/// Command register: bits that the guest may write (I/O, memory, bus master, parity, SERR, INTx disable).
const COMMAND_WRITABLE: u32 = 0x0547;
/// Status register (upper half of the command's word): there is a list of capabilities.
const STATUS_CAPABILITIES: u32 = 1 << (16 + 4);
/// BAR: it lies in I/O space (6.2.5.1).
const BAR_IO: u32 = 1;
/// Interrupt pin A, in the word's second byte.
const PIN_A: u32 = 1 << 8;

impl Header {
    pub(super) fn new(config: &FunctionConfig) -> Result<Header, PciError> {
        let mut header = Header {
            words: [0; WORDS],
            writable: [0; WORDS],
            bars: config.bars,
        };
        let halves = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
        header.set(WORD_ID, halves(config.device, config.vendor), 0);
        header.set(WORD_COMMAND, 0, COMMAND_WRITABLE);
        header.set(WORD_CLASS, config.class << 8 | u32::from(config.revision), 0);
        header.set(WORD_SUBSYSTEM, halves(config.subsystem, config.subsystem_vendor), 0);
        // The line (lowest byte) is the guest's to write down.
        let pin = if config.interrupt_pin { PIN_A } else { 0 };
        header.set(WORD_INTERRUPT, pin, 0xff);
        for (index, bar) in config.bars.iter().enumerate() {
            // A guest writes all ones and reads back which bits took: the length (6.2.5.1).
            let mask =
                |len_bytes: u64, flags| u32::try_from(len_bytes.wrapping_neg() & 0xffff_ffff & flags).unwrap_or(0);
            match bar {
                Some(Bar::Memory { len_bytes }) => header.set(WORD_BAR0 + index, 0, mask(*len_bytes, 0xffff_fff0)),
                Some(Bar::Io { len_bytes }) => header.set(WORD_BAR0 + index, BAR_IO, mask(*len_bytes, 0xffff_fffc)),
                None => {}
            }
        }
        header.lay_out(&config.capabilities)?;
        Ok(header)
    }

    fn set(&mut self, word: usize, value: u32, writable: u32) {
        if let (Some(slot), Some(mask)) = (self.words.get_mut(word), self.writable.get_mut(word)) {
            (*slot, *mask) = (value, writable);
        }
    }

    /// Links the capabilities into a list, each at a multiple of four (6.7).
    fn lay_out(&mut self, capabilities: &[Capability]) -> Result<(), PciError> {
        let mut at = CAPABILITIES_START;
        for (index, capability) in capabilities.iter().enumerate() {
            let end = (at + 2 + capability.body.len()).next_multiple_of(4);
            if end > CONFIG_SPACE_LEN {
                return Err(PciError::NoConfigSpace);
            }
            let pointer = u8::try_from(end).unwrap_or(0);
            let next = if index + 1 < capabilities.len() { pointer } else { 0 };
            let bytes = [capability.id, next].into_iter().chain(capability.body.iter().copied());
            let masks = [0, 0].into_iter().chain(capability.writable.iter().copied());
            let bytes: Vec<u8> = bytes.collect();
            let mut masks: Vec<u8> = masks.collect();
            masks.resize(bytes.len(), 0);
            for (offset, (bytes, masks)) in (0..).zip(bytes.chunks(4).zip(masks.chunks(4))) {
                self.set(at / 4 + offset, little(bytes), little(masks));
            }
            at = end;
        }
        if !capabilities.is_empty() {
            self.set(WORD_COMMAND, STATUS_CAPABILITIES, COMMAND_WRITABLE);
            self.set(WORD_CAPABILITIES, u32::try_from(CAPABILITIES_START).unwrap_or(0), 0);
        }
        Ok(())
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

    /// All of it as bytes.
    pub(super) fn space(&self) -> [u8; CONFIG_SPACE_LEN] {
        let mut space = [0; CONFIG_SPACE_LEN];
        for (bytes, word) in space.chunks_exact_mut(4).zip(self.words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        space
    }

    /// Writes down which interrupt line the pin is wired to, as firmware does.
    pub(super) fn set_interrupt_line(&mut self, line: u32) {
        self.write(WORD_INTERRUPT * 4, line, 0xff);
    }

    /// Puts a function's BARs where `place` says and lets it answer.
    pub(super) fn place_bars(&mut self, mut place: impl FnMut(Bar) -> Result<u32, PciError>) -> Result<(), PciError> {
        let mut command = 0;
        for (index, bar) in self.bars.into_iter().enumerate() {
            let Some(bar) = bar else { continue };
            self.write((WORD_BAR0 + index) * 4, place(bar)?, u32::MAX);
            command |= match bar {
                Bar::Memory { .. } => COMMAND_MEMORY,
                Bar::Io { .. } => COMMAND_IO,
            };
        }
        self.write(WORD_COMMAND * 4, command, u32::MAX);
        Ok(())
    }

    /// Which memory BAR answers at `gpa`, and at which offset inside it.
    pub(super) fn decode_memory(&self, gpa: u64, len: usize) -> Option<(usize, u64)> {
        self.decode(COMMAND_MEMORY, gpa, len, |bar| match bar {
            Bar::Memory { len_bytes } => Some((*len_bytes, 0xf)),
            Bar::Io { .. } => None,
        })
    }

    /// Which I/O BAR answers at `port`, and at which offset inside it.
    pub(super) fn decode_io(&self, port: u64, len: usize) -> Option<(usize, u64)> {
        self.decode(COMMAND_IO, port, len, |bar| match bar {
            Bar::Io { len_bytes } => Some((*len_bytes, 0x3)),
            Bar::Memory { .. } => None,
        })
    }

    /// `kind` tells length and flag bits of the BARs that count.
    fn decode(
        &self,
        enable: u32,
        address: u64,
        len: usize,
        kind: impl Fn(&Bar) -> Option<(u64, u32)>,
    ) -> Option<(usize, u64)> {
        if self.read(WORD_COMMAND * 4) & enable == 0 {
            return None;
        }
        let len = u64::try_from(len).ok()?;
        let bases = self.words.iter().skip(WORD_BAR0);
        self.bars
            .iter()
            .zip(bases)
            .enumerate()
            .find_map(|(index, (bar, base))| {
                let (bar_len, flags) = kind(bar.as_ref()?)?;
                let offset = address.checked_sub(u64::from(base & !flags))?;
                (offset.checked_add(len)? <= bar_len).then_some((index, offset))
            })
    }
}

fn little(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}
