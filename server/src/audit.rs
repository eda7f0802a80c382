//! Who took and who removed what: one JSON line for each deed in `audit.jsonl`, and the same in the log.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use api::Deed;
use jiff::Timestamp;
use serde_json::json;

use crate::escape;
use crate::store::layout;

/// The audit file of a store.
#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    /// One line at a time.
    writing: Mutex<()>,
}

impl Audit {
    /// The audit file below `root`; it is made with the first line.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            path: root.join(layout::AUDIT),
            writing: Mutex::new(()),
        }
    }

    /// Adds a line. A line that cannot be written is told in the log, which has it as well.
    pub(crate) fn note(&self, deed: &Deed<'_>) {
        let by = escape::one_line(deed.by);
        tracing::info!(by, what = deed.what, core = deed.core, file = deed.file, "audit");
        let line = json!({
            "time": Timestamp::now().to_string(), "by": by, "what": deed.what, "core": deed.core, "file": deed.file,
            "offset": deed.range.map(|(offset, _)| offset), "length": deed.range.map(|(_, length)| length),
        });
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(layout::FILE_MODE)
            .open(&self.path);
        if let Err(why) = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())) {
            tracing::error!("cannot write to {}: {why}", self.path.display());
        }
    }
}
