//! What a receiver left behind: sessions whose senders may still be there go on, of the others cores are made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::net::SocketAddrV4;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netdump::{Extents, Resumed};

use super::chunks;
use super::commit::{self, Kept, Session};
use super::examine::{self, Ending};
use super::journal::{self, Journal, Recovered, SessionHead};
use super::layout;
use super::manifest::Manifest;
use super::spool::Spool;
use crate::admission::Ledger;
use crate::limits::HEAD_BYTES_MAX;

/// First bytes of a file that show whether it is a minidump.
const BEGINS_LEN: usize = 32;

/// What an earlier receiver left.
#[derive(Debug, Default)]
pub(crate) struct LeftOver {
    /// Cores made of sessions that are over.
    pub(crate) kept: Vec<Kept>,
    /// Sessions that may go on.
    pub(crate) resumable: Vec<Resumable>,
}

/// A session whose sender may still be there.
#[derive(Debug)]
pub(crate) struct Resumable {
    pub(crate) head: SessionHead,
    /// For the protocol.
    pub(crate) state: Resumed,
    /// What it stored; none when that is a core already, and only FINISHED is to be answered.
    pub(crate) spool: Option<Spool>,
    /// Keeps the session locked as long as it lingers.
    pub(crate) lock: Option<Journal>,
}

/// Looks through the spool. Sessions that were heard from within `silent_after` may go on; of every other one that has no
/// receiver any more a core is made. What cannot be dealt with is logged and stays.
pub(crate) fn recover(root: &Path, silent_after: Duration, ledger: &Ledger) -> io::Result<LeftOver> {
    let mut left_over = LeftOver::default();
    for entry in fs::read_dir(root.join(layout::SPOOL))? {
        let entry = entry?;
        let is_session = entry.file_name().to_str().is_some_and(layout::is_id);
        if !is_session || !entry.path().is_dir() {
            continue;
        }
        match recover_one(root, &entry.path(), silent_after, ledger) {
            Ok(Found::Core(kept)) => left_over.kept.push(*kept),
            Ok(Found::Running(session)) => left_over.resumable.push(*session),
            Ok(Found::Nothing) => {}
            Err(why) => tracing::error!(session = %entry.path().display(), "left-over session stays: {why}"),
        }
    }
    for entry in fs::read_dir(root.join(layout::RESUME))? {
        let entry = entry?;
        if entry.file_name().to_str().and_then(layout::linger_id).is_none() {
            continue;
        }
        match lingering(&entry.path(), silent_after) {
            Ok(Some(session)) => left_over.resumable.push(session),
            Ok(None) => {}
            Err(why) => tracing::error!(journal = %entry.path().display(), "lingering session stays: {why}"),
        }
    }
    Ok(left_over)
}

/// What a session directory turned out to be.
enum Found {
    /// Nothing, or it has its receiver.
    Nothing,
    /// It is a core now.
    Core(Box<Kept>),
    /// Its sender may still be there.
    Running(Box<Resumable>),
}

/// Deals with one directory.
fn recover_one(
    root: &Path,
    dir: &Path,
    silent_after: Duration,
    ledger: &Ledger,
) -> Result<Found, Box<dyn std::error::Error>> {
    if dir.join(layout::MANIFEST).exists() {
        let manifest = Manifest::read(dir)?;
        let dir = commit::move_into_place(root, dir, &manifest)?;
        let durable = true;
        return Ok(Found::Core(Box::new(Kept { dir, manifest, durable })));
    }
    let path = dir.join(layout::JOURNAL);
    if !path.exists() {
        // Its receiver ended before it had written anything.
        fs::remove_dir_all(dir)?;
        return Ok(Found::Nothing);
    }
    let is_young = is_younger(&path, silent_after)?;
    let (recovered, journal) = match journal::take_over(&path) {
        Ok(None) => return Ok(Found::Nothing),
        Ok(Some(taken)) => taken,
        Err(why) if why.kind() == io::ErrorKind::InvalidData || why.kind() == io::ErrorKind::UnexpectedEof => {
            fs::remove_dir_all(dir)?;
            return Ok(Found::Nothing);
        }
        Err(why) => return Err(why.into()),
    };
    if recovered.is_same_boot && is_young {
        return Ok(Found::Running(Box::new(resumable(
            root, dir, recovered, journal, ledger,
        )?)));
    }
    let made = make_core(root, dir, recovered)?;
    drop(journal);
    Ok(made.map_or(Found::Nothing, |kept| Found::Core(Box::new(kept))))
}

