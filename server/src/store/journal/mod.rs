//! The journal of a session: who sends, and which ranges storage has taken.
//!
//! A line of JSON, filled up with spaces, then records of 32 bytes, big endian: kind, check, and three numbers. The first
//! record says where the sender is in its bursts and is written over; the others are appended. A record is written before
//! the bytes that it names are acknowledged, so that acknowledged bytes survive the end of the receiver's process. `SYNC`
//! records mean that everything before them reached the disk; after a restart of the host only ranges before the last
//! of them count, because the others may name bytes that were still in memory.
//!
//! Records never cross a page, so that one which is being written when the process is killed is there whole or not at all.

mod read;
mod record;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use netdump::ResumePoint;
use rustix::fs::{FallocateFlags, FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::layout;
use record::{
    KIND_FORGOTTEN, KIND_KERNEL_HEADER, KIND_KEY, KIND_RECEIVED, KIND_SYNC, RECORD_BYTES, RECORD_LEN, point_record,
    record,
};

#[cfg(feature = "fuzz")]
pub(crate) use read::parse;
pub(crate) use read::{Recovered, is_live, look, take_over};

/// Space set aside for a journal: some thousand records.
const SET_ASIDE_BYTES: u64 = 64 * 1024;
/// Where Linux says which boot this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

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
