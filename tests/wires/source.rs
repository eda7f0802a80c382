//! A machine that never ran: two ranges of RAM in a vector, partly untouched, partly zero, else random.

use vmcore::{CpuState, MemoryRange};
use vmm_agent::dump::{CoreFile, DumpSource, SourceError};

const PAGE: usize = 4096;

/// The machine.
pub(crate) struct FakeMachine {
    ranges: Vec<MemoryRange>,
    /// The ranges one after the other.
    memory: Vec<u8>,
    cpus: Vec<CpuState>,
}

impl FakeMachine {
    /// With so many bytes of RAM, half of them below the hole and half from 4 GiB on.
    pub(crate) fn of_len(len: usize) -> Self {
        let mut memory = vec![0; len];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for (page, bytes) in memory.chunks_mut(PAGE).enumerate() {
            // A third is zero, in runs of every length.
            if page % 96 < 16 || page % 6 == 5 {
                continue;
            }
            for word in bytes.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
        }
        let half = (len / 2) as u64;
        let ranges = vec![
            MemoryRange {
                gpa: 0,
                len_bytes: half,
            },
            MemoryRange {
                gpa: 4 << 30,
                len_bytes: len as u64 - half,
            },
        ];
        Self {
            ranges,
            memory,
            cpus: vec![CpuState::default()],
        }
    }

    /// The whole file that a plan makes.
    pub(crate) fn file_of(&self, core: &CoreFile<'_>) -> Vec<u8> {
        let mut file = vec![0; index(core.len_bytes())];
        let mut pieces = core.pieces().expect("a pass over the memory");
        while let Some(piece) = pieces.next_piece().expect("the next piece") {
            file[index(piece.file_offset)..][..piece.bytes.len()].copy_from_slice(piece.bytes);
        }
        file
    }
}

impl DumpSource for FakeMachine {
    fn ranges(&self) -> &[MemoryRange] {
        &self.ranges
    }

    fn read_at(&self, gpa: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let start = match gpa.checked_sub(self.ranges[1].gpa) {
            Some(high) => self.ranges[0].len_bytes + high,
            None => gpa,
        };
        buf.copy_from_slice(&self.memory[index(start)..][..buf.len()]);
        Ok(())
    }

    fn cpu_states(&self) -> &[CpuState] {
        &self.cpus
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a test's memory is small")
}
