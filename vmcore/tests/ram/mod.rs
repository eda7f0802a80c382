//! Memory made by hand.
#![allow(dead_code)] // each test file uses a part

use vmcore::MemoryRange;
use vmcore::image::{Absent, PhysicalMemory};

/// Memory from guest physical address 0 on.
#[derive(Clone)]
pub(crate) struct Ram(pub(crate) Vec<u8>);

impl PhysicalMemory for Ram {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: gpa,
            len_bytes: bytes.len(),
        };
        let at = usize::try_from(gpa).map_err(|_| absent)?;
        let end = at.checked_add(bytes.len()).ok_or(absent)?;
        bytes.copy_from_slice(self.0.get(at..end).ok_or(absent)?);
        Ok(())
    }
}

impl Ram {
    pub(crate) fn new(len: usize) -> Self {
        Self(vec![0; len])
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap();
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn put_u64(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn ranges(&self) -> [MemoryRange; 1] {
        [MemoryRange {
            gpa: 0,
            len_bytes: self.0.len() as u64,
        }]
    }
}
