//! The journal of a session: who sends, and which ranges storage has taken.
//!
//! A line of JSON, then records of 24 bytes, big endian: kind, check, offset, length. A record is written before the
//! bytes that it names are acknowledged, so that acknowledged bytes survive the end of the receiver's process. `SYNC`
//! records mean that everything before them reached the disk; after a restart of the host only ranges before the last
//! of them count, because the others may name bytes that were still in memory.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use netdump::Extents;
use rustix::fs::{FallocateFlags, FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::layout;
use super::spool::without;
use crate::limits::{EXTENTS_MAX, JOURNAL_BYTES_MAX};

/// What is known of a session when its first bytes come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionHead {
    /// Id of the session, and of the core that will be made of it.
    pub id: String,
    /// `ADDRESS:PORT` of the sender.
    pub client_addr: String,
    /// `ADDRESS:PORT` that the sender dialled.
    pub server_addr: String,
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
/// Space set aside for a journal: some thousand records.
const SET_ASIDE_BYTES: u64 = 64 * 1024;
/// Length of a record.
const RECORD_LEN: u64 = 24;
/// Where Linux says which boot this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A journal that is being written; holding it locks the session against recovery.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Where the next record goes.
    end: u64,
    /// The last record, as long as it can still grow.
    last: Option<(u64, u64)>,
}

impl Journal {
    /// Starts the journal of a session.
    pub(crate) fn create(path: &Path, head: &SessionHead) -> io::Result<Self> {
        let file = layout::new_file(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let first = FirstLine {
            head: head.clone(),
            boot_id: boot_id(),
        };
        let mut line = serde_json::to_vec(&first)?;
        line.push(b'\n');
        // So that the first records find space on a full disk; a file system that cannot do this is used without.
        let _ = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, SET_ASIDE_BYTES);
        file.write_all_at(&line, 0)?;
        Ok(Self {
            file,
            end: len_u64(line.len()),
            last: None,
        })
    }

    /// The file, to be synced by another thread.
    pub(crate) fn to_sync(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Records received bytes. A range that continues the last one only lengthens its record.
    pub(crate) fn received(&mut self, offset: u64, length: u64) -> io::Result<()> {
        if let Some((last_offset, last_length)) = self.last
            && last_offset + last_length == offset
        {
            let length = last_length + length;
            self.file
                .write_all_at(&record(KIND_RECEIVED, last_offset, length), self.end - RECORD_LEN)?;
            self.last = Some((last_offset, length));
            return Ok(());
        }
        self.append(KIND_RECEIVED, offset, length)?;
        self.last = Some((offset, length));
        Ok(())
    }

    /// Records that bytes turned out to belong elsewhere.
    pub(crate) fn forgotten(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.append(KIND_FORGOTTEN, offset, length)?;
        self.last = None;
        Ok(())
    }

    /// Ends the growth of the last record, so that a later [`Journal::synced`] covers what is written so far and no
    /// more. Gives the mark for it.
    pub(crate) fn mark(&mut self) -> u64 {
        self.last = None;
        self.end
    }

    /// Records that everything before `mark` is on the disk.
    pub(crate) fn synced(&mut self, mark: u64) -> io::Result<()> {
        self.append(KIND_SYNC, mark, 0)?;
        self.last = None;
        Ok(())
    }

    fn append(&mut self, kind: u32, offset: u64, length: u64) -> io::Result<()> {
        self.file.write_all_at(&record(kind, offset, length), self.end)?;
        self.end += RECORD_LEN;
        Ok(())
    }
}

/// A journal that was read back.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Who sent.
    pub(crate) head: SessionHead,
    /// The ranges that count.
    pub(crate) received: Extents,
    /// Keeps the session locked; none when it was only looked at.
    pub(crate) lock: Option<File>,
}

/// Reads a journal, whoever writes it. A tail that was cut off is ignored.
pub(crate) fn look(path: &Path) -> io::Result<Recovered> {
    let file = File::open(path)?;
    read(&file)
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
pub(crate) fn take_over(path: &Path) -> io::Result<Option<Recovered>> {
    let file = File::open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(why) => return Err(why.into()),
    }
    let mut recovered = read(&file)?;
    recovered.lock = Some(file);
    Ok(Some(recovered))
}

