//! The journal of a session: who sends, and which ranges storage has taken.
//!
//! A line of JSON, filled up with spaces, then records of 32 bytes, big endian: kind, check, and three numbers. The first
//! record says where the sender is in its bursts and is written over; the others are appended. A record is written before
//! the bytes that it names are acknowledged, so that acknowledged bytes survive the end of the receiver's process. `SYNC`
//! records mean that everything before them reached the disk; after a restart of the host only ranges before the last
//! of them count, because the others may name bytes that were still in memory.
//!
//! Records never cross a page, so that one which is being written when the process is killed is there whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use netdump::{DisplacedPage, Extents, ResumePoint, Seqno};
use rustix::fs::{FallocateFlags, FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::layout;
use super::spool::without;
use crate::limits::{EXTENTS_MAX, JOURNAL_BYTES_MAX, SMALL_EXTENTS_MAX};

/// What is known of a session when its first bytes come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionHead {
    /// Id of the session, and of the core that will be made of it.
    pub id: String,
    /// `ADDRESS:PORT` of the sender.
    pub client_addr: String,
    /// `ADDRESS:PORT` that the sender dialled.
    pub server_addr: String,
    /// `ADDRESS:PORT` that the session is on; a receiver that takes it over binds it again.
    pub session_addr: String,
    /// The herald's path, escaped; a label only.
    pub herald_label: Option<String>,
    /// When the session began. RFC 3339, UTC.
    pub started_at: String,
}

/// The first line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct FirstLine {
    #[serde(flatten)]
    head: SessionHead,
    boot_id: String,
}

/// `kind` of a record that names received bytes.
const KIND_RECEIVED: u32 = 0x5256_4431;
/// `kind` of a record that takes received bytes back.
const KIND_FORGOTTEN: u32 = 0x4647_5431;
/// `kind` of a record that says everything before it is on the disk.
const KIND_SYNC: u32 = 0x5359_4e31;
/// `kind` of a record that names received bytes of the kernel dump header.
const KIND_KERNEL_HEADER: u32 = 0x4b44_4831;
/// `kind` of a record that names received bytes of the key.
const KIND_KEY: u32 = 0x4b45_5931;
/// `kind` of the record that says where the sender is in its bursts.
const KIND_POINT: u32 = 0x5054_3131;
/// In that record: the file offset of the burst is not known.
const NO_ORIGIN: u64 = u64::MAX;
/// In that record: acknowledgements are held.
const FLAG_PAIRING: u64 = 1;
/// In that record: the number of the burst's first packet is certain.
const FLAG_CERTAIN: u64 = 2;
/// Space set aside for a journal: some thousand records.
const SET_ASIDE_BYTES: u64 = 64 * 1024;
/// Length of a record; a page is a multiple of it.
const RECORD_LEN: usize = 32;
/// The same in a file.
const RECORD_BYTES: u64 = RECORD_LEN as u64;
/// Where Linux says which boot this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A journal that is being written; holding it locks the session against recovery.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Where the record of the sender's place is.
    point_at: u64,
    /// Where the next record goes.
    end: u64,
    /// The last record, as long as it can still grow.
    last: Option<(u64, u64)>,
    point: ResumePoint,
}

impl Journal {
    /// Starts the journal of a session, whose sender is at `point`.
    pub(crate) fn create(path: &Path, head: &SessionHead, point: ResumePoint) -> io::Result<Self> {
        let file = layout::new_file(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let first = FirstLine {
            head: head.clone(),
            boot_id: boot_id(),
        };
        let mut line = serde_json::to_vec(&first)?;
        line.resize((line.len() + 1).next_multiple_of(RECORD_LEN) - 1, b' ');
        line.push(b'\n');
        let point_at = len_u64(line.len());
        line.extend(point_record(point));
        // So that the first records find space on a full disk; a file system that cannot do this is used without.
        let _ = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, SET_ASIDE_BYTES);
        file.write_all_at(&line, 0)?;
        Ok(Self {
            file,
            point_at,
            end: point_at + RECORD_BYTES,
            last: None,
            point,
        })
    }

