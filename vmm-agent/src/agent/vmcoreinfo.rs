//! Finds the VMCOREINFO of a frozen Linux guest, and from it where the kernel's text lies.
//!
//! The guest may have said where it is, by fw_cfg or in its panic record; else all of its memory is searched. Stale copies
//! of an earlier kernel look just as good, so the one counts that agrees with a vCPU's page tables.
use guest_shim::abi::PanicRecord;
use vmcore::elf::TextMapping;
use vmcore::limits::VMCOREINFO_LEN_MAX;
use vmcore::notes::vmcoreinfo::{self, NoteAtPage};
use vmcore::{CpuState, MemoryRange};

use crate::devices::fw_cfg::VmcoreinfoPlace;
use crate::dump::limits::EXTENT_QUERY_LEN;
use crate::memory::GuestMemory;

/// Most copies that are looked at: an ordinary guest has one, and a hostile one must not keep the dump waiting.
const CANDIDATES_MAX: usize = 16;
/// How much memory is read at once in the search.
const READ_LEN: u64 = 1 << 20;
const PAGE_LEN: usize = 4096;
/// Where Linux maps its own text (arch/x86/include/asm/page_64_types.h, __START_KERNEL_map).
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// How much is mapped for debuggers: text and data of distribution kernels end within 64 MiB.
const TEXT_LEN_MAX: u64 = 64 << 20;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The text of VMCOREINFO.
    pub(super) text: Vec<u8>,
    /// Where the kernel's text is mapped.
    pub(super) mapping: Option<TextMapping>,
}

/// A text that may be the right one.
#[derive(Debug)]
struct Candidate {
    source: &'static str,
    gpa: u64,
    text: Vec<u8>,
}

/// Finds the text that describes the running kernel. The search of memory ends early when `go_on` says no.
pub(super) fn find(
    memory: &GuestMemory,
    cpus: &[CpuState],
    place: Option<VmcoreinfoPlace>,
    record: Option<&PanicRecord>,
    go_on: &dyn Fn() -> bool,
) -> Option<Found> {
    let told = place
        .map(|place| ("fw_cfg", place.gpa, u64::from(place.len_bytes)))
        .into_iter()
        .chain(
            record
                .and_then(|record| record.vmcoreinfo)
                .map(|range| ("panic record", range.gpa, range.len_bytes)),
        );
    let told: Vec<Candidate> = told
        .filter_map(|(source, gpa, len)| read(memory, source, gpa, len))
        .collect();
    if let Some(found) = choose(memory, cpus, &told, true) {
        return Some(found);
    }
    let searched = search(memory, go_on);
    choose(memory, cpus, &searched, true)
        .or_else(|| choose(memory, cpus, &told, false))
        .or_else(|| choose(memory, cpus, &searched, false))
}

/// The first candidate; with `confirmed`, the first one that agrees with the page tables.
fn choose(memory: &GuestMemory, cpus: &[CpuState], candidates: &[Candidate], confirmed: bool) -> Option<Found> {
    let agreeing = |candidate: &&Candidate| {
        let agrees = agrees(memory, cpus, &candidate.text);
        let release = vmcoreinfo::value(&candidate.text, "OSRELEASE").unwrap_or("unknown");
        let gpa = format_args!("{:#x}", candidate.gpa);
        tracing::info!(candidate.source, gpa, release, agrees, "VMCOREINFO");
        agrees
    };
    let chosen = if confirmed {
        candidates.iter().find(agreeing)
    } else {
        candidates.first()
    };
    chosen.map(|candidate| Found {
        text: candidate.text.clone(),
        mapping: mapping(memory, &candidate.text),
    })
}

/// What the guest said lies at `gpa`: the note or its bare text. It may lie: then there is nothing.
fn read(memory: &GuestMemory, source: &'static str, gpa: u64, len_bytes: u64) -> Option<Candidate> {
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
        tracing::warn!(
            source,
            gpa = format_args!("{gpa:#x}"),
            "no VMCOREINFO where the guest says"
        );
        return None;
    }
    Some(Candidate { source, gpa, text })
}

