//! The trailer: built while pages go by, read back, and read when hostile.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests; sizes chosen here

mod common;

use common::{note, ranges};
use proptest::prelude::*;
use vmcore::elf::{HeaderInput, Layout};
use vmcore::limits::{CHUNK_LEN, HEADER_ROOM_LEN, PAGE_LEN};
use vmcore::trailer::{
    ChunkDigester, ChunkMismatch, FOOTER_LEN, Footer, PageState, Pages, Trailer, TrailerBuildError, TrailerBuilder,
    TrailerError,
};
use vmcore::{MemoryRange, is_zero};

const PAGE: usize = 4096;

fn layout(pages: u64) -> Layout {
    Layout::new(
        &[MemoryRange {
            gpa: 0,
            len_bytes: pages * PAGE_LEN,
        }],
        1,
    )
    .unwrap()
}

/// A whole file whose memory page `i` has the state `states(i)`.
fn file(layout: &Layout, states: impl Fn(u64) -> PageState) -> Vec<u8> {
    let header = layout
        .header(&HeaderInput {
            cpus: &[],
            vmcoreinfo: None,
            coreferry: &note(),
            text: None,
        })
        .unwrap();
    let mut file = header.clone();
    file.resize(layout.memory_end() as usize, 0);
    let mut builder = TrailerBuilder::new(layout);
    let pages = (layout.memory_end() - HEADER_ROOM_LEN) / PAGE_LEN;
    for page in 0..pages {
        let offset = HEADER_ROOM_LEN + page * PAGE_LEN;
        match states(page) {
            PageState::Stored => {
                let bytes = &mut file[offset as usize..][..PAGE];
                bytes.fill(page as u8 | 1);
                builder.pages(offset, Pages::Stored(bytes)).unwrap();
            }
            PageState::Zero => builder.pages(offset, Pages::Zero(PAGE_LEN)).unwrap(),
            PageState::Excluded => builder.pages(offset, Pages::Excluded(PAGE_LEN)).unwrap(),
        }
    }
    builder.header(&header).unwrap();
    file.extend(builder.finish().unwrap());
    file
}

fn some_state(page: u64) -> PageState {
    match page * 7 % 11 {
        0..5 => PageState::Stored,
        5..9 => PageState::Zero,
        _ => PageState::Excluded,
    }
}

fn parse(file: &[u8]) -> Result<(Footer, Trailer<'_>), TrailerError> {
    let footer = Footer::parse(file)?;
    let trailer = Trailer::parse(&footer, &file[footer.trailer_offset as usize..])?;
    Ok((footer, trailer))
}

#[test]
fn a_file_proves_itself_chunk_by_chunk() {
    let layout = layout(700);
    let file = file(&layout, some_state);
    assert_eq!(file.len() as u64, layout.file_len(), "the length was known before");
    let (footer, trailer) = parse(&file).unwrap();
    assert_eq!(footer.file_len, file.len() as u64);
    assert_eq!(trailer.covered_len(), layout.memory_end());
    assert_eq!(trailer.chunks().count(), 1 + 3);
    for chunk in trailer.chunks() {
        let bytes = &file[chunk.file_offset as usize..][..chunk.len_bytes as usize];
        assert_eq!(chunk.record.verify(bytes), Ok(()), "chunk {}", chunk.index);
    }
    for page in 0..700 {
        assert_eq!(
            trailer.state_at(HEADER_ROOM_LEN + page * PAGE_LEN),
            Some(some_state(page))
        );
    }
    assert_eq!(trailer.state_at(layout.memory_end()), None);
    assert_eq!(
        trailer.state_at(0),
        Some(PageState::Stored),
        "the header room is covered"
    );
    assert_eq!(trailer.state_at(HEADER_ROOM_LEN - 1), Some(PageState::Zero));
    let sum = trailer.stored_pages() + trailer.zero_pages() + trailer.excluded_pages();
    assert_eq!(sum * PAGE_LEN, trailer.covered_len());
}

