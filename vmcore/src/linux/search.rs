//! VMCOREINFO in a core whose notes have none: every page of memory is looked at, and every copy held against the kernel's own
//! words. Stale copies of an earlier kernel, files of users and this program's own name in memory look just as good.

use crate::cpu::CpuState;
use crate::image::PhysicalMemory;
use crate::limits::{PAGE_LEN_USIZE, SCAN_LEN_MAX, VMCOREINFO_COPIES_MAX};
use crate::linux::paging::translations;
use crate::linux::space::START_KERNEL_MAP;
use crate::memory::MemoryRange;
use crate::notes::vmcoreinfo::{self, NoteAtPage};
use crate::scan::{self, Progress};

/// The release stands in the third field of 65 bytes of a structure that begins `struct uts_namespace`, in old kernels
/// behind a counter (include/linux/utsname.h).
const UTS_LEN: usize = 4 + 3 * 65;

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundVmcoreinfo {
    /// The text.
    pub text: Vec<u8>,
    /// Guest physical address of the note.
    pub gpa: u64,
}

/// Finds the text that describes the kernel whose memory this is. A copy counts only if the release that it names stands where
/// it says that the kernel keeps it; of several the one counts whose text a processor maps.
pub fn vmcoreinfo<M: PhysicalMemory + ?Sized>(
    memory: &M,
    ranges: &[MemoryRange],
    cpus: &[CpuState],
) -> Option<FoundVmcoreinfo> {
    let mut best: Option<FoundVmcoreinfo> = None;
    let mut looked_at = 0;
    copies(memory, ranges, SCAN_LEN_MAX, &|| true, &mut |found| {
        looked_at += 1;
        if release_is_there(memory, &found.text) {
            let is_mapped = text_is_mapped(memory, cpus, &found.text);
            if best.is_none() || is_mapped {
                best = Some(found);
            }
            if is_mapped {
                return Progress::Enough;
            }
        }
        if looked_at >= VMCOREINFO_COPIES_MAX {
            return Progress::Enough;
        }
        Progress::GoOn
    });
    best
}

/// Gives every note that starts at a page to `take`, lowest first, until that has enough, `go_on` says no, or `len_max` bytes were
/// read. None of them need be the kernel's own.
pub fn copies<M: PhysicalMemory + ?Sized>(
    memory: &M,
    ranges: &[MemoryRange],
    len_max: u64,
    go_on: &dyn Fn() -> bool,
    take: &mut dyn FnMut(FoundVmcoreinfo) -> Progress,
) {
    scan::pieces(memory, ranges, len_max, &mut |gpa, piece| {
        if !go_on() {
            return Progress::Enough;
        }
        let pages = (gpa..).step_by(PAGE_LEN_USIZE).zip(piece.chunks(PAGE_LEN_USIZE));
        for (gpa, page) in pages {
            if let Some(text) = note_at(memory, gpa, page)
                && take(FoundVmcoreinfo { text, gpa }) == Progress::Enough
            {
                return Progress::Enough;
            }
        }
        Progress::GoOn
    });
}

/// The text of the note that starts at a page, read on if it is longer than the page.
fn note_at<M: PhysicalMemory + ?Sized>(memory: &M, gpa: u64, page: &[u8]) -> Option<Vec<u8>> {
    match vmcoreinfo::at_page(page) {
        NoteAtPage::No => None,
        NoteAtPage::Text(text) => Some(text.to_vec()),
        NoteAtPage::Longer(len) => {
            let mut whole = vec![0; len];
            memory.read(gpa, &mut whole).ok()?;
            match vmcoreinfo::at_page(&whole) {
                NoteAtPage::Text(text) => Some(text.to_vec()),
                _ => None,
            }
        }
    }
}

/// Whether the kernel's own release stands where the text says, and is the one that it says.
fn release_is_there<M: PhysicalMemory + ?Sized>(memory: &M, text: &[u8]) -> bool {
    let found = || {
        let release = vmcoreinfo::value(text, "OSRELEASE").filter(|release| !release.is_empty())?;
        let gpa = image_gpa(text, vmcoreinfo::symbol(text, "init_uts_ns")?)?;
        let mut names = [0; UTS_LEN];
        memory.read(gpa, &mut names).ok()?;
        Some(names.windows(release.len()).any(|window| window == release.as_bytes()))
    };
    found().unwrap_or(false)
}

/// Whether a processor's page tables map the kernel's text where the text says.
fn text_is_mapped<M: PhysicalMemory + ?Sized>(memory: &M, cpus: &[CpuState], text: &[u8]) -> bool {
    let place = vmcoreinfo::symbol(text, "_stext").and_then(|va| Some((va, image_gpa(text, va)?)));
    place.is_some_and(|(va, gpa)| translations(memory, cpus, va).any(|found| found == gpa))
}

/// Where a part of the kernel's image lies.
fn image_gpa(text: &[u8], va: u64) -> Option<u64> {
    va.checked_sub(START_KERNEL_MAP)?
        .checked_add_signed(vmcoreinfo::phys_base(text)?)
}
