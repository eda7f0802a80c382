//! The directory of a running session: bytes go to `vmcore.part`, their ranges to the journal, and only then may they be
//! acknowledged.

mod object;
mod reserve;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use netdump::{Extents, ResumePoint};

use super::chunks::Chunks;
use super::commit::{self, CommitError, Kept, Session};
use super::examine::Ending;
use super::expected::Expected;
use super::facts::Facts;
use super::journal::{Journal, Recovered, SessionHead};
use super::layout;
use super::pacing::Pacing;
use super::write_back::{Synced, WriteBack};
use crate::admission::{self, Account, Short};
use crate::limits::{CHUNK_BYTES, EXTENTS_MAX, RESERVE_BYTES_MIN};
use object::{OBJECT_BYTES, Object};
use reserve::{Reserve, reserve_needed};

/// Why bytes could not be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// A file or directory could not be made or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A limit on space is reached.
    #[error(transparent)]
    Short(#[from] Short),
    /// The received bytes fall into more ranges than are kept.
    #[error("the received bytes fall into more than {EXTENTS_MAX} separate ranges")]
    TooFragmented,
}

impl SpoolError {
    /// Whether there was no room.
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            Self::Short(_) => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::TooFragmented => false,
        }
    }
}

/// A running session's storage.
#[derive(Debug)]
pub(crate) struct Spool {
    root: PathBuf,
    dir: PathBuf,
    head: SessionHead,
    file: Arc<File>,
    journal: Journal,
    chunks: Chunks,
    received: Extents,
    kernel_header: Object,
    key: Object,
    reserve: Reserve,
    write_back: WriteBack,
    pacing: Pacing,
    /// Where the packets of a run are put together.
    gathered: Vec<u8>,
    expected: Expected,
    /// Whether the first page had to be put into its place.
    repaired: bool,
    account: Account,
}

impl Spool {
    /// Makes the session's directory below the store's `root`, if there is space for its records.
    pub(crate) fn create(
        root: &Path,
        head: &SessionHead,
        point: ResumePoint,
        mut account: Account,
    ) -> Result<Self, SpoolError> {
        account.expect(RESERVE_BYTES_MIN + OBJECT_BYTES, admission::space_of(root))?;
        let dir = layout::session_dir(root, &head.id);
        let month = layout::month_dir(root, Timestamp::now());
        layout::make_dirs_below(root, &month).map_err(io_error("make", &month))?;
        layout::make_dir(&dir).map_err(io_error("make", &dir))?;
        let path = dir.join(layout::JOURNAL);
        let journal = Journal::create(&path, head, point).map_err(io_error("write", &path))?;
        let to_sync = journal.to_sync().map_err(io_error("use", &path))?;
        let path = dir.join(layout::RESERVE);
        let reserve = Reserve::create(&path).map_err(io_error("set aside space in", &path))?;
        let path = dir.join(layout::VMCORE_PART);
        let file = Arc::new(layout::new_file(&path).map_err(io_error("make", &path))?);
        Ok(Self {
            root: root.to_owned(),
            write_back: WriteBack::new(Synced {
                journal: to_sync,
                file: Arc::clone(&file),
                dirs: vec![dir.clone(), root.join(layout::SPOOL)],
            }),
            kernel_header: Object::prepared(dir.join(layout::KERNEL_HEADER))?,
            key: Object::new(dir.join(layout::KEY)),
            dir,
            head: head.clone(),
            file,
            journal,
            chunks: Chunks::default(),
            received: Extents::new(EXTENTS_MAX),
            reserve,
            pacing: Pacing::default(),
            gathered: Vec::new(),
            expected: Expected::Unseen,
            repaired: false,
            account,
        })
    }

