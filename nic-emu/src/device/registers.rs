//! The register file: one word per register, with reset values and masks from the specification's table.

use alloc::boxed::Box;
use alloc::vec;

use crate::bits::{index, len32};
use crate::spec::registers::{self as reg, RegisterSpec, TABLE};

/// All registers that keep a value. Offsets outside the table read 0 and ignore writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegisterFile {
    words: Box<[u32]>,
}

impl RegisterFile {
    /// The file after power-on.
    pub(super) fn new() -> Self {
        let mut file = Self {
            words: vec![0; WORDS].into_boxed_slice(),
        };
        file.words.copy_from_slice(&RESETS);
        file
    }

    /// A file with these words; missing ones have their reset value, surplus ones and bits that cannot change are dropped.
    pub(super) fn from_words(words: &[u32]) -> Self {
        let mut file = Self::new();
        for (offset, value) in (0..).step_by(4).zip(words) {
            if reg::statistics::contains(offset) || offset == reg::PBA {
                file.set(offset, *value);
            } else {
                file.write(offset, *value);
            }
        }
        file
    }

    /// Offsets of every word that can differ from 0, ascending.
    pub(super) fn offsets() -> impl Iterator<Item = u32> {
        let known = |word: &usize| {
            let offset = len32(*word * 4);
            let constants = RESETS.get(*word).zip(MASKS.get(*word));
            reg::statistics::contains(offset) || constants.is_some_and(|(reset, mask)| reset | mask != 0)
        };
        (0..WORDS).filter(known).map(|word| len32(word * 4))
    }

    /// All words, in the order of their offsets.
    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    /// Back to reset values, but for PBA, which CTRL.RST leaves alone.
    pub(super) fn reset(&mut self) {
        let pba = self.get(reg::PBA);
        self.words.copy_from_slice(&RESETS);
        self.set(reg::PBA, pba);
    }

    /// The value at an offset.
    pub(super) fn get(&self, offset: u32) -> u32 {
        self.words.get(index(offset / 4)).copied().unwrap_or(0)
    }

    /// Sets a value, mask or not: for the device's own use.
    pub(super) fn set(&mut self, offset: u32, value: u32) {
        if let Some(word) = self.words.get_mut(index(offset / 4)) {
            *word = value;
        }
    }

    /// A guest's write: only the mask's bits change.
    pub(super) fn write(&mut self, offset: u32, value: u32) {
        let mask = MASKS.get(index(offset / 4)).copied().unwrap_or(0);
        self.set(offset, (value & mask) | (self.get(offset) & !mask));
    }

    /// Is any of these bits set?
    pub(super) fn has(&self, offset: u32, bits: u32) -> bool {
        self.get(offset) & bits != 0
    }
}

/// Words up to the last register of the table; the packet buffer memory above reads 0.
const WORDS: usize = 0xA000 / 4;

static RESETS: [u32; WORDS] = column(true);
static MASKS: [u32; WORDS] = column(false);

/// One column of the table, spread over all words.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler: an index out of range is a compile error"
)]
const fn column(resets: bool) -> [u32; WORDS] {
    let mut words = [0; WORDS];
    let mut row = 0;
    while row < TABLE.len() {
        let RegisterSpec {
            offset,
            count,
            stride,
            reset,
            mask,
            ..
        } = TABLE[row];
        let mut n = 0;
        while n < count {
            words[index((offset + n * stride) / 4)] = if resets { reset } else { mask };
            n += 1;
        }
        row += 1;
    }
    words
}
