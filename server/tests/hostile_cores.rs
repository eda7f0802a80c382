//! Cores of every form with flipped bits and cut ends: an error or a part of what was there, never a panic, within a bound of memory
//! and of processor time.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests; sizes chosen here

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use server::VmcoreBytes;
use server::codecs::Codecs;
use server::export::{ExportFormat, ExportOptions, FileSink, FlatSink, Selection, export};
use vmcore::dumpfile::DumpFile;
use vmcore::elf::{HeaderInput, Layout};
use vmcore::image::PhysicalMemory as _;
use vmcore::limits::{HEADER_ROOM_LEN, PAGE_LEN, PAGE_LEN_USIZE};
use vmcore::linux::KernelSpace;
use vmcore::linux::filter::{FilterLevel, filter};
use vmcore::reader::CoreNotes;
use vmcore::trailer::{Pages, TrailerBuilder};
use vmcore::{CoreferryNote, CpuState, MemoryRange};

/// Damaged files of each form; `COREFERRY_ALL` asks for 10,000 in all.
const FILES: u64 = 150;
const FILES_ALL: u64 = 1112;
/// The most memory that this whole test may have. One core has little; hostile lengths would ask for more.
const MEMORY_BYTES: u64 = 1 << 30;
/// The most processor time of this whole test, which takes a tenth of it without optimisation.
const CPU_S: u64 = 300;
/// What a test prints, where that goes to a file.
const PRINTED_BYTES: u64 = 1 << 20;
/// Pages read of each core: their number is the core's to say.
const PAGES_MAX: usize = 600;

const MEMORY: [MemoryRange; 2] = [
    MemoryRange {
        gpa: 0,
        len_bytes: 60 * PAGE_LEN,
    },
    MemoryRange {
        gpa: 80 * PAGE_LEN,
        len_bytes: 9 * PAGE_LEN,
    },
];

/// What the kernel says of itself, with everything that is looked for. Its structures are not there: their places are.
fn vmcoreinfo() -> Vec<u8> {
    let mut text = "OSRELEASE=6.1.0\nNUMBER(phys_base)=0\nSYMBOL(init_top_pgt)=ffffffff80001000\n\
        SYMBOL(mem_section)=ffffffff80002000\nLENGTH(mem_section)=16\nSIZE(mem_section)=16\n\
        OFFSET(mem_section.section_mem_map)=0\nNUMBER(SECTION_SIZE_BITS)=27\nSIZE(page)=64\n\
        SYMBOL(prb)=ffffffff80004000\nSYMBOL(init_uts_ns)=ffffffff80005000\nOFFSET(uts_namespace.name)=0\n\
        LENGTH(zone.free_area)=11\nNUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\n"
        .to_owned();
    for (field, at) in [
        ("flags", 0),
        ("mapping", 24),
        ("_mapcount", 48),
        ("private", 40),
        ("compound_head", 8),
    ] {
        text += &format!("OFFSET(page.{field})={at}\n");
    }
    for (flag, bit) in [("PG_lru", 4), ("PG_private", 13), ("PG_swapcache", 10)] {
        text += &format!("NUMBER({flag})={bit}\n");
    }
    text.into_bytes()
}

/// The core in our own layout.
fn elf() -> Vec<u8> {
    let layout = Layout::new(&MEMORY, 1).unwrap();
    let text = vmcoreinfo();
    let header = layout.header(&HeaderInput {
        cpus: &[CpuState::default()],
        vmcoreinfo: Some(&text),
        coreferry: &CoreferryNote::default(),
        text: None,
    });
    let header = header.unwrap();
    let mut file = header.clone();
    file.resize(layout.memory_end() as usize, 0);
    let mut trailer = TrailerBuilder::new(&layout);
    for at in (HEADER_ROOM_LEN..layout.memory_end()).step_by(PAGE_LEN_USIZE) {
        let page = &mut file[at as usize..][..PAGE_LEN_USIZE];
        match at / PAGE_LEN % 5 {
            0 => trailer.pages(at, Pages::Zero(PAGE_LEN)).unwrap(),
            1 => trailer.pages(at, Pages::Excluded(PAGE_LEN)).unwrap(),
            _ => {
                // Pointers into the image, so that they lead somewhere.
                for (index, word) in page.chunks_exact_mut(8).enumerate() {
                    let value = 0xffff_ffff_8000_0003 + (index as u64 % 64) * 4096;
                    word.copy_from_slice(&value.to_le_bytes());
                }
                trailer.pages(at, Pages::Stored(page)).unwrap();
            }
        }
    }
    trailer.header(&header).unwrap();
    file.extend(trailer.finish().unwrap());
    file
}