    /// The file, to be synced by another thread.
    pub(crate) fn to_sync(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Records where the sender is in its bursts, if that has changed: before the bytes of the burst are written.
    pub(crate) fn point(&mut self, point: ResumePoint) -> io::Result<()> {
        if self.point != point {
            self.file.write_all_at(&point_record(point), self.point_at)?;
            self.point = point;
        }
        Ok(())
    }

    /// Records received bytes. A range that continues the last one only lengthens its record.
    pub(crate) fn received(&mut self, offset: u64, length: u64) -> io::Result<()> {
        if let Some((last_offset, last_length)) = self.last
            && last_offset + last_length == offset
        {
            let length = last_length + length;
            self.file.write_all_at(
                &record(KIND_RECEIVED, [last_offset, length, 0]),
                self.end - RECORD_BYTES,
            )?;
            self.last = Some((last_offset, length));
            return Ok(());
        }
        self.append(KIND_RECEIVED, offset, length)?;
        self.last = Some((offset, length));
        Ok(())
    }

    /// Records received bytes of the kernel dump header.
    pub(crate) fn kernel_header(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.append(KIND_KERNEL_HEADER, offset, length)
    }

    /// Records received bytes of the key.
    pub(crate) fn key(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.append(KIND_KEY, offset, length)
    }

    /// Records that bytes turned out to belong elsewhere.
    pub(crate) fn forgotten(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.append(KIND_FORGOTTEN, offset, length)
    }

    /// Ends the growth of the last record, so that a later [`Journal::synced`] covers what is written so far and no
    /// more. Gives the mark for it.
    pub(crate) fn mark(&mut self) -> u64 {
        self.last = None;
        self.end
    }

    /// Records that everything before `mark` is on the disk.
    pub(crate) fn synced(&mut self, mark: u64) -> io::Result<()> {
        self.append(KIND_SYNC, mark, 0)
    }

    fn append(&mut self, kind: u32, offset: u64, length: u64) -> io::Result<()> {
        self.last = None;
        self.file.write_all_at(&record(kind, [offset, length, 0]), self.end)?;
        self.end += RECORD_BYTES;
        Ok(())
    }
}

/// A journal that was read back.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Who sent.
    pub(crate) head: SessionHead,
    /// The ranges of the file that count.
    pub(crate) received: Extents,
    /// The ranges of the kernel dump header that came.
    pub(crate) kernel_header: Extents,
    /// The ranges of the key that came.
    pub(crate) key: Extents,
    /// The page that was put to offset 0.
    pub(crate) displaced: Option<DisplacedPage>,
    /// Where the sender was in its bursts.
    pub(crate) point: ResumePoint,
    /// Whether the host has run on since: if not, the sender has long given up, and what was not synced may be gone.
    pub(crate) is_same_boot: bool,
}

/// Reads a journal, whoever writes it. A tail that was cut off is ignored.
pub(crate) fn look(path: &Path) -> io::Result<Recovered> {
    let file = File::open(path)?;
    Ok(read(&file)?.0)
}

/// Whether the session of this journal still has its receiver.
pub(crate) fn is_live(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(why) => Err(why.into()),
    }
}

/// Takes over a journal that nobody writes any more; none when somebody does.
pub(crate) fn take_over(path: &Path) -> io::Result<Option<(Recovered, Journal)>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(why) => return Err(why.into()),
    }
    let (recovered, point_at, end) = read(&file)?;
    let journal = Journal {
        file,
        point_at,
        end,
        last: None,
        point: recovered.point,
    };
    Ok(Some((recovered, journal)))
}

/// Reads the whole file; gives also where the first record is and where the next one goes.
fn read(file: &File) -> io::Result<(Recovered, u64, u64)> {
    let mut bytes = Vec::new();
    file.take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&bytes, &boot_id())
}

