use vmcore::notes::vmcoreinfo;

use vmcore::linux::paging::translations;
use vmcore::linux::space::START_KERNEL_MAP;

use super::candidate::PHYSICAL_START;
use super::*;
use crate::memory::{Bytes as _, GuestAddress};

const STEXT: u64 = 0xffff_ffff_9a00_0000;
/// Where the kernel's text lies in memory; the page tables map 2 MiB from here.
const TEXT_GPA: u64 = 0x240_0000;
/// What the kernel calls itself stands here in its text.
const UTS_AT: u64 = 0x1000;
/// Bits of a table's entry: it is there, it maps a large page, and its address.
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const RELEASE: &str = "6.1.0-cloud";

/// A VMCOREINFO text whose kernel lies at `gpa`.
fn text(release: &str, gpa: u64) -> String {
    let phys_base = gpa.cast_signed() - (STEXT - START_KERNEL_MAP).cast_signed();
    let (uts, offset) = (STEXT + UTS_AT, STEXT - START_KERNEL_MAP - PHYSICAL_START);
    format!(
        "OSRELEASE={release}\nPAGESIZE=4096\nSYMBOL(init_uts_ns)={uts:x}\nSYMBOL(_stext)={STEXT:x}\n\
         NUMBER(phys_base)={phys_base}\nKERNELOFFSET={offset:x}\n"
    )
}

fn note(text: &str) -> Vec<u8> {
    let mut note = [11, u32::try_from(text.len()).unwrap(), 0]
        .map(u32::to_le_bytes)
        .concat();
    note.extend(b"VMCOREINFO\0\0");
    note.extend(text.as_bytes());
    note
}

fn put(memory: &GuestMemory, gpa: u64, bytes: &[u8]) {
    memory.ram().write_slice(bytes, GuestAddress(gpa)).unwrap();
}

/// A kernel's text, with its name in it, and tables at 0x1000 that map it with 2 MiB pages.
fn kernel(memory: &GuestMemory) -> CpuState {
    for (level, table) in [(3, 0x1000), (2, 0x2000)] {
        let entry = table + (STEXT >> (12 + 9 * level) & 0x1ff) * 8;
        put(memory, entry, &((table + 0x1000) | PRESENT).to_le_bytes());
    }
    let last = 0x3000 + (STEXT >> 21 & 0x1ff) * 8;
    put(memory, last, &(TEXT_GPA | PRESENT | LARGE).to_le_bytes());
    put(memory, TEXT_GPA + UTS_AT + 130, RELEASE.as_bytes());
    CpuState {
        cr3: 0x1000,
        ..CpuState::default()
    }
}

fn translate(memory: &GuestMemory, cpu: &CpuState, va: u64) -> Option<u64> {
    translations(memory, std::slice::from_ref(cpu), va).next()
}

fn release(found: Option<Found>) -> Option<String> {
    let found = found?;
    vmcoreinfo::value(&found.text, "OSRELEASE").map(str::to_owned)
}

#[test]
fn of_several_notes_the_one_that_agrees_with_the_page_tables_is_chosen() {
    let memory = GuestMemory::create(128).unwrap();
    let cpu = kernel(&memory);
    put(&memory, 0x10_0000, &note(&text("stale", 0x120_0000)));
    put(&memory, 0x50_1000, &note(&text(RELEASE, TEXT_GPA)));
    put(&memory, 0x60_0010, &note(&text("unaligned", TEXT_GPA)));
    let found = find(&memory, &[CpuState::default(), cpu], None, None, None, &|| true).unwrap();
    assert_eq!(vmcoreinfo::value(&found.text, "OSRELEASE"), Some(RELEASE));
    let mapping = found.mapping.unwrap();
    assert_eq!(
        (mapping.va, mapping.gpa, mapping.len_bytes),
        (STEXT, TEXT_GPA, 64 << 20)
    );
    let origin = found.origin;
    assert_eq!(
        (origin.source.as_str(), origin.gpa, origin.copies, origin.agrees),
        ("search", 0x50_1000, 2, true)
    );
}

#[test]
fn of_two_kernels_with_a_processor_each_that_of_the_reporter_is_chosen() {
    let memory = GuestMemory::create(128).unwrap();
    let first = kernel(&memory);
    // A second kernel, started beside the first: another place in memory, tables of its own.
    let (second_gpa, tables) = (0x500_0000, 0x10_1000);
    for (level, table) in [(3, tables), (2, tables + 0x1000)] {
        let entry = table + (STEXT >> (12 + 9 * level) & 0x1ff) * 8;
        put(&memory, entry, &((table + 0x1000) | PRESENT).to_le_bytes());
    }
    let last = tables + 0x2000 + (STEXT >> 21 & 0x1ff) * 8;
    put(&memory, last, &(second_gpa | PRESENT | LARGE).to_le_bytes());
    put(&memory, second_gpa + UTS_AT + 130, b"6.12.0-cloud");
    let second = CpuState {
        cr3: tables,
        ..CpuState::default()
    };
    let first_at = 0x50_1000;
    put(&memory, first_at, &note(&text(RELEASE, TEXT_GPA)));
    put(&memory, 0x60_0000, &note(&text("6.12.0-cloud", second_gpa)));

    let told = Some(VmcoreinfoPlace {
        gpa: first_at,
        len_bytes: u32::try_from(note(&text(RELEASE, TEXT_GPA)).len()).unwrap(),
    });
    for place in [None, told] {
        let of = |reporter| {
            release(find(
                &memory,
                &[second.clone(), first.clone()],
                reporter,
                place,
                None,
                &|| true,
            ))
        };
        assert_eq!(of(Some(0)).as_deref(), Some("6.12.0-cloud"));
        assert_eq!(of(Some(1)).as_deref(), Some(RELEASE));
        // Nobody reported: what the guest said, else the lower one.
        assert_eq!(of(None).as_deref(), Some(RELEASE));
    }
}

