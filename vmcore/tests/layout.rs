//! The ELF layout: what we write, read by the `object` crate and by our own reader.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests; sizes chosen here

mod common;

use common::{cpu, note, ranges};
use object::Endianness;
use object::elf::{ET_CORE, FileHeader64, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};
use proptest::prelude::*;
use vmcore::elf::{HeaderError, HeaderInput, Layout, LayoutError, TextMapping};
use vmcore::limits::{FILE_LEN_MAX, HEADER_ROOM_LEN, PROGRAM_HEADERS_MAX, VMCOREINFO_LEN_MAX};
use vmcore::reader::{CoreHead, CoreNotes};
use vmcore::{CoreferryNote, MemoryRange};

const GIB: u64 = 1 << 30;

fn range(gpa: u64, len_bytes: u64) -> MemoryRange {
    MemoryRange { gpa, len_bytes }
}

fn input<'a>(cpus: &'a [vmcore::CpuState], coreferry: &'a CoreferryNote) -> HeaderInput<'a> {
    HeaderInput {
        cpus,
        vmcoreinfo: None,
        coreferry,
        text: None,
    }
}

#[test]
fn file_offsets_depend_on_the_ranges_alone() {
    let layout = Layout::new(&[range(0, 3 * GIB), range(4 * GIB, GIB)], 2).unwrap();
    assert_eq!(layout.file_offset_of(0), Some(HEADER_ROOM_LEN));
    assert_eq!(layout.file_offset_of(3 * GIB - 1), Some(HEADER_ROOM_LEN + 3 * GIB - 1));
    assert_eq!(layout.file_offset_of(3 * GIB), None);
    assert_eq!(layout.file_offset_of(4 * GIB), Some(HEADER_ROOM_LEN + 3 * GIB));
    assert_eq!(layout.file_offset_of(5 * GIB), None);
    assert_eq!(layout.gpa_of(HEADER_ROOM_LEN + 3 * GIB), Some(4 * GIB));
    assert_eq!(layout.gpa_of(HEADER_ROOM_LEN - 1), None);
    assert_eq!(layout.memory_end(), HEADER_ROOM_LEN + 4 * GIB);
    assert_eq!(layout.gpa_of(layout.memory_end()), None);
}

#[test]
fn bad_ranges_are_refused() {
    let refused = |ranges: &[MemoryRange]| Layout::new(ranges, 1).unwrap_err();
    assert_eq!(refused(&[]), LayoutError::NoRanges);
    assert!(matches!(refused(&[range(0, 0)]), LayoutError::BadRange { .. }));
    assert!(matches!(refused(&[range(1, 4096)]), LayoutError::BadRange { .. }));
    assert!(matches!(refused(&[range(0, 4095)]), LayoutError::BadRange { .. }));
    assert!(matches!(
        refused(&[range(u64::MAX - 4095, 8192)]),
        LayoutError::BadRange { .. }
    ));
    assert!(matches!(refused(&[range(1 << 52, 4096)]), LayoutError::BadRange { .. }));
    assert!(matches!(
        refused(&[range(8192, 4096), range(0, 4096)]),
        LayoutError::Unsorted { .. }
    ));
    assert!(matches!(
        refused(&[range(0, 8192), range(4096, 8192)]),
        LayoutError::Unsorted { .. }
    ));
    assert!(matches!(
        refused(&[range(0, FILE_LEN_MAX)]),
        LayoutError::FileTooLong { .. }
    ));
    assert!(
        Layout::new(&[range(0, 4096), range(4096, 4096)], 1).is_ok(),
        "adjacent ranges are fine"
    );
}

#[test]
fn too_many_ranges_or_vcpus_are_an_error() {
    let many = |count: u64| (0..count).map(|index| range(index * 8192, 4096)).collect::<Vec<_>>();
    let over = PROGRAM_HEADERS_MAX as u64 - 1;
    assert!(matches!(
        Layout::new(&many(over), 1),
        Err(LayoutError::TooManyRanges { .. })
    ));
    assert!(matches!(
        Layout::new(&many(20_000), 1),
        Err(LayoutError::RoomExceeded { .. })
    ));
    assert!(matches!(
        Layout::new(&many(1), 2000),
        Err(LayoutError::RoomExceeded { .. })
    ));
    assert!(matches!(
        Layout::new(&many(1), usize::MAX),
        Err(LayoutError::RoomExceeded { .. })
    ));
    assert!(Layout::new(&many(64), 1024).is_ok(), "1024 vCPUs fit");
}

#[test]
fn the_largest_header_fits_the_room() {
    let cpus: Vec<_> = (0..1024).map(cpu).collect();
    let ranges: Vec<_> = (0..200).map(|index| range(index * 8192, 4096)).collect();
    let layout = Layout::new(&ranges, cpus.len()).unwrap();
    let coreferry = CoreferryNote {
        console_tail: "\u{1}".repeat(1 << 20),
        ..note()
    };
    let vmcoreinfo = vec![b'x'; VMCOREINFO_LEN_MAX];
    let text = Some(TextMapping {
        va: 0xffff_ffff_8100_0000,
        gpa: 0,
        len_bytes: 4096,
    });
    let header = HeaderInput {
        cpus: &cpus,
        vmcoreinfo: Some(&vmcoreinfo),
        coreferry: &coreferry,
        text,
    };
    let bytes = layout.header(&header).unwrap();
    assert!(bytes.len() as u64 <= HEADER_ROOM_LEN, "{} bytes", bytes.len());
}

