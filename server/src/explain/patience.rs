//! A file that is read for a bounded time: a core can ask for work without end, and what is known by then is still told.

use std::cell::Cell;
use std::time::Duration;

use vmcore::image::{Absent, FileBytes};

use crate::os;

/// Reads between two looks at the time: it is asked of the kernel, as are most reads.
const READS: u32 = 64;

/// A file that is absent as a whole once its reader has had so much processor time.
#[derive(Debug)]
pub(super) struct Patience<F> {
    file: F,
    /// By the clock of this thread.
    ends_at: Duration,
    is_over: Cell<bool>,
    reads: Cell<u32>,
}

/// Why there is nothing when the time is over.
pub(super) fn told(cpu_time: Duration) -> String {
    format!("it was not found within {cpu_time:?} of processor time")
}

impl<F> Patience<F> {
    /// `cpu_time` from now on.
    pub(super) fn new(file: F, cpu_time: Duration) -> Self {
        Self {
            file,
            ends_at: os::cpu_time().saturating_add(cpu_time),
            is_over: Cell::new(false),
            reads: Cell::new(0),
        }
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    fn look(&self) -> bool {
        let reads = self.reads.get();
        self.reads.set(reads.wrapping_add(1));
        if reads.is_multiple_of(READS) && os::cpu_time() >= self.ends_at {
            self.is_over.set(true);
        }
        self.is_over.get()
    }
}

impl<F: FileBytes> FileBytes for Patience<F> {
    fn len_bytes(&self) -> u64 {
        self.file.len_bytes()
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        if self.look() {
            return Err(Absent {
                at: file_offset,
                len_bytes: bytes.len(),
            });
        }
        self.file.read_at(file_offset, bytes)
    }

    fn hole_len_bytes(&self, file_offset: u64, len_bytes: u64) -> u64 {
        if self.look() {
            return 0;
        }
        self.file.hole_len_bytes(file_offset, len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_ends_and_stays_ended() {
        let patient = Patience::new([7; 8].as_slice(), Duration::from_secs(3600));
        let impatient = Patience::new([7; 8].as_slice(), Duration::ZERO);
        for _ in 0..3 * READS {
            assert_eq!(patient.read_at(0, &mut [0; 8]), Ok(()));
            assert!(impatient.read_at(0, &mut [0; 8]).is_err());
            assert_eq!(impatient.hole_len_bytes(0, 8), 0);
        }
        assert!(impatient.is_over() && !patient.is_over());
        assert_eq!(impatient.len_bytes(), 8);
    }
}
