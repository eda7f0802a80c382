//! MSI-X: messages instead of lines (PCI Local Bus Specification 3.0, 6.8.2): table, pending bits, masks.
use std::sync::Arc;

use crate::devices::{Interrupts, IoOutcome, put};

/// Capability id of MSI-X (PCI 3.0, appendix H).
pub const MSIX_CAPABILITY: u8 = 0x11;
/// Bytes of a table entry: address, upper address, data, control.
pub const ENTRY_LEN: u64 = 16;
/// Offset of the control word in the capability.
pub const CONTROL_OFFSET: usize = 2;

/// Control word: messages are used.
const CONTROL_ENABLE: u16 = 1 << 15;
/// Control word: all vectors are masked.
const CONTROL_MASK_ALL: u16 = 1 << 14;
/// Entry's control: this vector is masked.
const VECTOR_MASK: u32 = 1;

/// Vectors of one function.
#[derive(Debug)]
pub struct Msix {
    sink: Arc<dyn Interrupts>,
    entries: Vec<Entry>,
    control: u16,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The four words of an entry.
    words: [u32; 4],
    pending: bool,
}

impl Msix {
    /// As many masked vectors.
    #[must_use]
    pub fn new(sink: Arc<dyn Interrupts>, vectors: u16) -> Msix {
        let masked = Entry {
            words: [0, 0, 0, VECTOR_MASK],
            pending: false,
        };
        Msix {
            sink,
            entries: vec![masked; usize::from(vectors)],
            control: 0,
        }
    }

    /// The body of the capability behind its id and link, and which of its bits a guest may write: table and pending bits
    /// lie in one BAR.
    #[must_use]
    pub fn capability(vectors: u16, bar: u8, table_offset: u32, pending_offset: u32) -> (Vec<u8>, Vec<u8>) {
        let mut body = vectors.saturating_sub(1).to_le_bytes().to_vec();
        body.extend((table_offset & !7 | u32::from(bar)).to_le_bytes());
        body.extend((pending_offset & !7 | u32::from(bar)).to_le_bytes());
        let mut writable = vec![0; body.len()];
        for (slot, byte) in writable
            .iter_mut()
            .zip((CONTROL_ENABLE | CONTROL_MASK_ALL).to_le_bytes())
        {
            *slot = byte;
        }
        (body, writable)
    }

