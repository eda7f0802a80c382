//! Every form of a core that has stored, zero, excluded and lost pages, read back.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;

use api::ByteRange;
use vmcore::elf::{HeaderInput, Layout};
use vmcore::limits::{HEADER_ROOM_LEN, PAGE_LEN, PAGE_LEN_USIZE};
use vmcore::trailer::{Pages as TrailerPages, TrailerBuilder};
use vmcore::{CoreferryNote, CpuState, MemoryRange};

use super::*;
use crate::VmcoreBytes;

/// Above 4 GiB too, and more than a window.
const RANGES: [MemoryRange; 2] = [
    MemoryRange {
        gpa: 0,
        len_bytes: 2000 * PAGE_LEN,
    },
    MemoryRange {
        gpa: 5 << 30,
        len_bytes: 300 * PAGE_LEN,
    },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Stored,
    Zero,
    Excluded,
    Lost,
}

/// What page number `page` of the core is.
fn state(page: u64) -> State {
    match page % 50 {
        0..=9 => State::Zero,
        10..=13 => State::Excluded,
        14 if page > 1000 => State::Lost,
        _ => State::Stored,
    }
}

fn content(page: u64) -> [u8; PAGE_LEN_USIZE] {
    match page % 50 {
        // Of a few kinds, each many times, within a window and beyond it.
        40..=44 => noise(page % 7),
        // As the next page, by its checksum.
        45 => forged(noise(page + 1)),
        _ => noise(page),
    }
}

fn noise(page: u64) -> [u8; PAGE_LEN_USIZE] {
    let mut bytes = [0; PAGE_LEN_USIZE];
    let mut seed = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    // A third of the pages does not get smaller.
    let filled = if page.is_multiple_of(3) { PAGE_LEN_USIZE } else { 600 };
    for byte in &mut bytes[..filled] {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        *byte = seed.to_le_bytes()[3];
    }
    bytes
}

/// Another page of the same CRC-32: the difference is a multiple of its polynomial.
fn forged(mut page: [u8; PAGE_LEN_USIZE]) -> [u8; PAGE_LEN_USIZE] {
    const POLYNOMIAL: u64 = 0x1_04c1_1db7;
    let checksum = crate::codecs::checksum(&page);
    for bit in 0..33_usize {
        let coefficient = (POLYNOMIAL >> (32 - bit)) & 1;
        page[100 + bit / 8] ^= u8::from(coefficient == 1) << (bit % 8);
    }
    assert_eq!(crate::codecs::checksum(&page), checksum);
    page
}

/// Each page's number and physical address.
fn pages() -> impl Iterator<Item = (u64, u64)> {
    let addresses = RANGES
        .iter()
        .flat_map(|range| (range.gpa..range.gpa + range.len_bytes).step_by(PAGE_LEN_USIZE));
    (0..).zip(addresses)
}

/// The core in our layout; with lost pages or without.
fn core(with_lost: bool, os: Option<&str>) -> DumpFile<VmcoreBytes, Codecs> {
    let layout = Layout::new(&RANGES, 2).unwrap();
    let note = CoreferryNote {
        os: os.map(str::to_owned),
        release: Some("14.1".to_owned()),
        ..CoreferryNote::default()
    };
    let header = layout
        .header(&HeaderInput {
            cpus: &[
                CpuState {
                    rip: 1,
                    ..CpuState::default()
                },
                CpuState {
                    rip: 2,
                    ..CpuState::default()
                },
            ],
            vmcoreinfo: match os {
                Some("linux") => Some(b"OSRELEASE=6.1.0\nNUMBER(phys_base)=-744488960\n".as_slice()),
                // It describes itself as Linux does, and is none.
                Some("demo") => Some(b"OSRELEASE=demo-1\n"),
                _ => None,
            },
            coreferry: &note,
            text: None,
        })
        .unwrap();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&header, 0).unwrap();
    let mut trailer = TrailerBuilder::new(&layout);
    let mut lost = Vec::new();
    for (page, _) in pages() {
        let offset = HEADER_ROOM_LEN + page * PAGE_LEN;
        let bytes = content(page);
        match state(page) {
            State::Zero => trailer.pages(offset, TrailerPages::Zero(PAGE_LEN)).unwrap(),
            State::Excluded => trailer.pages(offset, TrailerPages::Excluded(PAGE_LEN)).unwrap(),
            what => {
                trailer.pages(offset, TrailerPages::Stored(&bytes)).unwrap();
                file.write_all_at(&bytes, offset).unwrap();
                if with_lost && what == State::Lost {
                    lost.push(ByteRange { offset, length: 1000 });
                }
            }
        }
    }
    trailer.header(&header).unwrap();
    file.write_all_at(&trailer.finish().unwrap(), layout.memory_end())
        .unwrap();
    DumpFile::open(VmcoreBytes::of(file, layout.file_len(), &lost), Codecs).unwrap()
}