#[test]
fn a_dump_that_was_cancelled_searches_no_more() {
    let memory = GuestMemory::create(64).unwrap();
    put(&memory, 0x10_0000, &note(&text(RELEASE, TEXT_GPA)));
    assert_eq!(find(&memory, &[], None, None, None, &|| false), None);
}

#[test]
fn copies_with_a_wrong_offset_or_another_release_are_worse_wherever_they_lie() {
    let memory = GuestMemory::create(64).unwrap();
    let cpu = kernel(&memory);
    let right = text(RELEASE, TEXT_GPA);
    let offset = format!("KERNELOFFSET={:x}", STEXT - START_KERNEL_MAP - PHYSICAL_START);
    put(
        &memory,
        0x10_0000,
        &note(&right.replace(&offset, "KERNELOFFSET=2600000")),
    );
    put(&memory, 0x11_0000, &note(&right.replace(RELEASE, "6.1.0-other")));
    put(&memory, 0x30_0000, &note(&right));
    put(&memory, 0x31_0000, &note(&right.replace(RELEASE, "6.1.0-again")));
    let found = find(&memory, &[cpu], None, None, None, &|| true).unwrap();
    assert_eq!(found.text, right.as_bytes());
    assert_eq!((found.origin.gpa, found.origin.copies), (0x30_0000, 4));
}

#[test]
fn a_user_who_fills_memory_with_copies_does_not_hide_the_right_one() {
    let memory = GuestMemory::create(64).unwrap();
    let cpu = kernel(&memory);
    for page in 0..1000 {
        put(&memory, 0x10_0000 + page * 0x1000, &note(&text("forged", 0x120_0000)));
    }
    put(&memory, 0x60_0000, &note(&text(RELEASE, TEXT_GPA)));
    let found = find(&memory, &[cpu], None, None, None, &|| true).unwrap();
    assert_eq!((found.origin.gpa, found.origin.copies), (0x60_0000, 1001));
}

#[test]
fn what_the_guest_says_counts_if_it_agrees_and_else_the_search() {
    let memory = GuestMemory::create(64).unwrap();
    let cpu = [kernel(&memory)];
    let told = note(&text(RELEASE, TEXT_GPA));
    put(&memory, 0x50_0800, &told);
    let place = |gpa| {
        Some(VmcoreinfoPlace {
            gpa,
            len_bytes: u32::try_from(told.len()).unwrap(),
        })
    };
    let origin = |gpa| {
        find(&memory, &cpu, None, place(gpa), None, &|| true).map(|found| (found.origin.source, found.origin.gpa))
    };
    assert_eq!(origin(0x50_0800), Some(("fw_cfg".to_owned(), 0x50_0800)));
    assert_eq!(origin(0x70_0000), None, "nothing there, and nothing to find");
    assert_eq!(origin(u64::MAX), None);
    put(&memory, 0x60_0000, &told);
    assert_eq!(origin(0x70_0000), Some(("search".to_owned(), 0x60_0000)));
    // What it says may be stale, too.
    put(&memory, 0x70_0000, &note(&text("stale", 0x120_0000)));
    assert_eq!(origin(0x70_0000), Some(("search".to_owned(), 0x60_0000)));
}

#[test]
fn without_page_tables_the_only_note_is_taken_and_says_so() {
    let memory = GuestMemory::create(64).unwrap();
    put(&memory, 0x60_0000, &note(&text("lonely", TEXT_GPA)));
    let found = find(&memory, &[CpuState::default()], None, None, None, &|| true).unwrap();
    assert!(!found.origin.agrees);
    assert_eq!(release(Some(found)).as_deref(), Some("lonely"));
    assert_eq!(
        find(&GuestMemory::create(8).unwrap(), &[], None, None, None, &|| true),
        None
    );
}

#[test]
fn a_processor_in_user_mode_under_page_table_isolation_still_tells() {
    let memory = GuestMemory::create(64).unwrap();
    // The kernel's tables are the even page of the pair, those of user mode the odd one.
    put(
        &memory,
        0x8000 + (STEXT >> 39 & 0x1ff) * 8,
        &(0x2000 | PRESENT).to_le_bytes(),
    );
    let cpu = CpuState {
        cr3: 0x9000,
        ..kernel(&memory)
    };
    assert_eq!(translate(&memory, &cpu, STEXT), Some(TEXT_GPA));
}

#[test]
fn page_tables_that_lead_nowhere_are_no_mapping() {
    const LA57: u64 = 1 << 12;
    let memory = GuestMemory::create(8).unwrap();
    let cpu = |cr3, cr4| CpuState {
        cr3,
        cr4,
        ..CpuState::default()
    };
    assert_eq!(translate(&memory, &cpu(0x1000, 0), STEXT), None);
    assert_eq!(translate(&memory, &cpu(ADDRESS, LA57), STEXT), None);
    // A table that leads to itself ends after its levels.
    put(&memory, 0x1ff8, &(0x1000 | PRESENT).to_le_bytes());
    assert_eq!(translate(&memory, &cpu(0x1000, LA57), u64::MAX), Some(0x1fff));
}