#[test]
fn no_page_of_a_trailer_is_zero() {
    for pages in [1, 256, 10_000, 1 << 20] {
        let layout = layout(pages);
        let mut builder = TrailerBuilder::new(&layout);
        builder.pages(0, Pages::Zero(layout.memory_end())).unwrap();
        let trailer = builder.finish().unwrap();
        assert_eq!(trailer.len() % PAGE, 0);
        assert_eq!(layout.memory_end() + trailer.len() as u64, layout.file_len());
        assert!(trailer.chunks(PAGE).all(|page| !is_zero(page)));
    }
}

#[test]
fn a_gib_costs_98304_bytes_of_trailer() {
    let len = |gib: u64| layout(gib << 18).file_len() - layout(gib << 18).memory_end();
    assert_eq!(
        len(1),
        102_400,
        "96 bytes a MiB, header room, header and footer, rounded to pages"
    );
    assert_eq!(len(64) - len(32), 32 * 98_304);
}

#[test]
fn every_changed_byte_of_the_memory_is_found() {
    let layout = layout(300);
    let file = file(&layout, some_state);
    let (_, trailer) = parse(&file).unwrap();
    let chunk = trailer.chunk(1).unwrap();
    for page in 0..256 {
        let mut bytes = file[chunk.file_offset as usize..][..CHUNK_LEN as usize].to_vec();
        bytes[page * PAGE + 77] ^= 0x20;
        let error = chunk.record.verify(&bytes).unwrap_err();
        match some_state(page as u64) {
            PageState::Stored => assert!(matches!(error, ChunkMismatch::Digest { .. })),
            state => assert_eq!(error, ChunkMismatch::NotAHole { page, state }),
        }
    }
    let short = &file[chunk.file_offset as usize..][..10 * PAGE];
    assert!(matches!(
        chunk.record.verify(short),
        Err(ChunkMismatch::TooShort { .. })
    ));
}

#[test]
fn every_changed_or_missing_byte_of_the_trailer_is_found() {
    let layout = layout(300);
    let file = file(&layout, some_state);
    let body = layout.memory_end() as usize;
    let footer_at = file.len() - FOOTER_LEN;
    let body_len = Footer::parse(&file).unwrap().body_len as usize;
    for at in (body..body + body_len).step_by(13).chain(footer_at..file.len()) {
        let mut changed = file.clone();
        changed[at] ^= 1;
        let error = parse(&changed).unwrap_err();
        match at {
            at if at < footer_at => assert_eq!(error, TrailerError::BodyDamaged),
            at if at < footer_at + 8 => assert_eq!(error, TrailerError::NotFound),
            _ => assert_eq!(error, TrailerError::FooterDamaged, "byte {}", at - footer_at),
        }
    }
    assert_eq!(Footer::parse(&file[..file.len() - 1]), Err(TrailerError::NotFound));
    assert_eq!(Footer::parse(&[]), Err(TrailerError::NotFound));
    let footer = Footer::parse(&file).unwrap();
    assert!(matches!(
        Trailer::parse(&footer, &file[body..body + 70]),
        Err(TrailerError::BodyTooShort { .. })
    ));
}

/// A footer with a right digest, as an attacker would make it.
fn forged_footer(file_len: u64, trailer_offset: u64, trailer_len: u64, body_len: u64, body: &[u8]) -> Vec<u8> {
    let mut footer = b"CFERRYFT\x01\0\0\0\x80\0\0\0".to_vec();
    for value in [file_len, trailer_offset, trailer_len, body_len] {
        footer.extend(value.to_le_bytes());
    }
    footer.extend(blake3::hash(body).as_bytes());
    footer.resize(96, 0);
    let digest = blake3::hash(&footer);
    footer.extend(digest.as_bytes());
    footer
}

#[test]
fn forged_lengths_are_impossible() {
    let layout = layout(300);
    let file = file(&layout, some_state);
    let good = Footer::parse(&file).unwrap();
    let body = &file[good.trailer_offset as usize..][..good.body_len as usize];
    let forge = |file_len, trailer_offset, trailer_len, body_len| {
        Footer::parse(&forged_footer(file_len, trailer_offset, trailer_len, body_len, body))
    };
    assert_eq!(
        forge(good.file_len, good.trailer_offset, good.trailer_len, good.body_len),
        Ok(good.clone())
    );
    for (file_len, offset, trailer_len, body_len) in [
        (
            good.file_len + 4096,
            good.trailer_offset,
            good.trailer_len,
            good.body_len,
        ),
        (good.file_len, good.trailer_offset + 1, good.trailer_len, good.body_len),
        (
            good.file_len,
            good.trailer_offset,
            good.trailer_len + 4096,
            good.body_len,
        ),
        (good.file_len, good.trailer_offset, good.trailer_len, good.body_len + 96),
        (u64::MAX, u64::MAX - 4095, 4096, u64::MAX),
        (4096, 0, 4096, 64),
    ] {
        let result = forge(file_len, offset, trailer_len, body_len);
        assert!(matches!(result, Err(TrailerError::Impossible { .. })), "{result:?}");
    }
}

