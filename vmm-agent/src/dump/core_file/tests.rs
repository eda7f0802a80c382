use super::*;
use crate::dump::test_source::{TestSource, file_of, whole_file};
use vmcore::dumpfile::DumpFile;
use vmcore::elf::TextMapping;
use vmcore::image::{Absent, FileBytes, PhysicalMemory as _};
use vmcore::kdump::{Decompress, PageCodec};
use vmcore::trailer::{FOOTER_LEN, Footer, PageState, Trailer};

#[test]
fn the_file_holds_the_memory_at_its_offsets_and_proves_itself() {
    let source = TestSource::with_holes();
    let core = CoreFile::plan(&source, &CoreferryNote::default()).unwrap();
    let file = whole_file(&core);
    assert_eq!(file.len() as u64, core.len_bytes());
    for segment in core.layout().segments() {
        let mut memory = vec![0; segment.len_bytes as usize];
        source.read_at(segment.gpa, &mut memory).unwrap();
        let start = segment.file_offset as usize;
        assert!(
            file[start..start + memory.len()] == memory[..],
            "segment at {:#x}",
            segment.gpa
        );
    }
    let footer = Footer::parse(&file[file.len() - FOOTER_LEN..]).unwrap();
    let body = &file[footer.trailer_offset as usize..file.len()];
    let trailer = Trailer::parse(&footer, body).unwrap();
    let declared: u64 = trailer.declared().map(|(range, _)| range.end - range.start).sum();
    assert!(declared > 0);
    for (range, state) in trailer.declared() {
        assert_eq!(state, PageState::Zero);
        assert!(
            file[range.start as usize..range.end as usize]
                .iter()
                .all(|byte| *byte == 0),
            "{range:x?}"
        );
    }
}

#[test]
fn neither_untouched_nor_zero_pages_are_delivered_and_nothing_twice() {
    let source = TestSource::with_holes();
    let core = CoreFile::plan(&source, &CoreferryNote::default()).unwrap();
    let mut pieces = core.pieces().unwrap();
    let mut end = 0;
    while let Some(piece) = pieces.next_piece().unwrap() {
        assert!(piece.file_offset >= end, "{:#x} comes again", piece.file_offset);
        assert!(piece.file_offset.is_multiple_of(PAGE_LEN) && piece.bytes.len().is_multiple_of(PAGE));
        assert!(piece.bytes.len() <= READ_LEN);
        assert!(
            piece.bytes.chunks(PAGE).all(|page| !is_zero(page)),
            "zero page at {:#x}",
            piece.file_offset
        );
        end = piece.file_offset + piece.bytes.len() as u64;
        assert_eq!(pieces.file_position(), end);
    }
    assert_eq!(end, core.len_bytes());
    assert_eq!(pieces.unreadable_bytes(), 0);
    assert!(source.untouched_reads() == 0, "untouched memory was read");
}

#[test]
fn a_second_pass_gives_the_same_file() {
    let source = TestSource::with_holes();
    let core = CoreFile::plan(&source, &CoreferryNote::default()).unwrap();
    assert!(whole_file(&core) == whole_file(&core));
}

#[test]
fn unreadable_memory_is_declared_and_the_rest_still_comes() {
    let mut source = TestSource::with_holes();
    // In the middle of what is read at once: its neighbours are read one by one.
    let bad = 5 * PAGE_LEN;
    source.unreadable_gpa = Some(bad);
    let core = CoreFile::plan(&source, &CoreferryNote::default()).unwrap();
    let (file, unreadable_bytes) = file_of(&core);
    assert_eq!(unreadable_bytes, PAGE_LEN);
    let footer = Footer::parse(&file[file.len() - FOOTER_LEN..]).unwrap();
    let trailer = Trailer::parse(&footer, &file[footer.trailer_offset as usize..]).unwrap();
    let excluded: Vec<_> = trailer
        .declared()
        .filter(|(_, state)| *state == PageState::Excluded)
        .collect();
    let start = core.layout().file_offset_of(bad).unwrap();
    assert_eq!(excluded, [(start..start + PAGE_LEN, PageState::Excluded)]);
    source.unreadable_gpa = None;
    let sound = whole_file(&CoreFile::plan(&source, &CoreferryNote::default()).unwrap());
    let (first, end) = (start as usize - 5 * 4096, start as usize + 11 * 4096);
    assert!(
        file[first..start as usize] == sound[first..start as usize],
        "the pages before it"
    );
    assert!(
        file[start as usize + 4096..end] == sound[start as usize + 4096..end],
        "the pages behind it"
    );
}

