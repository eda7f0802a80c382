//! Cores on disk: the spool of running sessions, and the cores that are made of them.
//!
//! ```text
//! bytes ─► spool (vmcore.part, journal) ─► commit ─► cores/yyyy/mm/id (vmcore, manifest, ...)
//!                      └─ receiver died ─► recover ──┘
//! ```

pub(crate) mod answered;
pub(crate) mod chunks;
pub(crate) mod commit;
pub(crate) mod examine;
pub(crate) mod expected;
pub(crate) mod facts;
pub(crate) mod journal;
pub(crate) mod layout;
pub(crate) mod manifest;
mod pacing;
mod recover;
pub(crate) mod spool;
pub(crate) mod verify;
mod write_back;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::admission::Ledger;
use crate::histogram::Histogram;
use crate::limits::FSYNC_BOUNDS_NS;
pub(crate) use commit::Kept;
pub(crate) use recover::{LeftOver, Resumable, forget_lingering};

/// How long syncs take, in this process.
pub(crate) static FSYNC: Histogram = Histogram::new(&FSYNC_BOUNDS_NS);

/// Why a directory cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there, or is no directory.
    #[error("the directory {path} cannot be opened: {source}")]
    Open {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A core in it cannot be read.
    #[error("the core in {path} cannot be read: {source}")]
    Read {
        /// Its path.
        path: String,
        /// What is wrong.
        source: io::Error,
    },
    /// A directory in it cannot be made.
    #[error("the directory {path} cannot be made: {source}")]
    Make {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Sessions that were left over cannot be looked at.
    #[error("the sessions left in {path} cannot be looked at: {source}")]
    Recover {
        /// Path of the spool.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Checks that `root` is a directory that can be read.
pub(crate) fn open(root: &Path) -> Result<PathBuf, StoreError> {
    let listed = std::fs::read_dir(root).map(drop);
    let error = |source| StoreError::Open {
        path: root.display().to_string(),
        source,
    };
    listed.map_err(error)?;
    Ok(root.to_owned())
}

/// Makes `root` (but not its parents) and the directories in it.
pub(crate) fn create(root: &Path) -> Result<PathBuf, StoreError> {
    let folders = [layout::CORES, layout::SPOOL, layout::RESUME].map(|name| root.join(name));
    for path in [root.to_owned()].into_iter().chain(folders) {
        layout::make_dir(&path).map_err(|source| StoreError::Make {
            path: path.display().to_string(),
            source,
        })?;
    }
    Ok(root.to_owned())
}

/// Looks at what an earlier receiver left: makes cores of the sessions that are over, and gives those whose senders may
/// still be there. None of these is older than `silent_after`.
pub(crate) fn recover_left_over(root: &Path, silent_after: Duration, ledger: &Ledger) -> Result<LeftOver, StoreError> {
    recover::recover(root, silent_after, ledger).map_err(|source| StoreError::Recover {
        path: root.join(layout::SPOOL).display().to_string(),
        source,
    })
}