/// Reads the first line and the records.
fn read(file: &File) -> io::Result<Recovered> {
    let mut bytes = Vec::new();
    file.take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes)?;
    let line_len = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the journal has no first line"))?;
    let (line, records) = bytes.split_at(line_len + 1);
    let first: FirstLine = serde_json::from_slice(line)?;
    let records: Vec<(u32, u64, u64)> = records.chunks_exact(24).map_while(parse_record).collect();
    let same_boot = first.boot_id == boot_id();
    let trusted = if same_boot {
        u64::MAX
    } else {
        let marks = records.iter().filter(|(kind, ..)| *kind == KIND_SYNC);
        marks.map(|(_, mark, _)| *mark).max().unwrap_or(0)
    };
    let mut received = Extents::new(EXTENTS_MAX);
    let mut position = len_u64(line_len + 1);
    for (kind, offset, length) in records {
        if kind == KIND_RECEIVED && position < trusted {
            let range = offset..offset.saturating_add(length);
            // One range too many is left out: the core then knows of less than arrived, never of more.
            let _ = received.insert(range);
        }
        if kind == KIND_FORGOTTEN {
            received = without(&received, &(offset..offset.saturating_add(length)));
        }
        position += RECORD_LEN;
    }
    Ok(Recovered {
        head: first.head,
        received,
        lock: None,
    })
}

/// One record as bytes.
fn record(kind: u32, offset: u64, length: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(&kind.to_be_bytes());
    bytes[4..8].copy_from_slice(&check(kind, offset, length).to_be_bytes());
    bytes[8..16].copy_from_slice(&offset.to_be_bytes());
    bytes[16..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// A record from bytes, if its check holds.
fn parse_record(bytes: &[u8]) -> Option<(u32, u64, u64)> {
    let kind = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let sum = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    let offset = u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
    let length = u64::from_be_bytes(bytes.get(16..24)?.try_into().ok()?);
    (sum == check(kind, offset, length)).then_some((kind, offset, length))
}

/// A check against torn records (FNV-1a, 32 bits); it guards against accidents, not against people.
fn check(kind: u32, offset: u64, length: u64) -> u32 {
    let bytes = kind
        .to_be_bytes()
        .into_iter()
        .chain(offset.to_be_bytes())
        .chain(length.to_be_bytes());
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

    fn head() -> SessionHead {
        SessionHead {
            id: "0192f0c1-1111-7abc-8def-000000000000".to_owned(),
            client_addr: "127.0.0.1:20024".to_owned(),
            server_addr: "127.0.0.1:20023".to_owned(),
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
        let mut journal = Journal::create(&path, &head()).unwrap();
        journal.received(0, 4096).unwrap();
        journal.received(4096, 4096).unwrap();
        journal.received(1 << 20, 100).unwrap();
        let seen = look(&path).unwrap();
        assert_eq!(seen.head, head());
        assert_eq!(ranges(&seen.received), [(0, 8192), (1 << 20, (1 << 20) + 100)]);
    }

    #[test]
    fn a_record_that_continues_the_last_one_takes_no_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.journal");
        let mut journal = Journal::create(&path, &head()).unwrap();
        let before = journal.end;
        for packet in 0..1000 {
            journal.received(packet * 1448, 1448).unwrap();
        }
        assert_eq!(journal.end, before + RECORD_LEN);
    }

    #[test]
    fn a_torn_tail_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.journal");
        let mut journal = Journal::create(&path, &head()).unwrap();
        journal.received(0, 10).unwrap();
        journal.received(100, 10).unwrap();
        journal.file.write_all_at(&[0xff; 20], journal.end - 10).unwrap();
        assert_eq!(ranges(&look(&path).unwrap().received), [(0, 10)]);
    }

    #[test]
    fn after_another_boot_only_synced_ranges_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.journal");
        let mut journal = Journal::create(&path, &head()).unwrap();
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
        let journal = Journal::create(&path, &head()).unwrap();
        assert!(is_live(&path).unwrap());
        assert!(take_over(&path).unwrap().is_none());
        drop(journal);
        assert!(!is_live(&path).unwrap());
        assert!(take_over(&path).unwrap().is_some());
    }
}
