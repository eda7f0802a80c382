//! Names and modes of what stands on disk (the on-disk contract), and nothing else.
//!
//! ```text
//! DIR/cores/<yyyy>/<mm>/<core-id>/   vmcore  info.txt  kdh.bin  manifest.json  [key.bin]  [explain.json]  [labels.json]  [vmcore.gz | vmcore.zst]
//! DIR/spool/<session-id>/            vmcore.part  session.journal  [kdh.bin] [key.bin]
//! DIR/resume/<session-id>.linger     the journal of a session that is a core already and still answers
//! DIR/resume/answered                heralds that were answered and have no session yet
//! DIR/lock                           taken by whoever changes or removes stored cores
//! DIR/audit.jsonl                    who took and who removed what
//! DIR/tokens.json                    digests of the tokens that the API knows
//! DIR/webhooks/                      events that are still to be delivered, and those that could not be
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Mode of files: the owner writes, the group reads.
pub(crate) const FILE_MODE: u32 = 0o640;
/// Mode of directories.
pub(crate) const DIR_MODE: u32 = 0o750;

/// Finished cores.
pub(crate) const CORES: &str = "cores";
/// Running sessions.
pub(crate) const SPOOL: &str = "spool";
/// What a receiver needs that takes over at once, beside the spool.
pub(crate) const RESUME: &str = "resume";
/// The memory image of a finished core.
pub(crate) const VMCORE: &str = "vmcore";
/// Another name of it, if its bytes are a gzip file.
pub(crate) const VMCORE_GZIP: &str = "vmcore.gz";
/// Another name of it, if its bytes are a Zstandard file.
pub(crate) const VMCORE_ZSTD: &str = "vmcore.zst";
/// The same while it is being received.
pub(crate) const VMCORE_PART: &str = "vmcore.part";
/// Which ranges of it have been taken.
pub(crate) const JOURNAL: &str = "session.journal";
/// The kernel dump header as it came.
pub(crate) const KERNEL_HEADER: &str = "kdh.bin";
/// The key of an encrypted dump.
pub(crate) const KEY: &str = "key.bin";
/// savecore's description.
pub(crate) const INFO: &str = "info.txt";
/// The truth about a core.
pub(crate) const MANIFEST: &str = "manifest.json";
/// End of the name of a journal whose session lingers.
const LINGER_SUFFIX: &str = ".linger";
/// Heralds that were answered and have no session yet.
pub(crate) const ANSWERED: &str = "answered";
/// What the core tells of the crash; derived.
pub(crate) const EXPLANATION: &str = "explain.json";
/// What people wrote about a core.
pub(crate) const LABELS: &str = "labels.json";
/// Taken by whoever changes or removes stored cores.
pub(crate) const LOCK: &str = "lock";
/// Who took and who removed what.
pub(crate) const AUDIT: &str = "audit.jsonl";
/// Digests of the tokens that the API knows.
pub(crate) const TOKENS: &str = "tokens.json";
/// Events that are to be delivered.
pub(crate) const WEBHOOKS: &str = "webhooks";
/// Space set aside for the records.
pub(crate) const RESERVE: &str = "reserve";

/// Whether a folder is that of a stored core, or of one that is being received: nothing else may be written there.
#[must_use]
pub fn is_core_folder(folder: &Path) -> bool {
    let has = |name| folder.join(name).exists();
    has(JOURNAL) || (has(MANIFEST) && has(INFO))
}

/// The directory of a core that was kept at `received_at`.
pub(crate) fn core_dir(root: &Path, received_at: Timestamp, id: &str) -> PathBuf {
    month_dir(root, received_at).join(id)
}

/// The directory of the cores of a month.
pub(crate) fn month_dir(root: &Path, received_at: Timestamp) -> PathBuf {
    let date = received_at.to_zoned(TimeZone::UTC).date();
    root.join(CORES)
        .join(format!("{:04}", date.year()))
        .join(format!("{:02}", date.month()))
}

/// The directory of a session.
pub(crate) fn session_dir(root: &Path, id: &str) -> PathBuf {
    root.join(SPOOL).join(id)
}

/// The journal of a session whose core is safe and whose sender may still ask.
pub(crate) fn linger_file(root: &Path, id: &str) -> PathBuf {
    root.join(RESUME).join(format!("{id}{LINGER_SUFFIX}"))
}

/// The id of a [`linger_file`] by its name.
pub(crate) fn linger_id(name: &str) -> Option<&str> {
    name.strip_suffix(LINGER_SUFFIX).filter(|id| is_id(id))
}

/// Whether this is an id that we made: 36 characters, lower-case hexadecimal and dashes.
pub(crate) fn is_id(name: &str) -> bool {
    name.len() == 36 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// Makes one directory; one that exists is fine.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIR_MODE).create(path) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        done => done,
    }
}

/// Makes a directory below `root` with its parents up to there, each made durable.
pub(crate) fn make_dirs_below(root: &Path, path: &Path) -> io::Result<()> {
    if path == root || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dirs_below(root, parent)?;
        make_dir(path)?;
        sync_dir(parent)?;
    }
    Ok(())
}

/// A new file that must not exist.
pub(crate) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
}

/// A file that may exist; its content stays.
pub(crate) fn kept_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
}

/// Writes a whole file and makes its content durable; replaces one that exists.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_stand_below_year_and_month() {
        let time: Timestamp = "2026-03-09T23:59:59Z".parse().unwrap();
        assert_eq!(core_dir(Path::new("/d"), time, "x"), Path::new("/d/cores/2026/03/x"));
    }

    #[test]
    fn only_names_like_ours_are_ids() {
        assert!(is_id("0192f0c1-1111-7abc-8def-000000000000"));
        assert!(!is_id("0192f0c1-1111-7abc-8def-00000000000"));
        assert!(!is_id("../../../../../../../../../etc/passwd"));
    }
}
