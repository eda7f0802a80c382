//! A stored core opened for reading: its notes, its memory, its kernel log.

use vmcore::CpuState;
use vmcore::coreferry::CoreferryNote;
use vmcore::dumpfile::DumpFile;
use vmcore::image::{FileBytes, PhysicalMemory};
use vmcore::linux::{KernelLog, KernelSpace};
use vmcore::reader::CoreNotes;

use super::VmcoreBytes;
use crate::codecs::Codecs;

/// A core whose head could be read.
pub(super) struct OpenCore {
    memory: DumpFile<VmcoreBytes, Codecs>,
    vmcoreinfo: Option<Vec<u8>>,
    /// State of each processor.
    pub(super) cpus: Vec<CpuState>,
    /// Whether the states have control registers.
    pub(super) has_control_registers: bool,
    /// The sender's note.
    pub(super) note: Option<CoreferryNote>,
}

impl OpenCore {
    /// Opens a core, or gives a sentence that says why that is not possible.
    pub(super) fn open(file: VmcoreBytes) -> Result<Self, String> {
        let memory = DumpFile::open(file, Codecs).map_err(|why| why.to_string())?;
        let notes = CoreNotes::parse(memory.notes()).map_err(|why| why.to_string())?;
        Ok(Self {
            vmcoreinfo: notes.vmcoreinfo.map(<[u8]>::to_vec),
            cpus: notes.cpu_states(),
            has_control_registers: !notes.qemu.is_empty() && notes.qemu.len() >= notes.prstatus.len(),
            note: notes.coreferry().ok().flatten(),
            memory,
        })
    }

    /// VMCOREINFO, if the core has one.
    pub(super) fn vmcoreinfo(&self) -> Option<&[u8]> {
        self.vmcoreinfo.as_deref()
    }

    /// The log of a Linux kernel, or a sentence that says why there is none.
    pub(super) fn log(&self) -> Result<KernelLog, String> {
        linux_log(&self.memory, self.vmcoreinfo())
    }
}

/// The log of a Linux kernel out of the bytes of its core, or a sentence that says why there is none.
///
/// # Errors
/// The sentence.
pub fn kernel_log(file: &dyn FileBytes) -> Result<KernelLog, String> {
    let core = DumpFile::open(file, Codecs).map_err(|why| why.to_string())?;
    let notes = CoreNotes::parse(core.notes()).map_err(|why| why.to_string())?;
    linux_log(&core, notes.vmcoreinfo)
}

fn linux_log<M: PhysicalMemory>(memory: &M, vmcoreinfo: Option<&[u8]>) -> Result<KernelLog, String> {
    let vmcoreinfo = vmcoreinfo.ok_or("it has no VMCOREINFO, by which a Linux kernel is read")?;
    let space = KernelSpace::new(memory, vmcoreinfo).map_err(|why| why.to_string())?;
    KernelLog::read(&space, vmcoreinfo).map_err(|why| why.to_string())
}