/// All notes in memory, lowest first.
fn search(memory: &GuestMemory, go_on: &dyn Fn() -> bool) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut buf = vec![0; usize::try_from(READ_LEN).unwrap_or(PAGE_LEN)];
    // A guest can make as many extents as it has pages, so they are asked for piece by piece.
    for query in memory
        .ranges()
        .iter()
        .flat_map(|range| pieces(*range, EXTENT_QUERY_LEN))
    {
        let extents = memory.data_extents(query).unwrap_or_else(|error| {
            tracing::warn!(%error, "memory that cannot be searched for VMCOREINFO");
            Vec::new()
        });
        for piece in extents.into_iter().flat_map(|extent| pieces(extent, READ_LEN)) {
            if found.len() >= CANDIDATES_MAX || !go_on() {
                found.truncate(CANDIDATES_MAX);
                return found;
            }
            let chunk = usize::try_from(piece.len_bytes).ok().and_then(|len| buf.get_mut(..len));
            if let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty())
                && memory.read_at(piece.gpa, chunk).is_ok()
            {
                found.extend(notes_in(memory, piece.gpa, chunk));
            }
        }
    }
    found.truncate(CANDIDATES_MAX);
    found
}

/// `range` in pieces of at most `len_max` bytes.
fn pieces(range: MemoryRange, len_max: u64) -> impl Iterator<Item = MemoryRange> {
    (0..range.len_bytes.div_ceil(len_max)).map(move |index| {
        let done = index * len_max;
        MemoryRange {
            gpa: range.gpa + done,
            len_bytes: len_max.min(range.len_bytes - done),
        }
    })
}

/// The notes that start at a page of `chunk`.
fn notes_in(memory: &GuestMemory, gpa: u64, chunk: &[u8]) -> Vec<Candidate> {
    let pages = (gpa..).step_by(PAGE_LEN).zip(chunk.chunks(PAGE_LEN));
    let note = |(gpa, page): (u64, &[u8])| {
        let text = match vmcoreinfo::at_page(page) {
            NoteAtPage::No => return None,
            NoteAtPage::Text(text) => text.to_vec(),
            NoteAtPage::Longer(len) => {
                let mut whole = vec![0; len];
                memory.read_at(gpa, &mut whole).ok()?;
                match vmcoreinfo::at_page(&whole) {
                    NoteAtPage::Text(text) => text.to_vec(),
                    _ => return None,
                }
            }
        };
        Some(Candidate {
            source: "search",
            gpa,
            text,
        })
    };
    pages.filter_map(note).collect()
}

/// Where `_stext` is in the kernel's mapping, and where that lies in memory.
fn text_start(text: &[u8]) -> Option<(u64, u64)> {
    let va = vmcoreinfo::symbol(text, "_stext")?;
    let offset = va.checked_sub(START_KERNEL_MAP)?;
    Some((va, offset.checked_add_signed(vmcoreinfo::phys_base(text)?)?))
}

/// Whether a vCPU's page tables map the kernel's text as this VMCOREINFO says. A vCPU in user mode may have tables without
/// the kernel (page table isolation), so one that agrees is enough.
fn agrees(memory: &GuestMemory, cpus: &[CpuState], text: &[u8]) -> bool {
    let Some((va, gpa)) = text_start(text) else {
        return false;
    };
    cpus.iter().any(|cpu| translate(memory, cpu, va) == Some(gpa))
}

fn mapping(memory: &GuestMemory, text: &[u8]) -> Option<TextMapping> {
    let (va, gpa) = text_start(text)?;
    let within = |range: &&MemoryRange| (range.gpa..range.gpa + range.len_bytes).contains(&gpa);
    let range = memory.ranges().iter().find(within)?;
    Some(TextMapping {
        va,
        gpa,
        len_bytes: TEXT_LEN_MAX.min(range.gpa + range.len_bytes - gpa),
    })
}