    /// Goes on with a session whose receiver died: what it stored counts, and is hashed when the session ends.
    pub(crate) fn resume(
        root: &Path,
        dir: &Path,
        recovered: &Recovered,
        journal: Journal,
        file: File,
        account: Account,
    ) -> Result<Self, SpoolError> {
        let mut chunks = Chunks::default();
        for range in &recovered.received {
            (range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES))
                .for_each(|index| chunks.touched(index * CHUNK_BYTES));
        }
        let path = dir.join(layout::RESERVE);
        let reserve = Reserve::reopen(&path).map_err(io_error("set aside space in", &path))?;
        let file = Arc::new(file);
        let path = dir.join(layout::JOURNAL);
        let to_sync = journal.to_sync().map_err(io_error("use", &path))?;
        let mut pacing = Pacing::default();
        // None of it may have reached the disk.
        pacing.wrote(Instant::now(), recovered.received.covered_bytes());
        Ok(Self {
            root: root.to_owned(),
            write_back: WriteBack::new(Synced {
                journal: to_sync,
                file: Arc::clone(&file),
                dirs: vec![dir.to_owned(), root.join(layout::SPOOL)],
            }),
            kernel_header: Object::reopen(dir.join(layout::KERNEL_HEADER))?,
            key: Object::reopen(dir.join(layout::KEY))?,
            dir: dir.to_owned(),
            head: recovered.head.clone(),
            file,
            journal,
            chunks,
            received: recovered.received.clone(),
            reserve,
            pacing,
            gathered: Vec::new(),
            expected: Expected::Unseen,
            repaired: recovered.displaced.is_some(),
            account,
        })
    }

    /// Records where the sender is in its bursts: before the bytes of the burst are stored.
    pub(crate) fn point(&mut self, point: ResumePoint) -> Result<(), SpoolError> {
        let journal = io_error("write to", &self.dir.join(layout::JOURNAL));
        self.journal.point(point).map_err(journal)
    }

    /// Stores bytes that follow each other in the file, from `offset` on. When this returns they outlive this process.
    pub(crate) fn write_run(&mut self, offset: u64, slices: &[&[u8]]) -> Result<(), SpoolError> {
        if let [bytes] = slices {
            return self.write(offset, bytes);
        }
        // One write and, above all, one hash: BLAKE3 is several times as fast on 64 KiB as on a packet.
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.clear();
        slices.iter().for_each(|slice| gathered.extend_from_slice(slice));
        let written = self.write(offset, &gathered);
        self.gathered = gathered;
        written
    }

    /// The same for bytes that stand together.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SpoolError> {
        let part = |what| io_error(what, &self.dir.join(layout::VMCORE_PART));
        let len_bytes = len_u64(bytes.len());
        let range = offset..offset.saturating_add(len_bytes);
        let new_bytes = self.received.gaps(range.clone()).map(|gap| gap.end - gap.start).sum();
        self.account.take(new_bytes, || admission::space_of(&self.root))?;
        self.file.write_all_at(bytes, offset).map_err(part("write to"))?;
        self.received.insert(range).map_err(|_| SpoolError::TooFragmented)?;
        self.chunks.absorb(offset, bytes);
        let journal = |what| io_error(what, &self.dir.join(layout::JOURNAL));
        self.journal.received(offset, len_bytes).map_err(journal("write to"))?;
        self.pacing.wrote(Instant::now(), len_bytes);
        self.turn()?;
        let looked = self.expected.look(&self.file, &self.received);
        looked.map_err(io_error("read back", &self.dir.join(layout::VMCORE_PART)))?;
        let need = reserve_needed(self.chunks.len(), self.received.len());
        let reserve = io_error("set aside space in", &self.dir.join(layout::RESERVE));
        self.reserve.grow_to(need).map_err(reserve)
    }

    /// Looks after the write-back: to be called now and then also when nothing comes. Gives the time for which
    /// acknowledgements of data are to be held, zero if they may go.
    pub(crate) fn turn(&mut self) -> Result<Duration, SpoolError> {
        let part = |what| io_error(what, &self.dir.join(layout::VMCORE_PART));
        let now = Instant::now();
        if let Some(mark) = self.write_back.poll().map_err(part("write back"))? {
            self.pacing.sync_done(now);
            let journal = io_error("write to", &self.dir.join(layout::JOURNAL));
            self.journal.synced(mark).map_err(journal)?;
        }
        if self.pacing.is_sync_due(now) && self.write_back.start(self.journal.mark()) {
            self.pacing.sync_started(now);
        }
        Ok(self.pacing.hold(now))
    }

    /// The dump's first page was sent to `offset` instead of 0, as the second dump after one boot does it. It is put
    /// into its place and no longer counts as the bytes of the other one. Does nothing when that is done already.
    pub(crate) fn first_page_is_at(&mut self, offset: u64, len_bytes: u64) -> Result<(), SpoolError> {
        let page = offset..offset.saturating_add(len_bytes);
        if self.repaired || !self.received.contains(&page) {
            return Ok(());
        }
        self.repaired = true;
        let mut bytes = vec![0; usize::try_from(len_bytes).unwrap_or(0)];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(io_error("read back", &self.dir.join(layout::VMCORE_PART)))?;
        self.write_run(0, &[&bytes])?;
        self.received = without(&self.received, &page);
        self.chunks.touched(offset);
        let journal = io_error("write to", &self.dir.join(layout::JOURNAL));
        self.journal.forgotten(offset, len_bytes).map_err(journal)
    }

    /// Stores bytes of the kernel dump header.
    pub(crate) fn kernel_header(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SpoolError> {
        self.kernel_header.write(offset, bytes)?;
        let journal = io_error("write to", &self.dir.join(layout::JOURNAL));
        self.journal
            .kernel_header(offset, len_u64(bytes.len()))
            .map_err(journal)
    }

    /// Stores bytes of the key.
    pub(crate) fn key(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SpoolError> {
        self.key.write(offset, bytes)?;
        let journal = io_error("write to", &self.dir.join(layout::JOURNAL));
        self.journal.key(offset, len_u64(bytes.len())).map_err(journal)
    }

    /// The length that the file will have, once its beginning tells.
    pub(crate) fn expected_len(&self) -> Option<u64> {
        self.expected.len_bytes()
    }

    /// Sets space aside for a file of this length.
    pub(crate) fn set_aside(&mut self, len_bytes: u64) -> Result<(), Short> {
        self.account.expect(len_bytes, admission::space_of(&self.root))
    }

    /// Whether the file that is coming names a dump of one of our own senders.
    pub(crate) fn has_dump_id(&self) -> bool {
        let facts = Facts::read(&self.file, &self.received).unwrap_or_default();
        facts.note.is_some_and(|note| note.dump_id.is_some())
    }

    /// Makes a core of what came.
    pub(crate) fn commit(self, ending: Ending, duplicate_packets: u64) -> Result<Kept, CommitError> {
        let Self {
            root,
            dir,
            head,
            file,
            journal,
            chunks,
            received,
            kernel_header,
            key,
            write_back,
            repaired,
            account,
            ..
        } = self;
        let flushed = write_back.finish();
        let digests = chunks.finish(&file, &received);
        let (digests, ending) = match (flushed, digests, ending) {
            (Err(why), _, ending @ Ending::Finished) => (None, storage(&ending, "write back", &why)),
            (_, Err(why), ending @ Ending::Finished) => (None, storage(&ending, "read back", &why)),
            (_, digests, ending) => (digests.ok(), ending),
        };
        let session = Session {
            root,
            dir,
            head,
            file,
            received,
            digests: digests.unwrap_or_default(),
            kernel_header: kernel_header.bytes,
            key: key.bytes,
            duplicate_packets,
            repaired,
        };
        let kept = commit::commit(session, ending);
        if let Ok(kept) = &kept {
            account.keep(kept.manifest.stored_bytes);
        }
        // The lock is held until the session's directory is gone, or left to the next start.
        drop(journal);
        kept
    }
}

/// A set of ranges without those of `hole`.
pub(crate) fn without(set: &Extents, hole: &Range<u64>) -> Extents {
    let mut rest = Extents::new(EXTENTS_MAX);
    for range in set {
        // One range more than before at most, and that only in a set that was far from full.
        let _ = rest.insert(range.start..range.end.min(hole.start));
        let _ = rest.insert(range.start.max(hole.end)..range.end);
    }
    rest
}

/// The ending when storage failed at the last moment.
fn storage(_finished: &Ending, what: &str, why: &io::Error) -> Ending {
    Ending::Storage(format!("cannot {what} the file: {why}"))
}

/// Adds what was tried to an error of the system.
fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError + use<> {
    let path = path.display().to_string();
    move |source| SpoolError::Io { what, path, source }
}

/// A length in memory as a length in a file.
fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
