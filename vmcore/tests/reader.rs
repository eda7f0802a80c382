//! Reading cores of other writers, rewriting them, and hostile heads.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests; sizes chosen here

mod common;

use common::{cpu, note, ranges};
use proptest::prelude::*;
use std::convert::Infallible;
use vmcore::elf::{HeaderInput, Layout};
use vmcore::limits::HEADER_ROOM_LEN;
use vmcore::notes::{self, NoteError, prstatus, qemu, vmcoreinfo};
use vmcore::reader::{CoreHead, CoreNotes, LoadSegment, ReadError};
use vmcore::rewrite::Rewrite;
use vmcore::{CpuState, MemoryRange};

fn our_header() -> Vec<u8> {
    let layout = Layout::new(
        &[MemoryRange {
            gpa: 0,
            len_bytes: 8192,
        }],
        2,
    )
    .unwrap();
    let header = HeaderInput {
        cpus: &[cpu(1), cpu(2)],
        vmcoreinfo: Some(b"OSRELEASE=x\n"),
        coreferry: &note(),
        text: None,
    };
    layout.header(&header).unwrap()
}

/// A head as QEMU 10 writes it: section headers between ELF header and program headers, so e_phoff is 192.
fn foreign_head(loads: &[LoadSegment], extended_count: bool) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([4, 0, 62, 0, 1, 0, 0, 0]);
    out.extend([0; 8]);
    out.extend(192u64.to_le_bytes());
    out.extend(64u64.to_le_bytes());
    out.extend([0; 4]);
    let count = loads.len() as u32;
    let plain = if extended_count { 0xffff } else { count as u16 };
    for value in [8, 56, plain, 64, 2, 1] {
        out.extend(u16::to_le_bytes(value));
    }
    out.resize(64 + 44, 0);
    out.extend(count.to_le_bytes());
    out.resize(192, 0);
    for load in loads {
        out.extend(1u32.to_le_bytes());
        out.extend(7u32.to_le_bytes());
        for value in [
            load.file_offset,
            load.va,
            load.gpa,
            load.file_len_bytes,
            load.memory_len_bytes,
            0,
        ] {
            out.extend(value.to_le_bytes());
        }
    }
    out
}

fn load(gpa: u64, file_offset: u64, file_len_bytes: u64, memory_len_bytes: u64) -> LoadSegment {
    LoadSegment {
        va: 0,
        gpa,
        file_offset,
        file_len_bytes,
        memory_len_bytes,
    }
}

#[test]
fn a_head_of_another_writer_is_read() {
    let loads = [load(0, 0x14a0, 8192, 8192), load(0xfffc_0000, 0x34a0, 4096, 8192)];
    for extended in [false, true] {
        let head = CoreHead::parse(&foreign_head(&loads, extended)).unwrap();
        assert_eq!(
            (head.machine, head.loads.as_slice(), head.notes),
            (62, loads.as_slice(), None)
        );
    }
}

