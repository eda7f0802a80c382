use super::*;
use crate::dump::test_source::{TestSource, file_of, whole_file};
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