/// A session that goes on.
fn resumable(
    root: &Path,
    dir: &Path,
    mut recovered: Recovered,
    journal: Journal,
    ledger: &Ledger,
) -> Result<Resumable, Box<dyn std::error::Error>> {
    let file = open_part(dir)?;
    // A receiver that died while it made a core may have cut off what was beyond the dump's length.
    recovered.received = examine_len(&file, &recovered.received)?;
    let state = resumed(&recovered, &file, false);
    let client: SocketAddrV4 = recovered.head.client_addr.parse()?;
    let mut account = ledger.open(*client.ip());
    account.has_written(recovered.received.covered_bytes());
    let spool = Spool::resume(root, dir, &recovered, journal, file, account)?;
    Ok(Resumable {
        head: recovered.head,
        state,
        spool: Some(spool),
        lock: None,
    })
}

/// The session behind a journal that was kept to answer FINISHED; none when nobody asks any more.
fn lingering(path: &Path, silent_after: Duration) -> io::Result<Option<Resumable>> {
    let is_young = is_younger(path, silent_after)?;
    match journal::take_over(path) {
        // Another receiver of this directory has it.
        Ok(None) => Ok(None),
        Ok(Some((recovered, journal))) if is_young && recovered.is_same_boot => {
            let nothing: Option<&File> = None;
            let state = resumed(&recovered, nothing, true);
            Ok(Some(Resumable {
                head: recovered.head,
                state,
                spool: None,
                lock: Some(journal),
            }))
        }
        Ok(Some(_)) => layout::remove_file(path).map(|()| None),
        Err(why) if why.kind() == io::ErrorKind::InvalidData => layout::remove_file(path).map(|()| None),
        Err(why) => Err(why),
    }
}

/// What the protocol needs to know.
fn resumed<'f>(recovered: &Recovered, file: impl Into<Option<&'f File>>, is_durable: bool) -> Resumed {
    let first = recovered.received.iter().next().map_or(0, |range| range.start);
    let mut begins = vec![0; BEGINS_LEN];
    let read = file.into().map_or(Ok(0), |file| file.read_at(&mut begins, first));
    begins.truncate(read.unwrap_or(0));
    Resumed {
        point: recovered.point,
        data: recovered.received.clone(),
        kernel_header: recovered.kernel_header.clone(),
        key: recovered.key.clone(),
        displaced: recovered.displaced,
        begins,
        is_durable,
    }
}

/// Whether a file was written to within this time; a clock that was set back makes it young.
fn is_younger(path: &Path, than: Duration) -> io::Result<bool> {
    let written_at = fs::metadata(path)?.modified()?;
    Ok(written_at.elapsed().is_ok_and(|age| age < than) || written_at.elapsed().is_err())
}

/// Makes a core of what came, if anything had.
fn make_core(root: &Path, dir: &Path, recovered: Recovered) -> Result<Option<Kept>, Box<dyn std::error::Error>> {
    let kernel_header = small_file(&dir.join(layout::KERNEL_HEADER))?;
    let key = small_file(&dir.join(layout::KEY))?;
    let received = recovered.received;
    if received.is_empty() && kernel_header.is_empty() && key.is_empty() {
        fs::remove_dir_all(dir)?;
        return Ok(None);
    }
    let file = open_part(dir)?;
    let received = examine_len(&file, &received)?;
    let digests = chunks::digest_file(&file, &received)?;
    let session = Session {
        root: root.to_owned(),
        dir: dir.to_owned(),
        head: recovered.head,
        file: Arc::new(file),
        received,
        digests,
        kernel_header,
        key,
        duplicate_packets: 0,
        repaired: recovered.displaced.is_some(),
    };
    let kept = commit::commit(session, Ending::LeftOver)?;
    tracing::info!(core = %kept.manifest.id, state = %kept.manifest.state, "left-over session kept");
    // Its sender is long gone.
    layout::remove_file(&layout::linger_file(root, &kept.manifest.id))?;
    Ok(Some(kept))
}