    /// Whether the guest chose messages over the line.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.control & CONTROL_ENABLE != 0
    }

    /// The guest wrote the control word.
    pub fn set_control(&mut self, control: u16) {
        self.control = control & (CONTROL_ENABLE | CONTROL_MASK_ALL);
        self.deliver_pending();
    }

    /// Number of vectors.
    #[must_use]
    pub fn vectors(&self) -> usize {
        self.entries.len()
    }

    /// Sends a vector's message, now or when it is unmasked.
    pub fn raise(&mut self, vector: u16) {
        if !self.is_enabled() {
            return;
        }
        if let Some(entry) = self.entries.get_mut(usize::from(vector)) {
            entry.pending = true;
        }
        self.deliver_pending();
    }

    /// Reads the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) -> IoOutcome {
        let Some((index, word)) = self.locate(offset, data.len()) else {
            return IoOutcome::BadAccess("MSI-X tables are read in words of 4 or 8 bytes");
        };
        let word_at = |word: usize| {
            let entry = self.entries.get(index);
            entry.and_then(|entry| entry.words.get(word)).copied().unwrap_or(0)
        };
        put(data, u64::from(word_at(word)) | u64::from(word_at(word + 1)) << 32)
    }

    /// Writes the table.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        let Some((index, word)) = self.locate(offset, data.len()) else {
            return IoOutcome::BadAccess("MSI-X tables are written in words of 4 or 8 bytes");
        };
        if let Some(entry) = self.entries.get_mut(index) {
            let (words, _) = data.as_chunks::<4>();
            for (slot, bytes) in entry.words.iter_mut().skip(word).zip(words) {
                *slot = u32::from_le_bytes(*bytes);
            }
        }
        self.deliver_pending();
        IoOutcome::Done
    }

    /// Reads the pending bits.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) -> IoOutcome {
        let bits = (0..).zip(self.entries.iter().take(64));
        let bits = bits.fold(0, |bits: u64, (n, entry)| bits | u64::from(entry.pending) << n);
        put(data, if offset < 8 { bits >> (8 * offset) } else { 0 })
    }

    /// A reset of the device: nothing pending. The table with its masks stays until the driver writes it again, and the
    /// control word is the configuration space's.
    pub fn reset(&mut self) {
        for entry in &mut self.entries {
            entry.pending = false;
        }
    }

    fn locate(&self, offset: u64, len: usize) -> Option<(usize, usize)> {
        let aligned = (len == 4 && offset.is_multiple_of(4)) || (len == 8 && offset.is_multiple_of(8));
        let index = usize::try_from(offset / ENTRY_LEN).ok()?;
        let word = usize::try_from(offset % ENTRY_LEN / 4).ok()?;
        (aligned && index < self.entries.len()).then_some((index, word))
    }

    fn deliver_pending(&mut self) {
        if self.control & (CONTROL_ENABLE | CONTROL_MASK_ALL) != CONTROL_ENABLE {
            return;
        }
        for entry in &mut self.entries {
            let [low, high, data, control] = entry.words;
            if entry.pending && control & VECTOR_MASK == 0 {
                entry.pending = false;
                self.sink.signal_msi(u64::from(low) | u64::from(high) << 32, data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::intx::{Raised, Recorder};
    use super::*;

    fn msix() -> (Arc<Recorder>, Msix) {
        let recorder = Arc::new(Recorder::default());
        let mut msix = Msix::new(recorder.clone(), 3);
        for (vector, words) in [(0_u64, [0xfee0_0000_u32, 0, 0x41]), (2, [0xfee0_1000, 1, 0x43])] {
            for (n, word) in (0..).zip(words) {
                let offset = vector * ENTRY_LEN + n * 4;
                assert_eq!(msix.write_table(offset, &word.to_le_bytes()), IoOutcome::Done);
            }
        }
        (recorder, msix)
    }

    #[test]
    fn a_masked_vector_is_pending_until_it_is_unmasked() {
        let (recorder, mut msix) = msix();
        msix.raise(0);
        msix.set_control(CONTROL_ENABLE);
        msix.raise(2);
        assert_eq!(recorder.take(), [], "vectors are masked after power-on");
        let mut bits = [0; 8];
        assert_eq!(msix.read_pending(0, &mut bits), IoOutcome::Done);
        assert_eq!(bits, [4, 0, 0, 0, 0, 0, 0, 0], "what was raised while disabled is gone");
        assert_eq!(msix.write_table(2 * ENTRY_LEN + 12, &[0; 4]), IoOutcome::Done);
        assert_eq!(recorder.take(), [Raised::Msi(0x1_fee0_1000, 0x43)]);
        msix.raise(2);
        assert_eq!(recorder.take(), [Raised::Msi(0x1_fee0_1000, 0x43)]);
    }

    #[test]
    fn the_function_mask_holds_all_vectors() {
        let (recorder, mut msix) = msix();
        msix.set_control(CONTROL_ENABLE | CONTROL_MASK_ALL);
        assert_eq!(msix.write_table(12, &[0; 4]), IoOutcome::Done);
        msix.raise(0);
        assert_eq!(recorder.take(), []);
        msix.set_control(CONTROL_ENABLE);
        assert_eq!(recorder.take(), [Raised::Msi(0xfee0_0000, 0x41)]);
    }

    #[test]
    fn wild_vectors_and_accesses_do_nothing() {
        let (recorder, mut msix) = msix();
        msix.set_control(CONTROL_ENABLE);
        msix.raise(3);
        msix.raise(u16::MAX);
        for (offset, len) in [(48, 4), (2, 4), (4, 8), (0, 1), (u64::MAX - 3, 4)] {
            assert!(matches!(
                msix.write_table(offset, &vec![0; len]),
                IoOutcome::BadAccess(_)
            ));
            assert!(matches!(
                msix.read_table(offset, &mut vec![0; len]),
                IoOutcome::BadAccess(_)
            ));
        }
        assert_eq!(recorder.take(), []);
        let mut both = [0; 8];
        assert_eq!(msix.read_table(ENTRY_LEN * 2, &mut both), IoOutcome::Done);
        assert_eq!(u64::from_le_bytes(both), 0x1_fee0_1000);
    }
}
