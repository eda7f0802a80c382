//! Guests that describe themselves badly or not at all: VMCOREINFO among copies that lie, a kernel found by page tables alone,
//! FreeBSD's message buffer among numbers that look like it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests

mod ram;

use proptest::prelude::*;
use ram::Ram;
use vmcore::CpuState;
use vmcore::freebsd::message_buffer;
use vmcore::linux::space::START_KERNEL_MAP;
use vmcore::linux::{KernelLog, KernelPlace, KernelSpace, search};

/// Where the image lies in memory, and how far KASLR moved its addresses.
const IMAGE: u64 = 4 << 20;
const OFFSET: u64 = 0x1e00_0000;
const IMAGE_VA: u64 = START_KERNEL_MAP + (16 << 20) + OFFSET;
const PHYS_BASE: u64 = IMAGE.wrapping_sub(IMAGE_VA - START_KERNEL_MAP);
const TOP_TABLE: u64 = 0x10_0000;
const BANNER: &str = "Linux version 6.1.0-18-amd64 (debian) (gcc-12) #1 SMP Debian 6.1.76-1";
const PRB: u64 = IMAGE + 0x20_1000;

fn va(gpa: u64) -> u64 {
    IMAGE_VA + (gpa - IMAGE)
}

/// A kernel of two large pages in 16 MiB, with a ring of two records; and the processor that runs it.
fn kernel() -> (Ram, CpuState) {
    let mut ram = Ram::new(16 << 20);
    let index = |shift: u32| (IMAGE_VA >> shift & 0x1ff) * 8;
    ram.put_u64(TOP_TABLE + index(39), (TOP_TABLE + 0x1000) | 3);
    ram.put_u64(TOP_TABLE + 0x1000 + index(30), (TOP_TABLE + 0x2000) | 3);
    ram.put_u64(TOP_TABLE + 0x2000 + index(21), IMAGE | 0x83);
    ram.put_u64(TOP_TABLE + 0x2000 + index(21) + 8, (IMAGE + (2 << 20)) | 0x83);
    ram.put(IMAGE + 0x10_0000, b"Linux version %s (%s)\0");
    ram.put(IMAGE + 0x10_1000, format!("{BANNER}\n\0").as_bytes());
    // The interrupt table, and its first gate.
    let (idt, handler) = (IMAGE + 0x18_0000, va(IMAGE + 0x800));
    ram.put(idt, &handler.to_le_bytes()[..2]);
    ram.put(idt + 6, &handler.to_le_bytes()[2..]);
    // The ring, and before it something of its form whose arrays are nowhere.
    ram.put(PRB - 0x100, &5_u32.to_le_bytes());
    ram.put_u64(PRB - 0x100 + 8, u64::MAX - 7);
    ram.put_u64(PRB - 0x100 + 16, u64::MAX - 7);
    ram.put(PRB - 0x100 + 48, &10_u32.to_le_bytes());
    ram.put_u64(PRB - 0x100 + 56, u64::MAX - 7);
    let (descs, infos, text) = (PRB + 0x1000, PRB + 0x2000, PRB + 0x4000);
    ram.put(PRB, &5_u32.to_le_bytes());
    for (at, value) in [(8, va(descs)), (16, va(infos)), (24, 1), (32, 0), (56, va(text))] {
        ram.put_u64(PRB + at, value);
    }
    ram.put(PRB + 48, &10_u32.to_le_bytes());
    for (id, words) in [(0, "first"), (1, "second")] {
        ram.put_u64(descs + id * 24, 2 << 62 | id);
        ram.put_u64(descs + id * 24 + 8, id * 32);
        ram.put_u64(descs + id * 24 + 16, id * 32 + 32);
        ram.put_u64(infos + id * 88 + 8, (id + 1) * 1_000_000_000);
        ram.put(infos + id * 88 + 16, &u16::try_from(words.len()).unwrap().to_le_bytes());
        ram.put(text + id * 32 + 8, words.as_bytes());
    }
    let mut cpu = CpuState {
        cr3: TOP_TABLE,
        ..CpuState::default()
    };
    cpu.idt.base = va(idt);
    (ram, cpu)
}

#[test]
fn a_kernel_without_any_description_is_found_and_its_log_is_read() {
    let (ram, cpu) = kernel();
    // The first processor is somewhere else entirely, the second in user mode with tables of its own.
    let elsewhere = CpuState {
        cr3: 0x30_0000,
        ..cpu.clone()
    };
    let user = CpuState {
        cr3: TOP_TABLE | 0x1000,
        ..cpu.clone()
    };
    for cpus in [vec![cpu.clone()], vec![elsewhere, cpu.clone()]] {
        let place = KernelPlace::find(&ram, &cpus).unwrap();
        assert_eq!(place.image_va, IMAGE_VA);
        assert_eq!(place.phys_base, PHYS_BASE);
        assert_eq!(place.kernel_offset(), Some(OFFSET));
        assert_eq!(place.image_len_bytes, 4 << 20);
        assert_eq!(place.banner, BANNER);
        let log = KernelLog::search(&KernelSpace::at(&ram, &place), &place).unwrap();
        assert_eq!(log.to_text(), "[    1.000000] first\n[    2.000000] second\n");
    }
    // With page table isolation the kernel's tables are in the page before those of user mode.
    let mut isolated = ram.clone();
    isolated.0.copy_within(0x10_0000..0x10_1000, 0x10_4000);
    isolated.put(TOP_TABLE, &[0; 4096]);
    let cr3 = 0x10_4000 | 0x1000;
    assert!(KernelPlace::find(&isolated, &[CpuState { cr3, ..user }]).is_some());
}