/// The memory image, under either of its names.
fn open_part(dir: &Path) -> io::Result<File> {
    let open = |name| OpenOptions::new().read(true).write(true).open(dir.join(name));
    match open(layout::VMCORE_PART) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => open(layout::VMCORE),
        done => done,
    }
}

/// What of `received` the file really has: after a loss of power, or cut to its length, it may be shorter.
fn examine_len(file: &File, received: &Extents) -> io::Result<Extents> {
    Ok(examine::cut(received, file.metadata()?.len()))
}

/// A small file; empty when it is not there.
fn small_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(HEAD_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(bytes),
        Err(why) => Err(why),
    }
}

/// Removes what answers a session's sender after a restart: it has been answered for long enough.
pub(crate) fn forget_lingering(root: &Path, id: &str) {
    let path: PathBuf = layout::linger_file(root, id);
    if let Err(why) = layout::remove_file(&path) {
        tracing::warn!(path = %path.display(), "cannot be removed: {why}");
    }
}

#[cfg(test)]
mod tests {
    use netdump::{ResumePoint, Seqno};

    use super::*;
    use crate::admission::{Admission, Limits};

    const ID: &str = "0192f0c1-1111-7abc-8def-000000000000";

    /// A session that stored a dump of two pages and what trails it, and whose receiver was killed.
    fn left_over(root: &Path) -> Vec<Resumable> {
        let admission = Admission::new(Vec::new(), Limits::default());
        let left_over = recover(root, Duration::from_secs(60), &admission.ledger).unwrap();
        assert!(left_over.kept.is_empty());
        left_over.resumable
    }

    fn session(root: &Path) {
        super::super::create(root).unwrap();
        let dir = layout::session_dir(root, ID);
        layout::make_dir(&dir).unwrap();
        let head = SessionHead {
            id: ID.to_owned(),
            client_addr: "127.0.0.1:20024".to_owned(),
            server_addr: "127.0.0.1:20023".to_owned(),
            session_addr: "127.0.0.1:41999".to_owned(),
            herald_label: None,
            started_at: "2026-01-01T00:00:00Z".to_owned(),
        };
        let point = ResumePoint {
            start: Seqno(9),
            largest_len: 1448,
            origin: Some(4096),
            start_is_certain: true,
            is_pairing: true,
        };
        let mut journal = Journal::create(&dir.join(layout::JOURNAL), &head, point).unwrap();
        let file = layout::new_file(&dir.join(layout::VMCORE_PART)).unwrap();
        file.write_all_at(&[7; 8192 + 512], 0).unwrap();
        journal.received(0, 8192 + 512).unwrap();
    }

    #[test]
    fn a_session_that_was_just_heard_goes_on_where_it_was() {
        let root = tempfile::tempdir().unwrap();
        session(root.path());
        let found = left_over(root.path());
        let state = &found[0].state;
        assert_eq!((state.point.start, state.data.covered_bytes()), (Seqno(9), 8704));
        assert!(!state.is_durable && found[0].spool.is_some());
    }

    #[test]
    fn what_a_dying_receiver_cut_off_does_not_count_as_stored() {
        let root = tempfile::tempdir().unwrap();
        session(root.path());
        let part = layout::session_dir(root.path(), ID).join(layout::VMCORE_PART);
        OpenOptions::new()
            .write(true)
            .open(part)
            .unwrap()
            .set_len(8192)
            .unwrap();
        let found = left_over(root.path());
        let stored = &found[0].state.data;
        assert_eq!((stored.len(), stored.end(), stored.covered_bytes()), (1, 8192, 8192));
    }

    #[test]
    fn a_core_whose_sender_may_still_ask_is_answered_and_later_forgotten() {
        let root = tempfile::tempdir().unwrap();
        session(root.path());
        let spool = left_over(root.path()).remove(0).spool.unwrap();
        spool.commit(Ending::Finished, 0).unwrap();
        let found = left_over(root.path());
        assert!(found[0].state.is_durable && found[0].spool.is_none() && found[0].lock.is_some());
        drop(found);
        forget_lingering(root.path(), ID);
        assert!(left_over(root.path()).is_empty());
    }
}
