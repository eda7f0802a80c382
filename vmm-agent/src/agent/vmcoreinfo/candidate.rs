//! One copy of VMCOREINFO, and whether it describes the kernel that runs.

use std::slice;

use vmcore::CpuState;
use vmcore::limits::VMCOREINFO_LEN_MAX;
use vmcore::linux::paging::translations;
use vmcore::linux::space::START_KERNEL_MAP;
use vmcore::notes::vmcoreinfo::{self, NoteAtPage};

use crate::memory::GuestMemory;

/// How far behind that the text of an image begins that KASLR has not moved: `CONFIG_PHYSICAL_START` of distributions
/// (arch/x86/Kconfig).
pub(super) const PHYSICAL_START: u64 = 16 << 20;
/// The release stands in the third field of 65 bytes of a structure that begins `struct uts_namespace`, in old kernels
/// behind a counter (include/linux/utsname.h).
const UTS_LEN: usize = 4 + 3 * 65;

/// A text that may be the right one.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Who said so: `fw_cfg`, `panic-record` or `search`.
    pub(super) source: &'static str,
    /// Where it lies.
    pub(super) gpa: u64,
    /// The text itself.
    pub(super) text: Vec<u8>,
}

/// How far a text agrees with the machine. The better of two verdicts is the greater one: the fields stand in the order of
/// their weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Verdict {
    /// The page tables of the processor that reported the crash, if one did, map the kernel's text where the text says.
    is_the_reporters: Option<bool>,
    /// Some processor's page tables do.
    pub(super) text_is_mapped: bool,
    /// The kernel's own release stands where it says, and is the one it says.
    release_is_there: bool,
    /// The offset of KASLR is that of the text's address. Kernels built for another place do not meet this.
    offset_fits: bool,
}

impl Verdict {
    /// Holds `text` against memory and registers.
    pub(super) fn of(memory: &GuestMemory, cpus: &[CpuState], reporter: Option<&CpuState>, text: &[u8]) -> Self {
        let start = text_start(text);
        let is_mapped = |cpus| start.is_some_and(|(va, gpa)| translations(memory, cpus, va).any(|found| found == gpa));
        Self {
            is_the_reporters: reporter.map(|cpu| is_mapped(slice::from_ref(cpu))),
            text_is_mapped: is_mapped(cpus),
            release_is_there: release_is_there(memory, cpus, text),
            offset_fits: offset_fits(text),
        }
    }

    /// Whether no verdict is better.
    pub(super) fn is_best(self) -> bool {
        self.is_the_reporters != Some(false) && self.text_is_mapped && self.release_is_there && self.offset_fits
    }
}

impl Candidate {
    /// What the guest said lies at `gpa`: the note or its bare text. It may lie: then there is nothing.
    pub(super) fn read(memory: &GuestMemory, source: &'static str, gpa: u64, len_bytes: u64) -> Option<Self> {
        let len = usize::try_from(len_bytes)
            .ok()
            .filter(|len| *len <= vmcoreinfo::NOTE_LEN_MAX);
        let Some(len) = len else {
            tracing::warn!(source, len_bytes, "the guest's VMCOREINFO is too long");
            return None;
        };
        let mut bytes = vec![0; len];
        if let Err(error) = memory.read_at(gpa, &mut bytes) {
            tracing::warn!(source, %error, "the guest's VMCOREINFO is not where it says");
            return None;
        }
        let text = match vmcoreinfo::at_page(&bytes) {
            NoteAtPage::Text(text) => text.to_vec(),
            _ if bytes.len() <= VMCOREINFO_LEN_MAX => {
                // A text without its note may be followed by zeros.
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                bytes.truncate(end);
                bytes
            }
            _ => return None,
        };
        if vmcoreinfo::value(&text, "OSRELEASE").is_none() {
            let gpa = format_args!("{gpa:#x}");
            tracing::warn!(source, gpa, "no VMCOREINFO where the guest says");
            return None;
        }
        Some(Self { source, gpa, text })
    }

    /// Names it in the log.
    pub(super) fn tell(&self, verdict: Verdict) {
        let Self { source, gpa, text } = self;
        let release = vmcoreinfo::value(text, "OSRELEASE").unwrap_or("unknown");
        let Verdict {
            is_the_reporters,
            text_is_mapped: agrees,
            release_is_there,
            offset_fits,
        } = verdict;
        let gpa = format_args!("{gpa:#x}");
        tracing::info!(
            source,
            gpa,
            release,
            agrees,
            is_the_reporters,
            release_is_there,
            offset_fits,
            "VMCOREINFO"
        );
    }
}

/// Where `_stext` is in the kernel's mapping, and where that lies in memory.
pub(super) fn text_start(text: &[u8]) -> Option<(u64, u64)> {
    let va = vmcoreinfo::symbol(text, "_stext")?;
    let offset = va.checked_sub(START_KERNEL_MAP)?;
    Some((va, offset.checked_add_signed(vmcoreinfo::phys_base(text)?)?))
}

fn release_is_there(memory: &GuestMemory, cpus: &[CpuState], text: &[u8]) -> bool {
    let (Some(va), Some(release)) = (
        vmcoreinfo::symbol(text, "init_uts_ns"),
        vmcoreinfo::value(text, "OSRELEASE").filter(|release| !release.is_empty()),
    ) else {
        return false;
    };
    translations(memory, cpus, va).any(|gpa| {
        let mut names = [0; UTS_LEN];
        let is_there = |window: &[u8]| window == release.as_bytes();
        memory.read_at(gpa, &mut names).is_ok() && names.windows(release.len()).any(is_there)
    })
}

fn offset_fits(text: &[u8]) -> bool {
    let linked_at = vmcoreinfo::symbol(text, "_stext")
        .zip(vmcoreinfo::kernel_offset(text))
        .and_then(|(va, offset)| va.checked_sub(offset));
    linked_at == Some(START_KERNEL_MAP + PHYSICAL_START)
}
