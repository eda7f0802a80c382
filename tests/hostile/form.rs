//! A file with a core in it: its pages that are not zero, and the places in it that a reader goes by.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use vmcore::elf::{HeaderInput, Layout};
use vmcore::kdump::KdumpHeader;
use vmcore::reader::CoreHead;
use vmcore::trailer::{Pages, TrailerBuilder};
use vmcore::{CoreferryNote, PAGE_LEN, VcpuStop};

use crate::kernel::{Kernel, MEMORY};
use crate::{elf, freebsd, store};

const PAGE: usize = 4096;
/// A flattened file's head, and where its records begin (makedumpfile, `MAX_SIZE_MDF_HEADER`).
const FLAT_HEAD: u64 = 4096;

/// A sound core.
pub(crate) struct Form {
    pub(crate) name: &'static str,
    /// What it is to the store.
    pub(crate) format: &'static str,
    pub(crate) len: u64,
    /// Offset and bytes of each page that is not all zero.
    pages: Vec<(u64, Vec<u8>)>,
    /// What readers go by, with its place in the file.
    pub(crate) places: Vec<(&'static str, Range<u64>)>,
}

impl Form {
    fn new(name: &'static str, format: &'static str, bytes: &[u8]) -> Self {
        let pages = (0..).step_by(PAGE).zip(bytes.chunks(PAGE));
        let is_used = |page: &[u8]| page.iter().any(|byte| *byte != 0);
        let used = pages.filter(|(_, page)| is_used(page));
        Self {
            name,
            format,
            len: bytes.len() as u64,
            pages: used.map(|(at, page)| (at, page.to_vec())).collect(),
            places: Vec::new(),
        }
    }

    /// Writes the core; what is not written stays a hole.
    pub(crate) fn write(&self, path: &Path) -> io::Result<File> {
        let file = store::fresh(path)?;
        file.set_len(self.len)?;
        for (at, page) in &self.pages {
            file.write_all_at(page, *at)?;
        }
        Ok(file)
    }

    /// Our own layout. Without VMCOREINFO among its notes it has to be searched for.
    pub(crate) fn elf(name: &'static str, kernel: &Kernel, has_vmcoreinfo: bool) -> Self {
        let layout = Layout::new(&MEMORY, 1).expect("a layout");
        let note = CoreferryNote {
            dump_id: "0193b0c5-7a1e-7000-8000-000000000001".into(),
            triggered_at: Some("2026-01-31T12:00:10Z".into()),
            vcpus: vec![VcpuStop {
                index: 0,
                state: "reported".into(),
            }],
            ..CoreferryNote::default()
        };
        let input = HeaderInput {
            cpus: std::slice::from_ref(&kernel.cpu),
            vmcoreinfo: has_vmcoreinfo.then_some(kernel.vmcoreinfo.as_bytes()),
            coreferry: &note,
            text: None,
        };
        let header = layout.header(&input).expect("a header");
        let mut file = header.clone();
        file.resize(usize::try_from(layout.memory_end()).expect("it is small"), 0);
        let mut trailer = TrailerBuilder::new(&layout);
        for range in MEMORY {
            let at = layout.file_offset_of(range.gpa).expect("it is RAM");
            for page in (0..range.len_bytes).step_by(PAGE) {
                let place = |start: u64| {
                    let start = usize::try_from(start + page).expect("it is small");
                    start..start + PAGE
                };
                let bytes = &kernel.memory[place(range.gpa)];
                let state = match bytes {
                    _ if page / PAGE_LEN % 512 == 300 => Pages::Excluded(PAGE_LEN),
                    zero if vmcore::is_zero(zero) => Pages::Zero(PAGE_LEN),
                    stored => Pages::Stored(stored),
                };
                trailer.pages(at + page, state).expect("the trailer takes a page");
                file[place(at)].copy_from_slice(bytes);
            }
        }
        trailer.header(&header).expect("the trailer takes the header");
        let memory_end = file.len() as u64;
        file.extend(trailer.finish().expect("a trailer"));
        let mut form = Self::new(name, "elf", &file);
        let head = CoreHead::parse(&file).expect("a head");
        let notes = head.notes.expect("it has notes");
        form.places = vec![
            ("ELF header", 0..64),
            ("program headers", 64..notes.file_offset),
            ("notes", notes.file_offset..notes.file_offset + notes.len_bytes),
            ("trailer", memory_end..form.len),
        ];
        form.text_places(&file);
        for (name, place) in &kernel.places {
            let start = layout.file_offset_of(place.start).expect("it is RAM");
            form.places.push((name, start..start + (place.end - place.start)));
        }
        form
    }