struct Bytes(Vec<u8>);

impl FileBytes for Bytes {
    fn len_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let start = file_offset as usize;
        bytes.copy_from_slice(&self.0[start..start + bytes.len()]);
        Ok(())
    }
}

/// An ELF core has no compressed pages.
struct NoCodec;

impl Decompress for NoCodec {
    fn decompress(&self, _: PageCodec, _: &[u8], _: &mut [u8]) -> bool {
        false
    }
}

#[test]
fn memory_that_is_left_out_is_not_read_and_in_no_segment_and_the_rest_is_as_without() {
    let mut source = TestSource::with_holes();
    let high = 4_u64 << 30;
    let run = |gpa: u64, first: u64, end: u64| MemoryRange {
        gpa: gpa + first * PAGE_LEN,
        len_bytes: (end - first) * PAGE_LEN,
    };
    // Within what is read at once, across untouched memory and a boundary of chunks, and in the other range.
    source.excluded = vec![run(0, 3, 5), run(0, 40, 70), run(0, 250, 260), run(high, 7, 8)];
    source.unreadable_gpa = Some(4 * PAGE_LEN);
    source.text = Some(TextMapping {
        va: 0xffff_ffff_8100_0000,
        gpa: 0x2_0000,
        len_bytes: 64 * PAGE_LEN,
    });
    let core = CoreFile::plan(&source, &CoreferryNote::default()).unwrap();
    let (file, unreadable_bytes) = file_of(&core);
    assert_eq!(unreadable_bytes, 0);
    assert_eq!(source.untouched_reads(), 0);
    source.unreadable_gpa = None;

    let opened = DumpFile::open(Bytes(file), NoCodec).unwrap();
    assert_eq!(opened.ranges(), source.ranges(), "what is left out is still memory");
    let is_out = |gpa: u64| source.excluded.iter().any(|run| run.contains(gpa, PAGE_LEN));
    let DumpFile::Elf(image) = &opened else {
        panic!("an ELF core")
    };
    let (mut theirs, mut ours) = (vec![0; PAGE], vec![0; PAGE]);
    for range in source.ranges() {
        for gpa in (range.gpa..range.gpa + range.len_bytes).step_by(PAGE) {
            let in_segment = image
                .head
                .loads
                .iter()
                .any(|load| gpa >= load.gpa && gpa < load.gpa + load.file_len_bytes);
            assert_eq!(opened.is_excluded(gpa), is_out(gpa), "{gpa:#x}");
            assert_eq!(in_segment, !is_out(gpa), "{gpa:#x}");
            assert_eq!(opened.read(gpa, &mut ours).is_ok(), !is_out(gpa), "{gpa:#x}");
            if !is_out(gpa) {
                source.read_at(gpa, &mut theirs).unwrap();
                assert!(ours == theirs, "{gpa:#x}");
            }
        }
    }
    let texts: Vec<_> = image.head.loads.iter().filter(|load| load.va != load.gpa).collect();
    let ends: Vec<_> = texts
        .iter()
        .map(|load| {
            (
                load.va - 0xffff_ffff_8100_0000 + 0x2_0000,
                load.gpa,
                load.gpa + load.file_len_bytes,
            )
        })
        .collect();
    let page = |number: u64| number * PAGE_LEN;
    assert_eq!(ends, [(page(32), page(32), page(40)), (page(70), page(70), page(96))]);
}

#[test]
fn more_holes_than_segments_fit_cost_the_filter_and_not_the_core() {
    let mut source = TestSource::of_len(160 << 20);
    source.excluded = (0..20_000)
        .map(|run| MemoryRange {
            gpa: (1 + 2 * run) * PAGE_LEN,
            len_bytes: PAGE_LEN,
        })
        .collect();
    let core = CoreFile::plan(&source, &CoreferryNote::default()).unwrap();
    assert!(core.excluded.is_empty());
    assert!(core.layout().excluded_runs_max() < 20_000);
    source.excluded.truncate(core.layout().excluded_runs_max());
    let core = CoreFile::plan(&source, &CoreferryNote::default()).unwrap();
    assert!(!core.excluded.is_empty());
}