#[test]
fn forged_bodies_are_refused() {
    let layout = layout(300);
    let file = file(&layout, some_state);
    let good = Footer::parse(&file).unwrap();
    let body = &file[good.trailer_offset as usize..][..good.body_len as usize];
    let with_change = |at: usize, byte: u8| {
        let mut body = body.to_vec();
        body[at] = byte;
        let forged = forged_footer(
            good.file_len,
            good.trailer_offset,
            good.trailer_len,
            good.body_len,
            &body,
        );
        let footer = Footer::parse(&forged).unwrap();
        Trailer::parse(&footer, &body).map(|_| ()).unwrap_err()
    };
    for at in [0, 8, 12, 16, 20, 24, 32, 40, 48, 56] {
        assert_eq!(
            with_change(at, !body[at]),
            TrailerError::HeaderMismatch,
            "header byte {at}"
        );
    }
    let (record, stored, excluded) = (64 + 96, 0, 32);
    let both = body[record + stored] | body[record + excluded];
    assert_eq!(
        with_change(record + excluded, both | 1),
        TrailerError::BadRecord { index: 1 },
        "stored and excluded"
    );
    let last = 64 + 96 * 2;
    assert_eq!(
        with_change(last + 31, 0x80),
        TrailerError::BadRecord { index: 2 },
        "beyond the end of memory"
    );
    assert_eq!(
        with_change(record, body[record] ^ 2),
        TrailerError::HeaderMismatch,
        "counts differ"
    );
}

#[test]
fn the_builder_wants_every_page_once_and_in_order() {
    let layout = layout(300);
    let memory_len = layout.memory_end() - HEADER_ROOM_LEN;
    let mut builder = TrailerBuilder::new(&layout);
    let end = layout.memory_end();
    assert!(matches!(
        builder.pages(1, Pages::Zero(4096)),
        Err(TrailerBuildError::BadRun { .. })
    ));
    assert!(matches!(
        builder.pages(0, Pages::Stored(&[1; 100])),
        Err(TrailerBuildError::BadRun { .. })
    ));
    assert!(matches!(
        builder.pages(end, Pages::Zero(4096)),
        Err(TrailerBuildError::BadRun { .. })
    ));
    assert!(matches!(
        builder.pages(u64::MAX - 4095, Pages::Zero(8192)),
        Err(TrailerBuildError::BadRun { .. })
    ));
    assert!(matches!(
        builder.pages(4096, Pages::Zero(4096)),
        Err(TrailerBuildError::OutOfOrder { expected: 0, .. })
    ));
    builder.pages(HEADER_ROOM_LEN, Pages::Zero(4096)).unwrap();
    let other = builder.pages(0, Pages::Zero(4096));
    assert!(
        matches!(other, Err(TrailerBuildError::OutOfOrder { .. })),
        "the chunk is not done"
    );
    builder
        .pages(HEADER_ROOM_LEN + 4096, Pages::Excluded(memory_len - 4096))
        .unwrap();
    let again = builder.pages(HEADER_ROOM_LEN, Pages::Zero(memory_len));
    assert!(
        matches!(again, Err(TrailerBuildError::BadChunk { index: 1, .. })),
        "{again:?}"
    );
    assert!(matches!(
        builder.set_chunk(9, ChunkDigester::new().finish()),
        Err(TrailerBuildError::BadChunk { .. })
    ));
    assert_eq!(builder.finish(), Err(TrailerBuildError::Missing { index: 0 }));
    let mut unfinished = TrailerBuilder::new(&layout);
    unfinished.pages(0, Pages::Zero(4096)).unwrap();
    assert_eq!(unfinished.finish(), Err(TrailerBuildError::Missing { index: 0 }));
    let too_long = TrailerBuilder::new(&layout).header(&vec![1; HEADER_ROOM_LEN as usize + 1]);
    assert!(matches!(too_long, Err(TrailerBuildError::HeaderTooLong { .. })));
}

