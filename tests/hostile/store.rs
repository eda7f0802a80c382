//! A receiver's directory with one core in it, which is another one for each seed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::damage::Damaged;
use crate::form::Form;

/// The core's id.
pub(crate) const ID: &str = "019c12f0-0000-7000-8000-000000000001";

/// The directory.
pub(crate) struct Store {
    root: PathBuf,
    core: PathBuf,
}

impl Store {
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let core = root.join("cores/2026/01").join(ID);
        fs::create_dir_all(&core)?;
        Ok(Self {
            root: root.to_owned(),
            core,
        })
    }

    /// What `--dir` names.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What `explain-core` is given.
    pub(crate) fn core(&self) -> &Path {
        &self.core
    }

    /// Puts a sound core there.
    pub(crate) fn put(&self, form: &Form) -> io::Result<File> {
        let file = form.write(&self.core.join("vmcore"))?;
        let whole = Damaged {
            len: form.len,
            lost: Vec::new(),
        };
        self.say(form.format, &whole)?;
        Ok(file)
    }

    /// Writes the manifest.
    pub(crate) fn say(&self, format: &str, core: &Damaged) -> io::Result<()> {
        let lost = core.lost.iter();
        let lost: Vec<_> = lost
            .map(|range| json!({ "offset": range.start, "length": range.end - range.start }))
            .collect();
        let manifest = json!({
            "schema_version": 1, "id": ID, "state": if lost.is_empty() { "complete" } else { "incomplete" },
            "reason": null, "guest": "web-3", "kernel": null, "panic": null, "format": format,
            "started_at": "2026-01-31T12:00:11Z", "received_at": "2026-01-31T12:00:12Z",
            "client_addr": "127.0.0.1:20024", "server_addr": "127.0.0.1:20023", "herald_label": null, "dump_id": null,
            "file_len_bytes": core.len, "stored_bytes": core.len,
            "coverage": { "received": [[0, core.len]], "zero_bytes": 0, "excluded_bytes": 0, "lost": lost },
            "digests": { "algorithm": "blake3", "chunk_len_bytes": 1 << 20, "chunks": [], "root": "" },
            "kernel_header": null, "note": null, "duplicate_packets": 0, "files": [],
        });
        fs::write(self.core.join("manifest.json"), manifest.to_string())
    }
}
