use netdump::{Extents, Seqno};

use super::*;

const AT_HERALD: ResumePoint = ResumePoint {
    start: Seqno(2),
    largest_len: 0,
    origin: None,
    start_is_certain: false,
    is_pairing: true,
};

fn head() -> SessionHead {
    SessionHead {
        id: "0192f0c1-1111-7abc-8def-000000000000".to_owned(),
        client_addr: "127.0.0.1:20024".to_owned(),
        server_addr: "127.0.0.1:20023".to_owned(),
        session_addr: "127.0.0.1:41999".to_owned(),
        herald_label: None,
        started_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn ranges(extents: &Extents) -> Vec<(u64, u64)> {
    extents.iter().map(|range| (range.start, range.end)).collect()
}

#[test]
fn what_was_recorded_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.journal");
    let mut journal = Journal::create(&path, &head(), AT_HERALD).unwrap();
    journal.received(0, 4096).unwrap();
    journal.received(4096, 4096).unwrap();
    journal.received(1 << 20, 100).unwrap();
    journal.kernel_header(0, 500).unwrap();
    journal.kernel_header(500, 12).unwrap();
    journal.key(0, 4096).unwrap();
    let seen = look(&path).unwrap();
    assert_eq!(seen.head, head());
    assert_eq!(ranges(&seen.received), [(0, 8192), (1 << 20, (1 << 20) + 100)]);
    assert_eq!(ranges(&seen.kernel_header), [(0, 512)]);
    assert_eq!(ranges(&seen.key), [(0, 4096)]);
    assert!(seen.is_same_boot && seen.point == AT_HERALD && seen.displaced.is_none());
}

#[test]
fn the_last_place_of_the_sender_is_read_back_and_a_journal_taken_over_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.journal");
    let mut journal = Journal::create(&path, &head(), AT_HERALD).unwrap();
    let point = |start, origin| ResumePoint {
        start: Seqno(start),
        largest_len: 1448,
        origin,
        start_is_certain: true,
        is_pairing: true,
    };
    journal.received(0, 10).unwrap();
    journal.point(point(5, Some(4096))).unwrap();
    journal.point(point(u32::MAX, None)).unwrap();
    journal.forgotten(1 << 30, 4096).unwrap();
    drop(journal);
    let (recovered, mut journal) = take_over(&path).unwrap().unwrap();
    assert_eq!(recovered.point, point(u32::MAX, None));
    assert_eq!(recovered.displaced.map(|page| page.offset), Some(1 << 30));
    journal.received(10, 10).unwrap();
    journal.point(point(7, Some(0))).unwrap();
    let seen = look(&path).unwrap();
    assert_eq!((ranges(&seen.received), seen.point), (vec![(0, 20)], point(7, Some(0))));
}

#[test]
fn records_never_cross_a_page() {
    for label_len in 0..100 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.journal");
        let head = SessionHead {
            herald_label: Some("x".repeat(label_len)),
            ..head()
        };
        let journal = Journal::create(&path, &head, AT_HERALD).unwrap();
        assert_eq!((journal.point_at % RECORD_BYTES, 4096 % RECORD_BYTES), (0, 0));
        assert_eq!(look(&path).unwrap().head, head);
    }
}

#[test]
fn a_record_that_continues_the_last_one_takes_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.journal");
    let mut journal = Journal::create(&path, &head(), AT_HERALD).unwrap();
    let before = journal.end;
    for packet in 0..1000 {
        journal.received(packet * 1448, 1448).unwrap();
    }
    assert_eq!(journal.end, before + RECORD_BYTES);
}

#[test]
fn a_torn_tail_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.journal");
    let mut journal = Journal::create(&path, &head(), AT_HERALD).unwrap();
    journal.received(0, 10).unwrap();
    journal.received(100, 10).unwrap();
    journal.file.write_all_at(&[0xff; 40], journal.end - 16).unwrap();
    assert_eq!(ranges(&look(&path).unwrap().received), [(0, 10)]);
}

#[test]
fn after_another_boot_only_synced_ranges_count() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.journal");
    let mut journal = Journal::create(&path, &head(), AT_HERALD).unwrap();
    journal.received(0, 10).unwrap();
    let mark = journal.mark();
    journal.received(10, 10).unwrap();
    journal.synced(mark).unwrap();
    drop(journal);
    assert_eq!(ranges(&look(&path).unwrap().received), [(0, 20)]);
    let text = std::fs::read(&path).unwrap();
    let own = boot_id();
    let at = text
        .windows(own.len())
        .position(|window| window == own.as_bytes())
        .unwrap();
    let mut other = text.clone();
    other[at] = if other[at] == b'0' { b'1' } else { b'0' };
    std::fs::write(&path, other).unwrap();
    assert_eq!(ranges(&look(&path).unwrap().received), [(0, 10)]);
}

#[test]
fn a_live_session_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.journal");
    let journal = Journal::create(&path, &head(), AT_HERALD).unwrap();
    assert!(is_live(&path).unwrap());
    assert!(take_over(&path).unwrap().is_none());
    drop(journal);
    assert!(!is_live(&path).unwrap());
    assert!(take_over(&path).unwrap().is_some());
}
