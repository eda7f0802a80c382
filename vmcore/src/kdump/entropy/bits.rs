//! Bits behind one another, the lowest first (RFC 1951, 3.1.1), into a room of fixed length. zstd's are read from the end (RFC 8878,
//! 4.1), which is the same to whoever writes them in the order opposite to that of reading.

/// More than a page ever needs, so that a place modulo half of it always has room for eight bytes.
pub(in crate::kdump) const ROOM: usize = 16_384;

/// Takes bits.
#[derive(Debug)]
pub(in crate::kdump) struct Bits<'o> {
    out: &'o mut [u8; ROOM],
    at: usize,
    waiting: u64,
    /// How many bits wait.
    count: u32,
}

impl<'o> Bits<'o> {
    /// Bits from this place of the room on.
    pub(in crate::kdump) fn new(out: &'o mut [u8; ROOM], at: usize) -> Self {
        Self {
            out,
            at,
            waiting: 0,
            count: 0,
        }
    }

    /// The lowest `count` bits of `value`; the others are zero. Between two calls of [`Self::flush`] at most 56.
    #[inline(always)]
    pub(in crate::kdump) fn put(&mut self, value: u64, count: u32) {
        self.waiting |= value << (self.count % 64);
        self.count = self.count.wrapping_add(count);
    }

    /// A word as [`super::code::Code::words`] has it.
    #[inline(always)]
    pub(in crate::kdump) fn put_word(&mut self, word: u32) {
        self.put((word & 0xffff).into(), word >> 16);
    }

    /// Writes whole bytes; fewer than eight bits wait then.
    #[inline(always)]
    pub(in crate::kdump) fn flush(&mut self) {
        let at = self.at % (ROOM / 2);
        if let Some(room) = self.out.get_mut(at..at + 8) {
            room.copy_from_slice(&self.waiting.to_le_bytes());
        }
        self.at = self.at.wrapping_add((self.count / 8) as usize);
        self.waiting >>= (self.count & 0x38) % 64;
        self.count %= 8;
    }

    /// What still waits, filled with zeros to a whole byte; the place behind it.
    pub(in crate::kdump) fn finish(mut self) -> usize {
        self.flush();
        self.count = self.count.wrapping_add(7);
        self.flush();
        self.at
    }

    /// The same behind a bit that tells who reads from the end where to begin.
    pub(in crate::kdump) fn finish_marked(mut self) -> usize {
        self.flush();
        self.put(1, 1);
        self.finish()
    }
}