#[test]
fn a_short_head_says_how_much_it_needs() {
    let whole = our_header();
    let mut given = 0;
    loop {
        match CoreHead::parse(&whole[..given]) {
            Ok(head) => match head.notes_in(&whole[..given]) {
                Ok(_) => break,
                Err(ReadError::NeedMore { needed, .. }) => given = needed as usize,
                Err(error) => panic!("{error}"),
            },
            Err(ReadError::NeedMore { needed, .. }) => {
                assert!(needed as usize > given);
                given = needed as usize;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(given, whole.len());
}

#[test]
fn what_is_no_core_is_refused() {
    let whole = our_header();
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        CoreHead::parse(&bytes).unwrap_err()
    };
    for at in [0, 4, 5, 16] {
        assert_eq!(changed(at, 9), ReadError::NotACore, "byte {at}");
    }
    assert!(matches!(
        changed(54, 55),
        ReadError::BadField {
            field: "e_phentsize",
            ..
        }
    ));
    assert!(matches!(
        changed(39, 0x80),
        ReadError::BadField { field: "e_phoff", .. }
    ));
    assert_eq!(CoreHead::parse(b"KDUMP   "), Err(ReadError::NotACore));
    let mut many = foreign_head(&[], true);
    many[64 + 44..64 + 48].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(CoreHead::parse(&many), Err(ReadError::TooManySegments { .. })));
}

#[test]
fn registers_survive_their_notes() {
    let state = cpu(3);
    assert_eq!(qemu::decode(&qemu::encode(&state)), Some(state.clone()));
    assert_eq!(qemu::encode(&state).len(), 440);
    let old = qemu::decode(&qemu::encode(&state)[..432]).unwrap();
    assert_eq!(
        old,
        CpuState {
            kernel_gs_base: 0,
            ..state.clone()
        },
        "QEMU before 5"
    );
    let read = prstatus::decode(&prstatus::encode(8, &state)).unwrap();
    assert_eq!(
        (read.pid, read.registers.rip, read.registers.rdi),
        (8, state.rip, state.rdi)
    );
    assert_eq!(read.registers.cs.selector, state.cs.selector);
    assert!(prstatus::decode(&[0; 335]).is_none() && qemu::decode(&[0; 440]).is_none());
}

#[test]
fn notes_that_pass_the_end_are_an_error_and_end_the_iterator() {
    let whole = our_header();
    let head = CoreHead::parse(&whole).unwrap();
    let good = head.notes_in(&whole).unwrap();
    let mut notes = notes::iter(&good[..good.len() - 8]);
    assert!(matches!(notes.by_ref().last(), Some(Err(NoteError::Truncated { .. }))));
    assert!(notes.next().is_none());
    let mut long_name = good.to_vec();
    long_name[1] = 9;
    assert!(matches!(
        notes::iter(&long_name).next(),
        Some(Err(NoteError::NameTooLong {
            name_len_bytes: 0x905,
            ..
        }))
    ));
}

#[test]
fn vmcoreinfo_is_found_at_a_page_boundary_only_if_it_is_one() {
    let text = b"OSRELEASE=6.1.0-56-cloud-amd64\nSYMBOL(_stext)=ffffffffb6e00000\nNUMBER(phys_base)=-828375040\nKERNELOFFSET=35e00000\n";
    let mut page = vec![11, 0, 0, 0, text.len() as u8, 0, 0, 0, 0, 0, 0, 0];
    page.extend(b"VMCOREINFO\0\0");
    page.extend(text);
    page.resize(4096, 0);
    assert_eq!(vmcoreinfo::at_page(&page), vmcoreinfo::NoteAtPage::Text(text));
    assert_eq!(
        vmcoreinfo::at_page(&page[..60]),
        vmcoreinfo::NoteAtPage::Longer(24 + text.len())
    );
    for at in [0, 5, 6, 8, 12, 21, 24] {
        let mut other = page.clone();
        other[at] = 0xff;
        assert_eq!(
            vmcoreinfo::at_page(&other),
            if at == 5 {
                vmcoreinfo::NoteAtPage::Longer(24 + 0xff00 + text.len())
            } else {
                vmcoreinfo::NoteAtPage::No
            },
            "byte {at}"
        );
    }
    assert_eq!(vmcoreinfo::at_page(&[]), vmcoreinfo::NoteAtPage::No);
    assert_eq!(vmcoreinfo::value(text, "OSRELEASE"), Some("6.1.0-56-cloud-amd64"));
    assert_eq!(vmcoreinfo::phys_base(text), Some(-828_375_040));
    assert_eq!(vmcoreinfo::kernel_offset(text), Some(0x35e0_0000));
    assert_eq!(vmcoreinfo::symbol(text, "_stext"), Some(0xffff_ffff_b6e0_0000));
    assert_eq!(vmcoreinfo::value(text, "OSREL"), None);
}

/// The byte that stands at `offset` in the imagined foreign file.
fn source_byte(offset: u64) -> u8 {
    (offset.wrapping_mul(31) >> 3) as u8 | 1
}

fn read_source(offset: u64, buffer: &mut [u8]) -> Result<(), Infallible> {
    buffer
        .iter_mut()
        .zip(offset..)
        .for_each(|(byte, at)| *byte = source_byte(at));
    Ok(())
}

#[test]
fn rewriting_keeps_every_byte_at_its_address() {
    // Unsorted, overlapping (as kernel text in /proc/vmcore), ending within a page, with a tail of zeros.
    let loads = [
        load(0x10_0000, 0x9000, 0x4000, 0x4000),
        load(0x1000, 0x100, 0x1234, 0x1234),
        load(0x10_2000, 0xb000, 0x1000, 0x1000),
        load(0x20_0000, 0x8_0000, 0x800, 0x2000),
        load(0x30_0000, u64::MAX - 10, 0x1000, 0x1000),
    ];
    let head = CoreHead::parse(&foreign_head(&loads, false)).unwrap();
    let rewrite = Rewrite::new(&head, 1).unwrap();
    let layout = rewrite.layout();
    let gpas: Vec<_> = layout
        .segments()
        .iter()
        .map(|segment| (segment.gpa, segment.len_bytes))
        .collect();
    assert_eq!(
        gpas,
        [
            (0x1000, 0x2000),
            (0x10_0000, 0x4000),
            (0x20_0000, 0x2000),
            (0x30_0000, 0x1000)
        ]
    );
    let mut memory = vec![0xee; (layout.memory_end() - HEADER_ROOM_LEN) as usize];
    let (first, second) = memory.split_at_mut(0x1777);
    rewrite.read_memory(HEADER_ROOM_LEN, first, read_source).unwrap();
    rewrite
        .read_memory(HEADER_ROOM_LEN + 0x1777, second, read_source)
        .unwrap();
    for (index, &byte) in memory.iter().enumerate() {
        let gpa = layout.gpa_of(HEADER_ROOM_LEN + index as u64).unwrap();
        let holder = loads[..4]
            .iter()
            .find(|load| gpa >= load.gpa && gpa < load.gpa + load.file_len_bytes);
        let expected = holder.map_or(0, |load| source_byte(load.file_offset + gpa - load.gpa));
        assert_eq!(byte, expected, "address {gpa:#x}");
    }
}

proptest! {
    #[test]
    fn our_own_file_rewrites_to_itself(ranges in ranges(12)) {
        let layout = Layout::new(&ranges, 0).unwrap();
        let note = note();
        let header = layout.header(&HeaderInput { cpus: &[], vmcoreinfo: None, coreferry: &note, text: None }).unwrap();
        let rewrite = Rewrite::new(&CoreHead::parse(&header).unwrap(), 0).unwrap();
        // Adjacent ranges become one, which changes no offset.
        prop_assert_eq!(rewrite.layout().memory_end(), layout.memory_end());
        prop_assert!(rewrite.pieces().iter().all(|piece| piece.file_offset == piece.source_offset));
        for range in &ranges {
            prop_assert_eq!(rewrite.layout().file_offset_of(range.gpa), layout.file_offset_of(range.gpa));
        }
    }

    #[test]
    fn hostile_heads_do_not_panic(
        start in prop::collection::vec(any::<u8>(), 0..600), loads in prop::collection::vec(any::<[u64; 5]>(), 0..6), extended in any::<bool>(),
        flips in prop::collection::vec((0usize..600, any::<u8>()), 0..8),
    ) {
        let _ = CoreHead::parse(&start);
        let _ = CoreNotes::parse(&start);
        let loads: Vec<_> = loads.iter().map(|[va, gpa, file_offset, file_len, memory_len]| LoadSegment {
            va: *va, gpa: gpa >> (va % 64), file_offset: *file_offset, file_len_bytes: file_len >> (gpa % 64), memory_len_bytes: memory_len >> (va % 64),
        }).collect();
        let mut bytes = foreign_head(&loads, extended);
        for (at, byte) in flips {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        if let Ok(head) = CoreHead::parse(&bytes) {
            let _ = head.notes_in(&bytes);
            if let Ok(rewrite) = Rewrite::new(&head, 1) {
                let mut page = [0; 4096];
                let _ = rewrite.read_memory(HEADER_ROOM_LEN, &mut page, |_, _| Ok::<(), Infallible>(()));
            }
        }
    }

    #[test]
    fn hostile_notes_do_not_panic(at in 0usize..3000, bytes in prop::collection::vec(any::<u8>(), 1..40)) {
        let whole = our_header();
        let head = CoreHead::parse(&whole).unwrap();
        let mut notes = head.notes_in(&whole).unwrap().to_vec();
        let at = at % notes.len();
        notes.splice(at.., bytes);
        if let Ok(parsed) = CoreNotes::parse(&notes) {
            let _ = (parsed.cpu_states(), parsed.coreferry());
        }
    }
}
