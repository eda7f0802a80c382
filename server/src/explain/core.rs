//! A stored core opened for reading: its notes, its memory, its kernel's log.

use vmcore::CpuState;
use vmcore::coreferry::CoreferryNote;
use vmcore::dumpfile::DumpFile;
use vmcore::freebsd;
use vmcore::image::FileBytes;
use vmcore::linux::{KernelLog, KernelPlace, KernelSpace, search};
use vmcore::reader::CoreNotes;

use super::patience::{self, Patience};
use crate::codecs::Codecs;
use crate::limits::LOG_CPU_TIME;

/// How far one goes to find a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Only what the core's notes lead to is read: some MiB.
    Notes,
    /// All memory is searched if need be.
    Search,
}

/// The log of a guest's kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestLog {
    /// Linux: records with their times.
    Linux(KernelLog),
    /// FreeBSD: the text of its message buffer.
    FreeBsd(String),
}

impl GuestLog {
    /// The log as dmesg(1) or dmesg(8) shows it; control characters are left to whoever shows the text.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Linux(log) => log.to_text(),
            Self::FreeBsd(text) => text.clone(),
        }
    }

    /// Records that could not be read.
    #[must_use]
    pub const fn unreadable_records(&self) -> u64 {
        match self {
            Self::Linux(log) => log.unreadable_records,
            Self::FreeBsd(_) => 0,
        }
    }

    /// Time since boot of the last record, in milliseconds.
    pub(super) fn last_time_ms(&self) -> Option<u64> {
        match self {
            Self::Linux(log) => log.records.last().map(|record| record.time_ns / 1_000_000),
            Self::FreeBsd(_) => None,
        }
    }
}

/// A core whose head could be read.
pub(super) struct OpenCore<F> {
    file: DumpFile<F, Codecs>,
    /// VMCOREINFO, of a note or found in memory.
    pub(super) vmcoreinfo: Option<Vec<u8>>,
    /// Where the kernel is, if its page tables had to tell.
    pub(super) place: Option<KernelPlace>,
    /// State of each processor.
    pub(super) cpus: Vec<CpuState>,
    /// Whether the states have control registers.
    pub(super) has_control_registers: bool,
    /// The sender's note.
    pub(super) note: Option<CoreferryNote>,
}

impl<F: FileBytes> OpenCore<F> {
    /// Opens a core, or gives a sentence that says why that is not possible.
    pub(super) fn open(file: F) -> Result<Self, String> {
        let file = DumpFile::open(file, Codecs).map_err(|why| why.to_string())?;
        let notes = CoreNotes::parse(file.notes()).map_err(|why| why.to_string())?;
        Ok(Self {
            vmcoreinfo: notes.vmcoreinfo.map(<[u8]>::to_vec),
            place: None,
            cpus: notes.cpu_states(),
            has_control_registers: !notes.qemu.is_empty() && notes.qemu.len() >= notes.prstatus.len(),
            note: notes.coreferry().ok().flatten(),
            file,
        })
    }

    /// The log, or a sentence that says why there is none. Remembers what was found on the way.
    pub(super) fn log(&mut self, effort: Effort) -> Result<GuestLog, String> {
        if let Some(text) = &self.vmcoreinfo {
            return linux_log(&self.file, text);
        }
        if effort == Effort::Notes {
            return Err("it has no VMCOREINFO, by which a Linux kernel is read".to_owned());
        }
        let ranges = self.file.ranges();
        // A minidump is FreeBSD's own form; whatever else may be a Linux guest's.
        if self.file.form() != "minidump" {
            if let Some(found) = search::vmcoreinfo(&self.file, &ranges, &self.cpus) {
                let log = linux_log(&self.file, &found.text);
                self.vmcoreinfo = Some(found.text);
                return log;
            }
            self.place = KernelPlace::find(&self.file, &self.cpus);
            if let Some(place) = &self.place {
                let log = KernelLog::search(&KernelSpace::at(&self.file, place), place);
                let nothing = || format!("{} has no VMCOREINFO, and no log of a known form", place.banner);
                return log.map(GuestLog::Linux).ok_or_else(nothing);
            }
        }
        let buffer = freebsd::message_buffer(&self.file, &ranges).map(GuestLog::FreeBsd);
        buffer.ok_or_else(|| {
            "neither a VMCOREINFO or page tables of a Linux kernel nor a message buffer of FreeBSD is in it".to_owned()
        })
    }
}

/// The log of a guest's kernel out of the bytes of its core, or a sentence that says why there is none.
///
/// # Errors
/// The sentence.
pub fn kernel_log(file: &dyn FileBytes, effort: Effort) -> Result<GuestLog, String> {
    let file = Patience::new(file, LOG_CPU_TIME);
    let log = OpenCore::open(&file).and_then(|mut core| core.log(effort));
    log.map_err(|why| {
        if file.is_over() {
            patience::told(LOG_CPU_TIME)
        } else {
            why
        }
    })
}

fn linux_log<F: FileBytes>(file: &DumpFile<F, Codecs>, vmcoreinfo: &[u8]) -> Result<GuestLog, String> {
    let space = KernelSpace::new(file, vmcoreinfo).map_err(|why| why.to_string())?;
    let log = KernelLog::read(&space, vmcoreinfo).map_err(|why| why.to_string())?;
    Ok(GuestLog::Linux(log))
}
