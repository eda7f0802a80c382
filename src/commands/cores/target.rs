//! The file that a command writes: `FILE.part` until it is whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::Context as _;

use crate::cli_failure::{Exit, Failure, OrExit as _};
use crate::{output, signals};

/// How often `FILE.part` is opened again because another command had just finished with it.
const OPENINGS_MAX: usize = 16;

/// `FILE.part`, until it is whole. Dropped before that, it is removed, unless it is to be resumed from.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    part: PathBuf,
    /// Says of what core `part` is a part.
    tag: PathBuf,
    /// Locked, so that no other command writes it too.
    pub(super) file: File,
    kept: bool,
    /// What came is worth another try.
    pub(super) keep_part: bool,
}

impl Target {
    /// Makes the file; it can be read too.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        Self::create_or_resume(path, None)
    }

    /// The same, but what is in a part with the same tag stays there.
    pub(super) fn create_or_resume(path: &Path, tag: Option<&str>) -> Result<Self, Failure> {
        let path = place(path)?;
        let part = with_suffix(&path, ".part");
        let tag_path = with_suffix(&part, ".tag");
        let file = open_alone(&part)?;
        let resumes = tag.is_some_and(|tag| fs::read_to_string(&tag_path).is_ok_and(|kept| kept == tag));
        if !resumes {
            file.set_len(0)
                .with_context(|| format!("cannot empty {}", part.display()))?;
        }
        if let Some(tag) = tag.filter(|_| !resumes) {
            fs::write(&tag_path, tag).with_context(|| format!("cannot write {}", tag_path.display()))?;
        }
        end_well_when_stopped(part.clone(), tag.is_some());
        Ok(Self {
            path,
            part,
            tag: tag_path,
            file,
            keep_part: false,
            kept: false,
        })
    }

    /// Gives the file its length and its name.
    pub(super) fn keep(mut self, len_bytes: u64) -> Result<(), Failure> {
        let done = self
            .file
            .set_len(len_bytes)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&self.part, &self.path));
        self.kept = done.is_ok();
        let what = || format!("cannot finish {}", self.path.display());
        done.with_context(what).or_exit(Exit::Failed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.kept && self.keep_part {
            let shown = self.part.display();
            output::say(&format!("{shown} is kept; the same command goes on from it"));
            return;
        }
        if !self.kept {
            let _ = fs::remove_file(&self.part);
        }
        let _ = fs::remove_file(&self.tag);
    }
}

/// When somebody asks this process to end, the part is removed, unless the same command would go on from it.
fn end_well_when_stopped(part: PathBuf, keeps: bool) {
    let stop = move || {
        let shown = part.display();
        if keeps {
            output::say(&format!(
                "stopped; {shown} is kept, and the same command goes on from it"
            ));
        } else if fs::remove_file(&part).is_ok() {
            output::say(&format!("stopped; {shown} is removed"));
        }
        process::exit(Exit::Stopped as i32);
    };
    // Where no handler can be had, the signal ends the process at once and the part stays, as after SIGKILL.
    let _ = signals::on_stop(stop);
}

/// Where the file will stand: what a symbolic link names, and nothing whose place a file must not take.
fn place(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let refused = |why: &str| Err(Failure::new(Exit::Failed, format!("{shown} {why}")));
    // What cannot be looked at is not there yet, or cannot be made either, and then that is told.
    let there = fs::symlink_metadata(path).ok();
    let path = if there.is_some_and(|there| there.is_symlink()) {
        match fs::canonicalize(path) {
            Ok(named) => named,
            Err(_) => return refused("is a symbolic link to what is not there; -o names a file"),
        }
    } else {
        path.to_owned()
    };
    if let Ok(there) = fs::metadata(&path) {
        if there.is_dir() {
            return refused("is a directory; -o names a file");
        }
        if !there.is_file() {
            return refused("is a device, a pipe or a socket, whose place a file would take; -o names a file");
        }
    }
    if path.parent().is_some_and(server::is_core_folder) {
        return refused("would stand among the files of a stored core; -o names a file elsewhere");
    }
    Ok(path)
}

/// Opens `FILE.part` and locks it.
fn open_alone(part: &Path) -> Result<File, Failure> {
    let shown = part.display();
    for _ in 0..OPENINGS_MAX {
        let mut options = OpenOptions::new();
        // A core holds secrets: it is not for everyone. What is in it is looked at when it is locked.
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let opened = options.open(part);
        let file = opened.with_context(|| format!("cannot write {shown}; -o chooses another file"))?;
        match file.try_lock() {
            // Of a file system that knows no locks nothing more can be had.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                let sentence = format!("another command is writing {shown}; -o chooses another file");
                return Err(Failure::new(Exit::Failed, sentence));
            }
        }
        // Another command may have given it its name, or removed it, between the two.
        let is_still_there = || -> io::Result<bool> {
            let (ours, there) = (file.metadata()?, fs::metadata(part)?);
            Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        };
        if is_still_there().unwrap_or(false) {
            return Ok(file);
        }
    }
    let sentence = format!("other commands keep on writing {shown}; -o chooses another file");
    Err(Failure::new(Exit::Failed, sentence))
}

/// The path with more at the end of its name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
