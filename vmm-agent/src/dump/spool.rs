//! The core as a file of this host, for when no receiver has it: written sparse under a name that says it is not
//! whole, synced, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::core_file::CoreFile;
use super::limits::SPOOL_NAME_LEN_MAX;
use super::progress::{Phase, Progress};
use super::sender::{SendError, Watch};

/// Why the core is not in the spool directory.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A system call on a file failed; nothing is left of what was written.
    #[error("cannot {what} {}: {source}{}", path.display(), advice(source))]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended before the file was whole, for a reason that is not the directory's.
    #[error(transparent)]
    Ended(SendError),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; what was written is removed again",
        _ => "",
    }
}

/// Writes the core as `NAME-DUMPID.vmcore` into `dir` (made if missing); returns its path once it is safe on disk.
pub(super) fn write(
    core: &CoreFile<'_>,
    dir: &Path,
    vm: &str,
    dump_id: &str,
    watch: Watch<'_>,
) -> Result<PathBuf, SpoolError> {
    watch.progress.begin(Phase::Spooling, core.len_bytes());
    let path = dir.join(format!("{}-{}.vmcore", file_name_part(vm), file_name_part(dump_id)));
    let part = path.with_extension("vmcore.part");
    fs::create_dir_all(dir).map_err(fail("make the directory", dir))?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        // A core holds everything that the guest knew.
        .mode(0o600)
        .open(&part)
        .map_err(fail("make", &part))?;
    let written = write_pieces(core, &file, &part, watch)
        .and_then(|()| file.sync_all().map_err(fail("sync", &part)))
        .and_then(|()| fs::rename(&part, &path).map_err(fail("rename", &part)));
    if let Err(error) = written {
        drop(file);
        // Half a core that nobody lists only takes the space that the next one needs.
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(fail("sync the directory", dir))?;
    Ok(path)
}

fn write_pieces(core: &CoreFile<'_>, file: &File, part: &Path, watch: Watch<'_>) -> Result<(), SpoolError> {
    // Zero and untouched pages are holes; the trailer's last page makes the length, whatever the file system does.
    file.set_len(core.len_bytes())
        .map_err(fail("set the length of", part))?;
    let mut pieces = core.pieces().map_err(|error| SpoolError::Ended(error.into()))?;
    let mut written_bytes = 0;
    loop {
        watch.check().map_err(SpoolError::Ended)?;
        let Some(piece) = pieces.next_piece().map_err(|error| SpoolError::Ended(error.into()))? else {
            return Ok(());
        };
        file.write_all_at(piece.bytes, piece.file_offset)
            .map_err(fail("write", part))?;
        written_bytes += piece.bytes.len() as u64;
        report(watch.progress, pieces.file_position(), written_bytes);
    }
}

fn report(progress: &Progress, file_position: u64, written_bytes: u64) {
    progress.update(file_position, written_bytes, written_bytes, 0);
}

fn fail(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |source| SpoolError::File { what, path, source }
}

/// A name that is one part of a file name: letters, digits, `.`, `_` and `-`, not hidden, of bounded length.
fn file_name_part(name: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            c
        } else {
            '_'
        }
    };
    let part: String = name.chars().map(safe).take(SPOOL_NAME_LEN_MAX).collect();
    if part.is_empty() || part.starts_with('.') {
        format!("_{part}")
    } else {
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_the_directory_or_hides() {
        for (name, part) in [
            ("web-3", "web-3"),
            ("../../etc/x", "_.._.._etc_x"),
            ("", "_"),
            (".x", "_.x"),
            ("a b\0é", "a_b__"),
        ] {
            assert_eq!(file_name_part(name), part);
        }
        assert_eq!(file_name_part(&"x".repeat(1000)).len(), SPOOL_NAME_LEN_MAX);
    }
}
