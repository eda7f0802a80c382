//! A machine whose memory is noise, as a core, through the dump port.

use std::net::SocketAddrV4;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use vmcore::{CoreferryNote, CpuState, MemoryRange};
use vmm_agent::dump::{
    ClientNetwork, CoreFile, DumpJob, DumpOutcome, DumpSource, Progress, SourceError, Target, ferry,
};

use crate::place::Way;
use crate::{Sample, cpu};

/// The machine.
pub(crate) struct Machine {
    ranges: [MemoryRange; 1],
    memory: Vec<u8>,
    cpus: [CpuState; 1],
    note: CoreferryNote,
}

impl Machine {
    /// With so many bytes of memory, none of them in a page of zeros.
    pub(crate) fn of_len(len: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = (0..len / 8).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let memory: Vec<u8> = words.collect();
        let len_bytes = memory.len() as u64;
        Self {
            ranges: [MemoryRange { gpa: 0, len_bytes }],
            memory,
            cpus: [CpuState::default()],
            note: CoreferryNote {
                vm: "bench".to_owned(),
                dump_id: "bench".to_owned(),
                ..CoreferryNote::default()
            },
        }
    }

    /// The whole core.
    pub(crate) fn file(&self) -> Result<Vec<u8>> {
        let core = CoreFile::plan(self, &self.note)?;
        let mut file = vec![0; usize::try_from(core.len_bytes())?];
        let mut pieces = core.pieces()?;
        while let Some(piece) = pieces.next_piece()? {
            let at = usize::try_from(piece.file_offset)?;
            let room = file.get_mut(at..at + piece.bytes.len());
            room.ok_or_else(|| anyhow!("a piece beyond the file"))?
                .copy_from_slice(piece.bytes);
        }
        Ok(file)
    }

    /// One pass over the core that goes nowhere.
    pub(crate) fn read(&self) -> Result<Sample> {
        let (start, before) = (Instant::now(), cpu::of_this_thread());
        let core = CoreFile::plan(self, &self.note)?;
        let mut pieces = core.pieces()?;
        while pieces.next_piece()?.is_some() {}
        Ok(Sample {
            bytes: self.memory.len() as u64,
            took: start.elapsed(),
            sender_cpu: cpu::of_this_thread().saturating_sub(before),
            ..Sample::default()
        })
    }

    /// The whole of a dump, to the sink at this port.
    pub(crate) fn send(&self, way: &Way, port: u16, mtu: u16) -> Result<Sample> {
        let progress = Progress::new();
        let wire = Mutex::new(Some(way.open()?));
        way.settle()?;
        let targets = [Target {
            address: SocketAddrV4::new(way.sink(), port),
            name: "sink".to_owned(),
        }];
        let job = DumpJob {
            source: self,
            note: &self.note,
            targets: &targets,
            open_wire: &|| match wire.lock().ok().and_then(|mut wire| wire.take()) {
                Some(wire) => Ok(wire),
                None => way.open(),
            },
            network: ClientNetwork {
                mtu: Some(mtu),
                ..way.network()
            },
            spool: None,
            deadline: None,
            progress: &progress,
        };
        let (start, before) = (Instant::now(), cpu::of_this_thread());
        let outcome = ferry(&job);
        let (took, after) = (start.elapsed(), cpu::of_this_thread());
        match outcome {
            DumpOutcome::Received { stats, .. } => Ok(Sample {
                bytes: stats.acked_bytes,
                took,
                sender_cpu: after.saturating_sub(before),
                ..Sample::default()
            }),
            other => bail!("{other}"),
        }
    }
}

impl DumpSource for Machine {
    fn ranges(&self) -> &[MemoryRange] {
        &self.ranges
    }

    fn read_at(&self, gpa: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let at = usize::try_from(gpa).unwrap_or(usize::MAX);
        if let Some(bytes) = at.checked_add(buf.len()).and_then(|end| self.memory.get(at..end)) {
            buf.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn cpu_states(&self) -> &[CpuState] {
        &self.cpus
    }
}