#[test]
fn header_input_that_does_not_fit_is_an_error() {
    let layout = Layout::new(&[range(0, 8192), range(16384, 8192)], 1).unwrap();
    let (cpus, note) = ([cpu(0), cpu(1)], note());
    assert!(matches!(
        layout.header(&input(&cpus, &note)),
        Err(HeaderError::TooManyCpus { cpus: 2, planned: 1 })
    ));
    let long = vec![0; VMCOREINFO_LEN_MAX + 1];
    let header = HeaderInput {
        vmcoreinfo: Some(&long),
        ..input(&cpus[..1], &note)
    };
    assert!(matches!(
        layout.header(&header),
        Err(HeaderError::VmcoreinfoTooLong { .. })
    ));
    for (gpa, len_bytes) in [(8192, 4096), (4096, 8192), (0, 24576), (u64::MAX, 2)] {
        let text = Some(TextMapping { va: 0, gpa, len_bytes });
        let header = HeaderInput {
            text,
            ..input(&cpus[..1], &note)
        };
        assert!(
            matches!(layout.header(&header), Err(HeaderError::TextOutside { .. })),
            "{gpa:#x}+{len_bytes:#x}"
        );
    }
}

#[test]
fn the_note_survives_the_header() {
    let layout = Layout::new(&[range(0, 4096)], 2).unwrap();
    let (cpus, note) = ([cpu(7), cpu(8)], note());
    let header = HeaderInput {
        vmcoreinfo: Some(b"OSRELEASE=6.1\n"),
        ..input(&cpus, &note)
    };
    let bytes = layout.header(&header).unwrap();
    let head = CoreHead::parse(&bytes).unwrap();
    let notes = CoreNotes::parse(head.notes_in(&bytes).unwrap()).unwrap();
    assert_eq!(notes.coreferry().unwrap(), Some(note));
    assert_eq!(notes.vmcoreinfo, Some(b"OSRELEASE=6.1\n".as_slice()));
    assert_eq!(notes.cpu_states(), cpus);
    assert_eq!(
        notes.prstatus.iter().map(|status| status.pid).collect::<Vec<_>>(),
        [1, 2],
        "vCPU index plus one"
    );
    assert_eq!(notes.prstatus[1].registers.rip, cpus[1].rip);
    assert_eq!(notes.prstatus[1].registers.gs.base, cpus[1].gs.base);
}

proptest! {
    #[test]
    fn object_reads_every_header(ranges in ranges(40), vcpus in 0usize..5, with_text in any::<bool>()) {
        let layout = Layout::new(&ranges, vcpus).unwrap();
        let cpus: Vec<_> = (0..vcpus as u64).map(cpu).collect();
        let note = note();
        let text = with_text.then_some(TextMapping { va: 0xffff_ffff_8100_0000, gpa: ranges[0].gpa, len_bytes: 4096 });
        let bytes = layout.header(&HeaderInput { text, ..input(&cpus, &note) }).unwrap();

        let elf = FileHeader64::<Endianness>::parse(&*bytes).unwrap();
        let endian = elf.endian().unwrap();
        prop_assert_eq!(elf.e_type(endian), ET_CORE);
        prop_assert_eq!(elf.e_phoff(endian), 64);
        prop_assert_eq!(elf.e_ehsize(endian), 64);
        prop_assert_eq!(elf.e_shnum(endian), 0);
        let headers = elf.program_headers(endian, &*bytes).unwrap();
        prop_assert_eq!(headers[0].p_type(endian), PT_NOTE);
        prop_assert_eq!(headers[0].p_align(endian), 4);
        prop_assert_eq!(headers.len(), 1 + ranges.len() + usize::from(with_text));
        for (header, segment) in headers[1..].iter().zip(layout.segments()) {
            prop_assert_eq!(header.p_type(endian), PT_LOAD);
            prop_assert_eq!(header.p_flags(endian), PF_R | PF_W | PF_X);
            prop_assert_eq!(header.p_offset(endian), segment.file_offset);
            prop_assert_eq!((header.p_paddr(endian), header.p_vaddr(endian)), (segment.gpa, segment.gpa));
            prop_assert_eq!((header.p_filesz(endian), header.p_memsz(endian)), (segment.len_bytes, segment.len_bytes));
            prop_assert_eq!(header.p_align(endian), 0, "crash needs 0");
            prop_assert!(segment.file_offset % 4096 == 0 && segment.file_offset >= HEADER_ROOM_LEN);
        }
        let notes_end = headers[0].p_offset(endian) + headers[0].p_filesz(endian);
        prop_assert_eq!(notes_end, bytes.len() as u64, "notes end the header");

        let mut names = Vec::new();
        let mut notes = headers[0].notes(endian, &*bytes).unwrap().unwrap();
        while let Some(note) = notes.next().unwrap() {
            names.push(String::from_utf8(note.name().to_vec()).unwrap());
        }
        let mut expected = vec!["CORE"; vcpus];
        expected.extend(vec!["QEMU"; vcpus]);
        expected.push("COREFERRY");
        prop_assert_eq!(names, expected);
    }

    #[test]
    fn offsets_and_addresses_are_inverse(ranges in ranges(20), at in any::<u64>()) {
        let layout = Layout::new(&ranges, 1).unwrap();
        let offset = HEADER_ROOM_LEN + at % (layout.memory_end() - HEADER_ROOM_LEN);
        let gpa = layout.gpa_of(offset).unwrap();
        prop_assert_eq!(layout.file_offset_of(gpa), Some(offset));
        prop_assert!(ranges.iter().any(|range| range.contains(gpa, 1)));
    }
}