    /// What `cores export` made.
    pub(crate) fn kdump(name: &'static str, bytes: &[u8]) -> Self {
        let mut form = Self::new(name, "kdump", bytes);
        if bytes.starts_with(b"makedumpfile") {
            form.places = vec![("head", 0..48), ("flattened bytes", FLAT_HEAD..form.len)];
            let mut at = FLAT_HEAD;
            while let Some(len) = record_len(bytes, at).filter(|_| form.places.len() < 10) {
                form.places.push(("flattened record", at..at + 16));
                at += 16 + len;
            }
            return form;
        }
        let header = KdumpHeader::parse(bytes).expect("a header");
        let bitmaps = (1 + u64::from(header.sub_header_blocks)) * PAGE_LEN;
        let descriptors = bitmaps + u64::from(header.bitmap_blocks) * PAGE_LEN;
        form.places = vec![
            ("header", 0..512),
            ("sub-header", PAGE_LEN..PAGE_LEN + 104),
            ("notes", header.notes.0..header.notes.0 + header.notes.1),
            ("bitmaps", bitmaps..bitmaps + 1024),
            (
                "second bitmap",
                (bitmaps + descriptors) / 2..(bitmaps + descriptors) / 2 + 1024,
            ),
            ("descriptors", descriptors..descriptors + 2048),
            ("all descriptors and pages", descriptors..form.len),
        ];
        form.text_places(bytes);
        form
    }

    /// FreeBSD's minidump of some version, with all pages of [`freebsd::memory`] but each 64th.
    pub(crate) fn minidump(name: &'static str, version: u32) -> Self {
        let (memory, structure, text) = freebsd::memory();
        // Version 3 tells where RAM is, earlier ones begin at zero.
        let ranges = if version == 3 { 32_u32 } else { 0 };
        let bitmap_len = u32::try_from(memory.len() / PAGE / 8).expect("it is small");
        let mut file = b"minidump FreeBSD/amd64\0\0".to_vec();
        for value in [version, 8192, bitmap_len, 4096] {
            file.extend(value.to_le_bytes());
        }
        for value in [0xffff_ffff_8000_0000_u64, 0xffff_f800_0000_0000, 0xffff_f880_0000_0000] {
            file.extend(value.to_le_bytes());
        }
        file.extend(ranges.to_le_bytes());
        file.resize(PAGE, 0);
        file.extend(vec![b'm'; 8192]);
        let ranges_at = file.len();
        if version == 3 {
            for value in [0, memory.len() as u64, 0, 0] {
                file.extend(value.to_le_bytes());
            }
            file.resize(ranges_at + PAGE, 0);
        }
        let bitmap = file.len();
        file.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f].repeat(memory.len() / PAGE / 64));
        file.resize(bitmap + PAGE, 0);
        let tables = file.len();
        file.resize(tables + PAGE, 0);
        file[tables..tables + 8].copy_from_slice(&0x2003_u64.to_le_bytes());
        let pages_at = file.len();
        let pages = memory.chunks(PAGE).enumerate();
        file.extend(pages.filter(|(frame, _)| frame % 64 != 63).flat_map(|(_, page)| page));
        let mut form = Self::new(name, "minidump", &file);
        let place = |at: usize, len: usize| at as u64..(at + len) as u64;
        form.places = vec![
            ("header", 0..72),
            ("version and lengths", 24..40),
            ("ranges", place(ranges_at, 32)),
            ("bitmap", place(bitmap, 32)),
            ("page tables", place(tables, 64)),
            // One page before them is not in the file.
            ("message buffer", place(pages_at + structure - PAGE, 32)),
            ("messages", place(pages_at + text.start, text.len())),
        ];
        form
    }

    /// FreeBSD's full dump: an ELF core without notes, with a message buffer in its memory.
    pub(crate) fn freebsd(name: &'static str) -> Self {
        let (memory, structure, text) = freebsd::memory();
        let len = memory.len() as u64;
        let mut file = elf::head(&[(0, len, len)], &[]);
        file.extend(memory);
        let mut form = Self::new(name, "elf", &file);
        let place = |at: usize, len: usize| (PAGE + at) as u64..(PAGE + at + len) as u64;
        form.places = vec![
            ("ELF header and program headers", 0..176),
            ("message buffer", place(structure, 32)),
            ("messages", place(text.start, text.len())),
        ];
        form
    }

    /// The texts among the notes.
    fn text_places(&mut self, bytes: &[u8]) {
        let start = &bytes[..bytes.len().min(1 << 20)];
        for (name, begins, len) in [
            ("VMCOREINFO", &b"OSRELEASE="[..], 2600),
            ("COREFERRY", b"{\"schema_version\"", 300),
        ] {
            if let Some(at) = start.windows(begins.len()).position(|window| window == begins) {
                self.places.push((name, at as u64..at as u64 + len));
            }
        }
    }
}

/// The length of the flattened record at `at`, if there is one.
fn record_len(bytes: &[u8], at: u64) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let word = |at: usize| Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let offset = word(at)?;
    let len = word(at + 8)?;
    (offset >= 0).then_some(())?;
    u64::try_from(len).ok()
}