fn options(format: ExportFormat, threads: usize) -> ExportOptions {
    ExportOptions {
        format,
        threads,
        dump_level: 0,
        timestamp_s: 1_700_000_000,
    }
}

/// Exports to a file and opens that.
fn exported(
    core: &DumpFile<VmcoreBytes, Codecs>,
    format: ExportFormat,
    threads: usize,
) -> (DumpFile<VmcoreBytes, Codecs>, Exported, File) {
    let file = tempfile::tempfile().unwrap();
    let mut seen = 0;
    let selection = Selection::of(core).unwrap();
    let options = options(format, threads);
    let done = &mut |bytes| seen += bytes;
    let result = match format {
        ExportFormat::Kdump { flat: true, .. } => export(core, &selection, &options, &mut FlatSink::new(&file), done),
        _ => export(core, &selection, &options, &mut FileSink(&file), done),
    };
    let result = result.unwrap();
    assert!(seen > 0, "progress was told");
    let len = file.metadata().unwrap().len();
    if !matches!(format, ExportFormat::Kdump { flat: true, .. }) {
        assert_eq!(len, result.file_len_bytes);
    }
    let opened = DumpFile::open(VmcoreBytes::of(file.try_clone().unwrap(), len, &[]), Codecs).unwrap();
    (opened, result, file)
}

/// Every page is what it was: nothing that is missing reads as zero.
fn holds_the_same(read: &DumpFile<VmcoreBytes, Codecs>, with_lost: bool, what: &str) {
    for (page, gpa) in pages() {
        let mut bytes = [7; PAGE_LEN_USIZE];
        let is_there = read.read(gpa, &mut bytes).is_ok();
        match state(page) {
            State::Excluded => assert!(!is_there, "{what}: page {page} is excluded"),
            State::Lost if with_lost => assert!(!is_there, "{what}: page {page} is lost"),
            State::Zero => assert!(is_there && bytes == [0; PAGE_LEN_USIZE], "{what}: page {page} is zero"),
            _ => assert!(is_there && bytes == content(page), "{what}: page {page} is stored"),
        }
    }
    assert!(read.read(2000 * PAGE_LEN, &mut [0]).is_err(), "{what}: no RAM");
}

#[test]
fn every_form_holds_the_same_pages_from_any_number_of_threads() {
    for with_lost in [false, true] {
        let core = core(with_lost, Some("linux"));
        let count = |wanted| pages().filter(|(page, _)| state(*page) == wanted).count() as u64;
        for (name, format) in ExportFormat::NAMES {
            // Raw memory cannot tell what is missing; without losses two of the others are enough.
            if format == ExportFormat::Raw || !(with_lost || ["elf", "kdump-zlib"].contains(&name)) {
                continue;
            }
            let mut files = Vec::new();
            for threads in [1, 3] {
                let (read, result, mut file) = exported(&core, format, threads);
                holds_the_same(&read, with_lost, name);
                let lost = if with_lost { count(State::Lost) } else { 0 };
                assert_eq!(result.lost_pages, lost, "{name}");
                assert_eq!(result.excluded_pages, count(State::Excluded), "{name}");
                assert_eq!(
                    (result.pages + lost, result.zero_pages),
                    (2300 - count(State::Excluded), count(State::Zero)),
                    "{name}"
                );
                assert_eq!(result.warnings, [""; 0], "{name}");
                assert_eq!(read.notes(), core.notes(), "{name}");
                let mut bytes = Vec::new();
                file.rewind().unwrap();
                file.read_to_end(&mut bytes).unwrap();
                files.push(bytes);
                // From what was exported, everything can be exported again.
                if threads == 1 && name == "kdump-flat-zstd" {
                    let (again, ..) = exported(&read, ExportFormat::Elf, 2);
                    holds_the_same(&again, with_lost, "elf of kdump-flat-zstd");
                }
            }
            assert!(files[0] == files[1], "{name}: threads make no difference");
        }
    }
}

#[test]
fn content_that_repeats_is_stored_once() {
    let stored = || {
        pages()
            .filter(|(page, _)| matches!(state(*page), State::Stored | State::Lost))
            .map(|(page, _)| content(page))
    };
    let different = stored().collect::<std::collections::HashSet<_>>().len();
    assert!(different + 180 < stored().count(), "{different}");
    let uncompressed = ExportFormat::parse("kdump-uncompressed").unwrap();
    for threads in [1, 4] {
        let (_, exported, _) = exported(&core(false, Some("linux")), uncompressed, threads);
        // Bitmaps up to 5 GiB, and a descriptor for each page.
        let beside = 512 << 10;
        assert!(exported.file_len_bytes < (different * PAGE_LEN_USIZE + beside) as u64);
    }
}