#[test]
fn page_tables_that_are_not_linuxs_are_not_believed() {
    let (ram, cpu) = kernel();
    let mut no_banner = ram.clone();
    no_banner.put(IMAGE + 0x10_1000, b"Minux");
    assert_eq!(KernelPlace::find(&no_banner, std::slice::from_ref(&cpu)), None);
    let mut other_handlers = ram.clone();
    other_handlers.put(IMAGE + 0x18_0000, &[0; 16]);
    assert_eq!(KernelPlace::find(&other_handlers, std::slice::from_ref(&cpu)), None);
    assert_eq!(KernelPlace::find(&ram, &[]), None);
    // A table that leads to itself maps everything, and nothing comes of it.
    let mut looping = Ram::new(16 << 20);
    for index in 0..512 {
        looping.put_u64(TOP_TABLE + index * 8, TOP_TABLE | 3);
    }
    assert_eq!(KernelPlace::find(&looping, &[cpu]), None);
}

/// A note as Linux writes it, for a kernel at [`IMAGE`].
fn note(release: &str, uts_gpa: u64) -> Vec<u8> {
    let text = format!(
        "OSRELEASE={release}\nNUMBER(phys_base)={}\nSYMBOL(init_uts_ns)={:x}\nSYMBOL(_stext)={:x}\n",
        PHYS_BASE.cast_signed(),
        va(uts_gpa),
        va(IMAGE)
    );
    let mut note = Vec::new();
    for word in [11, u32::try_from(text.len()).unwrap(), 0] {
        note.extend(u32::to_le_bytes(word));
    }
    note.extend(b"VMCOREINFO\0\0");
    note.extend(text.as_bytes());
    note
}

#[test]
fn of_many_copies_the_one_counts_that_describes_this_kernel() {
    let (mut ram, cpu) = kernel();
    let uts = IMAGE + 0x28_0000;
    ram.put(uts + 130, b"6.1.0-18-amd64\0");
    // An earlier kernel's copy, one whose release stands nowhere, a name without a text, and one not at a page.
    ram.put(0x20_0000, &note("6.1.0-17-amd64", uts));
    ram.put(0x20_1000, &note("6.1.0-18-amd64", uts + 0x1000));
    ram.put(0x20_200c, b"VMCOREINFO\0\0OSRELEASE=6.1.0-18-amd64");
    ram.put(0x20_3800, &note("6.1.0-18-amd64", uts));
    let find = |ram: &Ram| search::vmcoreinfo(ram, &ram.ranges(), std::slice::from_ref(&cpu));
    assert_eq!(find(&ram), None);
    ram.put(0x80_0000, &note("6.1.0-18-amd64", uts));
    let found = find(&ram).unwrap();
    assert_eq!(found.gpa, 0x80_0000);
    assert!(found.text.starts_with(b"OSRELEASE=6.1.0-18-amd64\n"));
}

/// A message buffer whose structure stands at `gpa`, with as much written as `written` says.
fn buffer(ram: &mut Ram, gpa: u64, text: &[u8], written: u32) {
    let len = u32::try_from(text.len()).unwrap();
    let start = gpa - u64::from(len);
    ram.put(start, text);
    ram.put_u64(gpa, 0xffff_f800_0000_0000 + start);
    let sum = text.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    for (at, value) in [(8, 0x0006_3062), (12, len), (16, written), (24, sum), (28, len * 16)] {
        ram.put(gpa + at, &u32::to_le_bytes(value));
    }
}

#[test]
fn freebsds_message_buffer_is_found_and_put_into_order() {
    let mut ram = Ram::new(1 << 20);
    // The number alone, unaligned, and a structure whose text was overwritten since.
    ram.put(0x1008, &0x0006_3062_u32.to_le_bytes());
    ram.put(0x2003, &0x0006_3062_u32.to_le_bytes());
    buffer(&mut ram, 0x1_0fc0, &[b'x'; 4032], 10);
    ram.put(0x1_0000, &[0; 64]);
    let find = |ram: &Ram| message_buffer(ram, &ram.ranges());
    assert_eq!(find(&ram), None);
    let mut text = vec![0; 8128];
    text[..25].copy_from_slice(b"<118>new\n<2>panic: torn\n\0");
    text[8000..8128].fill(b'.');
    text[8000..8005].copy_from_slice(b"old\n<");
    text[8125..].copy_from_slice(b"6>\n");
    buffer(&mut ram, 0x4_1fc0, &text, 8128 * 3 + 24);
    let found = find(&ram).unwrap();
    assert!(found.starts_with("old\n<..."), "{found}");
    assert!(found.ends_with("\nnew\npanic: torn\n"), "{found}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Wherever a kernel's bytes are changed, looking for it ends without harm.
    #[test]
    fn torn_kernels_are_survived(
        changes in proptest::collection::vec((prop_oneof![0_u64..0x3000, 0x5_0000_u64..0x6_0000], any::<u64>()), 1..40),
    ) {
        let (mut ram, cpu) = kernel();
        for (at, value) in changes {
            let at = if at < 0x3000 { TOP_TABLE + at } else { PRB - 0x100 + at % 0x4800 };
            ram.put_u64(at & !7, value);
        }
        if let Some(place) = KernelPlace::find(&ram, &[cpu]) {
            let _ = KernelLog::search(&KernelSpace::at(&ram, &place), &place);
        }
    }
}