/// Reads the first line and the records; `boot_id` is this boot's.
pub(crate) fn parse(bytes: &[u8], boot_id: &str) -> io::Result<(Recovered, u64, u64)> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the journal has {why}"));
    let newline = bytes.iter().position(|byte| *byte == b'\n');
    let line_len = newline.ok_or_else(|| invalid("no first line"))? + 1;
    let (line, records) = bytes.split_at(line_len);
    let first: FirstLine = serde_json::from_slice(line)?;
    let mut records = records.chunks_exact(RECORD_LEN).map_while(parse_record);
    let point = records.next().and_then(point_from).ok_or_else(|| invalid("no place"))?;
    let records: Vec<Record> = records.collect();
    let is_same_boot = first.boot_id == boot_id;
    let trusted = if is_same_boot {
        u64::MAX
    } else {
        let marks = records.iter().filter(|record| record.kind == KIND_SYNC);
        marks.map(|record| record.words[0]).max().unwrap_or(0)
    };
    let mut recovered = Recovered {
        head: first.head,
        received: Extents::new(EXTENTS_MAX),
        kernel_header: Extents::new(SMALL_EXTENTS_MAX),
        key: Extents::new(SMALL_EXTENTS_MAX),
        displaced: None,
        point,
        is_same_boot,
    };
    let point_at = len_u64(line_len);
    let mut position = point_at + RECORD_BYTES;
    for Record { kind, words } in records {
        let [offset, length, _] = words;
        let range = offset..offset.saturating_add(length);
        match kind {
            // One range too many is left out: the core then knows of less than arrived, never of more.
            KIND_RECEIVED if position < trusted => drop(recovered.received.insert(range)),
            KIND_KERNEL_HEADER => drop(recovered.kernel_header.insert(range)),
            KIND_KEY => drop(recovered.key.insert(range)),
            KIND_FORGOTTEN => {
                recovered.received = without(&recovered.received, &range);
                recovered.displaced = Some(DisplacedPage {
                    offset,
                    len_bytes: length,
                });
            }
            _ => {}
        }
        position += RECORD_BYTES;
    }
    Ok((recovered, point_at, position))
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    kind: u32,
    words: [u64; 3],
}

/// One record as bytes.
fn record(kind: u32, words: [u64; 3]) -> [u8; RECORD_LEN] {
    let [first, second, third] = words;
    let mut bytes = [0; RECORD_LEN];
    bytes[..4].copy_from_slice(&kind.to_be_bytes());
    bytes[4..8].copy_from_slice(&check(kind, words).to_be_bytes());
    bytes[8..16].copy_from_slice(&first.to_be_bytes());
    bytes[16..24].copy_from_slice(&second.to_be_bytes());
    bytes[24..].copy_from_slice(&third.to_be_bytes());
    bytes
}

/// A record from bytes, if its check holds.
fn parse_record(bytes: &[u8]) -> Option<Record> {
    let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let kind = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let sum = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    let words = [word(8)?, word(16)?, word(24)?];
    (sum == check(kind, words)).then_some(Record { kind, words })
}

/// The record of the sender's place.
fn point_record(point: ResumePoint) -> [u8; RECORD_LEN] {
    let ResumePoint {
        start,
        largest_len,
        origin,
        start_is_certain,
        is_pairing,
    } = point;
    let flags = u64::from(is_pairing) * FLAG_PAIRING + u64::from(start_is_certain) * FLAG_CERTAIN;
    let numbers = u64::from(start.0) << 32 | u64::from(largest_len);
    record(KIND_POINT, [numbers, origin.unwrap_or(NO_ORIGIN), flags])
}

/// The sender's place from its record.
fn point_from(record: Record) -> Option<ResumePoint> {
    let [numbers, origin, flags] = record.words;
    let start = u32::try_from(numbers >> 32).ok()?;
    let largest_len = u32::try_from(numbers & u64::from(u32::MAX)).ok()?;
    (record.kind == KIND_POINT).then_some(ResumePoint {
        start: Seqno(start),
        largest_len,
        origin: Some(origin).filter(|origin| *origin != NO_ORIGIN),
        start_is_certain: flags & FLAG_CERTAIN != 0,
        is_pairing: flags & FLAG_PAIRING != 0,
    })
}

/// A check against records that are none (FNV-1a, 32 bits); it guards against accidents, not against people.
fn check(kind: u32, words: [u64; 3]) -> u32 {
    let words = words.into_iter().flat_map(u64::to_be_bytes);
    let bytes = kind.to_be_bytes().into_iter().chain(words);
    bytes.fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Which boot of the host this is; empty where that is not known.
fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID)
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// A length in memory as a length in a file.
fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
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
}