#[test]
fn the_kdump_header_says_whose_memory_it_is() {
    let zstd = ExportFormat::parse("kdump-zstd").unwrap();
    let (read, ..) = exported(&core(true, Some("linux")), zstd, 1);
    let DumpFile::Kdump(image) = &read else {
        panic!("{}", read.form())
    };
    let header = &image.header;
    assert_eq!(
        (header.utsname.sysname.as_str(), header.utsname.release.as_str()),
        ("Linux", "6.1.0")
    );
    assert_eq!(
        (header.utsname.machine.as_str(), header.utsname.version.is_empty()),
        ("x86_64", false)
    );
    // Signed decimal, not hexadecimal.
    assert_eq!(header.phys_base.cast_signed(), -744_488_960);
    assert_eq!(
        (header.cpus, header.version, header.status),
        (2, 6, 0x28),
        "zstd, incomplete"
    );
    assert_eq!(header.frames, (5 << 30) / PAGE_LEN + 300);
    assert_eq!(header.timestamp_s, 1_700_000_000);
}

#[test]
fn a_core_of_no_linux_is_exported_with_a_warning() {
    let zlib = ExportFormat::parse("kdump-zlib").unwrap();
    for os in ["freebsd", "demo"] {
        let (read, result, _) = exported(&core(false, Some(os)), zlib, 2);
        holds_the_same(&read, false, os);
        assert!(
            result.warnings.len() == 1 && result.warnings[0].contains(os),
            "{:?}",
            result.warnings
        );
        let DumpFile::Kdump(image) = &read else {
            panic!("{}", read.form())
        };
        let names = &image.header.utsname;
        assert_eq!((names.sysname.as_str(), names.release.as_str()), (os, "14.1"));
    }
}

#[test]
fn raw_memory_is_refused_where_it_would_show_what_is_missing_as_zero() {
    let file = tempfile::tempfile().unwrap();
    let refused = |core: &DumpFile<VmcoreBytes, Codecs>, selection| {
        export(
            core,
            selection,
            &options(ExportFormat::Raw, 1),
            &mut FileSink(&file),
            &mut |_| {},
        )
    };
    let core = core(true, None);
    assert!(
        matches!(refused(&core, &Selection::of(&core).unwrap()), Err(ExportError::CannotTell { excluded, lost }) if excluded > 0 && lost > 0)
    );
}

#[test]
fn streams_of_elf_have_the_bytes_of_files() {
    let core = core(true, Some("linux"));
    let (_, _, mut file) = exported(&core, ExportFormat::Elf, 1);
    let mut stream = Vec::new();
    let options = options(ExportFormat::Elf, 2);
    export(
        &core,
        &Selection::of(&core).unwrap(),
        &options,
        &mut StreamSink::new(&mut stream),
        &mut |_| {},
    )
    .unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == stream);
    let mut sink = StreamSink::new(Vec::new());
    sink.write_at(3, b"x").unwrap();
    assert!(sink.write_at(0, b"y").is_err(), "a stream does not go back");
}

#[test]
fn a_full_disk_is_an_error() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return;
    };
    struct Full(File);
    impl Sink for Full {
        fn write_at(&mut self, _: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_all(bytes)
        }
        fn can_seek(&self) -> bool {
            true
        }
        fn finish(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }
    let core = core(false, None);
    for threads in [1, 2] {
        let format = ExportFormat::parse("kdump-zstd").unwrap();
        let mut sink = Full(full.try_clone().unwrap());
        let why = export(
            &core,
            &Selection::of(&core).unwrap(),
            &options(format, threads),
            &mut sink,
            &mut |_| {},
        );
        assert!(matches!(why, Err(ExportError::Write { .. })), "{why:?}");
    }
}

/// An ELF core with this memory, all of which its file calls zero.
fn claiming(gpa: u64, memory_len: u64) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([4, 0, 62, 0, 1, 0, 0, 0]);
    file.extend([0; 8]);
    file.extend(64_u64.to_le_bytes());
    file.extend([0; 12]);
    for value in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(value.to_le_bytes());
    }
    for value in [1, 0, 0, gpa, 0, memory_len, PAGE_LEN] {
        file.extend(u64::to_le_bytes(value));
    }
    file
}

#[test]
fn memory_that_no_core_can_have_is_refused() {
    let of = |gpa, memory_len| {
        let file = claiming(gpa, memory_len);
        Selection::of(&DumpFile::open(file.as_slice(), Codecs).unwrap()).map(|selection| selection.ram().count())
    };
    assert_eq!(of(1 << 41, 1 << 20).unwrap(), 256);
    assert_eq!(of(0, 1 << 30).unwrap(), 1 << 18);
    for (gpa, memory_len) in [
        (1 << 51, 1 << 20),
        (0, 1 << 45),
        (1 << 42, PAGE_LEN),
        (u64::MAX - 3 * PAGE_LEN, PAGE_LEN),
    ] {
        let refused = of(gpa, memory_len);
        assert!(
            matches!(refused, Err(ExportError::TooHigh { .. })),
            "{gpa:#x} {memory_len:#x}: {refused:?}"
        );
    }
    assert!(matches!(of(0, (1 << 30) + PAGE_LEN), Err(ExportError::TooMuch { .. })));
}