// AMD64 APM volume 2, 5.3: page-translation tables.
const CR4_LA57: u64 = 1 << 12;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Follows a vCPU's page tables.
fn translate(memory: &GuestMemory, cpu: &CpuState, va: u64) -> Option<u64> {
    let levels = if cpu.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
    let mut table = cpu.cr3 & ADDRESS;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let mut entry = [0; 8];
        memory.read_at(table + (va >> shift & 0x1ff) * 8, &mut entry).ok()?;
        let entry = u64::from_le_bytes(entry);
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || entry & LARGE != 0 && level <= 2 {
            let inside = (1 << shift) - 1;
            return Some(entry & ADDRESS & !inside | va & inside);
        }
        table = entry & ADDRESS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Bytes as _, GuestAddress};

    const STEXT: u64 = 0xffff_ffff_9a00_0000;

    fn text(release: &str, phys_base: i64) -> Vec<u8> {
        format!("OSRELEASE={release}\nPAGESIZE=4096\nSYMBOL(_stext)={STEXT:x}\nNUMBER(phys_base)={phys_base}\n")
            .into_bytes()
    }

    fn note(text: &[u8]) -> Vec<u8> {
        let mut note = [11, u32::try_from(text.len()).unwrap(), 0]
            .map(u32::to_le_bytes)
            .concat();
        note.extend(b"VMCOREINFO\0\0");
        note.extend(text);
        note
    }

    fn put(memory: &GuestMemory, gpa: u64, bytes: &[u8]) {
        memory.ram().write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    /// Tables at 0x1000 that map the kernel's text to `gpa` with 2 MiB pages.
    fn cpu_with_text_at(memory: &GuestMemory, gpa: u64) -> CpuState {
        for (level, table) in [(3, 0x1000), (2, 0x2000)] {
            let entry = table + (STEXT >> (12 + 9 * level) & 0x1ff) * 8;
            put(memory, entry, &((table + 0x1000) | PRESENT).to_le_bytes());
        }
        let last = 0x3000 + (STEXT >> 21 & 0x1ff) * 8;
        put(memory, last, &(gpa | PRESENT | LARGE).to_le_bytes());
        CpuState {
            cr3: 0x1000,
            ..CpuState::default()
        }
    }

    /// The offset that makes the text lie at `gpa`.
    fn phys_base(gpa: u64) -> i64 {
        gpa.cast_signed() - (STEXT - START_KERNEL_MAP).cast_signed()
    }

    #[test]
    fn of_several_notes_the_one_that_agrees_with_the_page_tables_is_chosen() {
        let memory = GuestMemory::create(128).unwrap();
        let cpu = cpu_with_text_at(&memory, 0x240_0000);
        put(&memory, 0x10_0000, &note(&text("stale", phys_base(0x120_0000))));
        put(&memory, 0x50_1000, &note(&text("right", phys_base(0x240_0000))));
        put(&memory, 0x60_0010, &note(&text("unaligned", phys_base(0x240_0000))));
        let found = find(&memory, &[CpuState::default(), cpu], None, None, &|| true).unwrap();
        assert_eq!(vmcoreinfo::value(&found.text, "OSRELEASE"), Some("right"));
        let mapping = found.mapping.unwrap();
        assert_eq!(
            (mapping.va, mapping.gpa, mapping.len_bytes),
            (STEXT, 0x240_0000, 64 << 20)
        );
        assert_eq!(search(&memory, &|| true).len(), 2);
        assert!(
            search(&memory, &|| false).is_empty(),
            "a dump that was cancelled searches no more"
        );
    }

    #[test]
    fn what_the_guest_says_counts_if_it_agrees_and_else_the_search() {
        let memory = GuestMemory::create(64).unwrap();
        let cpu = [cpu_with_text_at(&memory, 0x240_0000)];
        let right = note(&text("told", phys_base(0x240_0000)));
        put(&memory, 0x50_0800, &right);
        let place = |gpa| {
            Some(VmcoreinfoPlace {
                gpa,
                len_bytes: u32::try_from(right.len()).unwrap(),
            })
        };
        let release = |gpa| {
            let found = find(&memory, &cpu, place(gpa), None, &|| true)?;
            vmcoreinfo::value(&found.text, "OSRELEASE").map(str::to_owned)
        };
        assert_eq!(release(0x50_0800).as_deref(), Some("told"));
        assert_eq!(release(0x70_0000), None, "nothing there, and nothing to find");
        assert_eq!(release(u64::MAX), None);
        put(&memory, 0x60_0000, &note(&text("searched", phys_base(0x240_0000))));
        assert_eq!(release(0x70_0000).as_deref(), Some("searched"));
    }

    #[test]
    fn without_page_tables_the_only_note_is_taken() {
        let memory = GuestMemory::create(64).unwrap();
        put(&memory, 0x60_0000, &note(&text("lonely", phys_base(0x240_0000))));
        let found = find(&memory, &[CpuState::default()], None, None, &|| true).unwrap();
        assert_eq!(vmcoreinfo::value(&found.text, "OSRELEASE"), Some("lonely"));
        assert_eq!(find(&GuestMemory::create(8).unwrap(), &[], None, None, &|| true), None);
    }

    #[test]
    fn page_tables_that_lead_nowhere_are_no_mapping() {
        let memory = GuestMemory::create(8).unwrap();
        let cpu = |cr3, cr4| CpuState {
            cr3,
            cr4,
            ..CpuState::default()
        };
        assert_eq!(translate(&memory, &cpu(0x1000, 0), STEXT), None);
        assert_eq!(translate(&memory, &cpu(ADDRESS, CR4_LA57), STEXT), None);
        // A table that leads to itself ends after its levels.
        put(&memory, 0x1ff8, &(0x1000 | PRESENT).to_le_bytes());
        assert_eq!(translate(&memory, &cpu(0x1000, CR4_LA57), u64::MAX), Some(0x1fff));
    }
}