fn state() -> impl Strategy<Value = PageState> {
    prop_oneof![
        Just(PageState::Stored),
        Just(PageState::Zero),
        Just(PageState::Excluded)
    ]
}

#[test]
fn a_body_shorter_than_its_header_is_an_error() {
    for len in 0..100 {
        let body = vec![0; len];
        let footer = Footer {
            file_len: 0,
            trailer_offset: 0,
            trailer_len: 0,
            body_len: len as u64,
            body_digest: blake3::hash(&body),
        };
        assert!(Trailer::parse(&footer, &body).is_err(), "{len} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn runs_tile_the_file_and_match_the_states(ranges in ranges(4), runs in prop::collection::vec((state(), 1u64..400), 1..12)) {
        let layout = Layout::new(&ranges, 1).unwrap();
        let states: Vec<_> = runs.iter().flat_map(|(state, len)| std::iter::repeat_n(*state, *len as usize)).collect();
        let state_of = |page: u64| states[page as usize % states.len()];
        let file = file(&layout, state_of);
        let (_, trailer) = parse(&file).unwrap();
        let mut at = 0;
        let mut previous = None;
        for (range, state) in trailer.runs() {
            prop_assert_eq!(range.start, at);
            prop_assert!(range.end > range.start && previous != Some(state), "longest runs only");
            for offset in range.clone().step_by(PAGE).filter(|&offset| offset >= HEADER_ROOM_LEN) {
                prop_assert_eq!(state, state_of((offset - HEADER_ROOM_LEN) / PAGE_LEN));
            }
            (at, previous) = (range.end, Some(state));
        }
        prop_assert_eq!(at, layout.memory_end());
        prop_assert!(trailer.declared().all(|(_, state)| state != PageState::Stored));
    }

    #[test]
    fn chunk_order_and_run_lengths_do_not_matter(pages in 1u64..700, cut in 1u64..300, seed in any::<u8>()) {
        let layout = layout(pages);
        let memory: Vec<u8> = (0..pages as usize * PAGE).map(|i| ((i / PAGE) as u8 ^ seed) | 1).collect();
        let mut whole = TrailerBuilder::new(&layout);
        whole.pages(0, Pages::Zero(HEADER_ROOM_LEN)).unwrap();
        whole.pages(HEADER_ROOM_LEN, Pages::Stored(&memory)).unwrap();
        let whole = whole.finish().unwrap();

        let mut cut_up = TrailerBuilder::new(&layout);
        for (index, part) in memory.chunks(cut as usize * PAGE).enumerate() {
            cut_up.pages(HEADER_ROOM_LEN + index as u64 * cut * PAGE_LEN, Pages::Stored(part)).unwrap();
        }
        cut_up.pages(0, Pages::Zero(HEADER_ROOM_LEN)).unwrap();
        prop_assert_eq!(cut_up.finish().unwrap(), whole.clone());

        let mut by_chunk = TrailerBuilder::new(&layout);
        for (index, part) in memory.chunks(CHUNK_LEN as usize).enumerate().rev() {
            let mut digester = ChunkDigester::new();
            digester.stored(part);
            by_chunk.set_chunk(1 + index as u64, digester.finish()).unwrap();
        }
        by_chunk.pages(0, Pages::Zero(HEADER_ROOM_LEN)).unwrap();
        prop_assert_eq!(by_chunk.finish().unwrap(), whole);
    }

    #[test]
    fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), lengths in any::<[u64; 4]>()) {
        let _ = Footer::parse(&bytes);
        let [file_len, offset, trailer_len, body_len] = lengths;
        if let Ok(footer) = Footer::parse(&forged_footer(file_len, offset, trailer_len, body_len, &bytes)) {
            let _ = Trailer::parse(&footer, &bytes).map(|trailer| trailer.runs().count());
        }
    }
}