/// The same as a kdump file.
fn kdump(elf: &[u8], name: &str) -> Vec<u8> {
    let source = tempfile::tempfile().unwrap();
    source.write_all_at(elf, 0).unwrap();
    let core = DumpFile::open(VmcoreBytes::of(source, elf.len() as u64, &[]), Codecs).unwrap();
    let format = ExportFormat::parse(name).unwrap();
    let options = ExportOptions {
        format,
        threads: 1,
        dump_level: 0,
        timestamp_s: 0,
    };
    let file: File = tempfile::tempfile().unwrap();
    let selection = Selection::of(&core);
    match format {
        ExportFormat::Kdump { flat: true, .. } => {
            export(&core, selection, &options, &mut FlatSink::new(&file), &mut |_| {})
        }
        _ => export(&core, selection, &options, &mut FileSink(&file), &mut |_| {}),
    }
    .unwrap();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A minidump of some version with every second page.
fn minidump(version: u32) -> Vec<u8> {
    let mut file = b"minidump FreeBSD/amd64\0\0".to_vec();
    let ranges = if version == 3 { 32_u32 } else { 0 };
    for value in [version, 5000, 16, 4096] {
        file.extend(value.to_le_bytes());
    }
    for value in [0xffff_ffff_8000_0000_u64, 0xffff_f800_0000_0000, 0xffff_f880_0000_0000] {
        file.extend(value.to_le_bytes());
    }
    file.extend(ranges.to_le_bytes());
    file.resize(4096, 0);
    file.extend(vec![b'm'; 8192]);
    if version == 3 {
        for value in [0x10_0000_u64, 0x18_0000, 0, 0] {
            file.extend(value.to_le_bytes());
        }
        file.resize(4096 + 8192 + 4096, 0);
    }
    let bitmap = file.len();
    file.extend([0x55; 16]);
    file.resize(bitmap + 4096, 0);
    let tables = file.len();
    file.resize(tables + 4096, 0);
    file[tables..tables + 8].copy_from_slice(&0x10_2003_u64.to_le_bytes());
    for page in 0..64_u64 {
        file.extend(page.to_le_bytes().repeat(512));
    }
    file
}

/// Everything that is done with a core.
fn look_at(bytes: &[u8]) -> Option<usize> {
    let core = DumpFile::open(bytes, Codecs).ok()?;
    let mut read = 0;
    let mut page = [0; PAGE_LEN_USIZE];
    let ranges = core.ranges();
    let pages = ranges
        .iter()
        .flat_map(|range| (0..range.len_bytes / PAGE_LEN).map(|page| range.gpa + page * PAGE_LEN));
    for gpa in pages.take(PAGES_MAX) {
        let is_there = core.read(gpa, &mut page).is_ok();
        read += usize::from(is_there && !core.is_excluded(gpa));
    }
    if let DumpFile::Minidump(dump) = &core {
        let _ = (dump.message_buffer(1 << 20), dump.translate(0xffff_ffff_8000_0123));
    }
    if let Ok(notes) = CoreNotes::parse(core.notes())
        && let Some(text) = notes.vmcoreinfo
        && let Ok(space) = KernelSpace::new(&core, text)
    {
        // What is filtered is bounded by what RAM there is, which a hostile header may put at 4 TiB.
        let frames = ranges.iter().filter_map(MemoryRange::end).max().unwrap_or(0) / PAGE_LEN;
        let level = FilterLevel::new(31).unwrap();
        let _ = filter(&space, text, level, frames.min(1 << 20), &mut |_, _| {});
    }
    let _ = server::kernel_log(&bytes, server::Effort::Notes);
    Some(read)
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

#[test]
fn damaged_cores_of_every_form_are_errors_or_parts_within_bounds() {
    let files = if std::env::var_os("COREFERRY_ALL").is_some() {
        FILES_ALL
    } else {
        FILES
    };
    let elf = elf();
    let forms = [
        ("elf", elf.clone(), 58),
        ("kdump-zstd", kdump(&elf, "kdump-zstd"), 58),
        ("kdump-zlib", kdump(&elf, "kdump-zlib"), 58),
        ("kdump-lzo", kdump(&elf, "kdump-lzo"), 58),
        ("kdump-flat-snappy", kdump(&elf, "kdump-flat-snappy"), 58),
        ("kdump-uncompressed", kdump(&elf, "kdump-uncompressed"), 58),
        ("minidump 1", minidump(1), 64),
        ("minidump 2", minidump(2), 64),
        ("minidump 3", minidump(3), 64),
    ];
    // From here on nothing is written either.
    server::confine(MEMORY_BYTES, CPU_S, PRINTED_BYTES).unwrap();
    for (form, sound, pages) in &forms {
        let seen = look_at(sound).unwrap_or_else(|| panic!("{form}: the sound file is not read"));
        assert!(seen >= pages - 5, "{form}: {seen} pages of {pages}");
        let (mut refused, mut partial) = (0, 0);
        for seed in 1..=files {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut file = sound.clone();
            if seed % 4 == 0 {
                file.truncate(random.below(sound.len() as u64) as usize);
            }
            // Most of a core is pages; its head is where a bit does harm.
            for _ in 0..1 + random.below(12) {
                let most = if random.below(3) == 0 {
                    file.len()
                } else {
                    file.len().min(20_000)
                };
                if most > 0 {
                    let at = random.below(most as u64) as usize;
                    file[at] ^= 1 << random.below(8);
                }
            }
            match look_at(&file) {
                Some(_) => partial += 1,
                None => refused += 1,
            }
        }
        assert!(refused > 0 && partial > 0, "{form}: {refused} refused, {partial} read");
    }
}
