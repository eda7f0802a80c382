//! A receiver's directory with one core in it, which is another one for each seed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::damage::Damaged;
use crate::form::Form;

/// The core's id.
pub(crate) const ID: &str = "019c12f0-0000-7000-8000-000000000001";

/// Limits of the programs that have none of their own: address space in KiB, processor time in seconds, blocks of 512 bytes written.
const LIMITS: &str = "ulimit -v 1048576; ulimit -t 120; ulimit -f 33554432; exec \"$@\"";

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

    /// A command of `cores`.
    pub(crate) fn ask(&self, words: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", LIMITS, "sh", env!("CARGO_BIN_EXE_coreferry"), "cores", "--dir"]);
        command.arg(&self.root).args(words);
        command
    }

    /// Puts a sound core there.
    pub(crate) fn put(&self, form: &Form) -> io::Result<File> {
        let file = form.write(&self.core.join("vmcore"))?;
        self.say(form.format, &Damaged::whole(form.len))?;
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
        fresh(&self.core.join("manifest.json"))?.write_all(manifest.to_string().as_bytes())
    }
}

/// A new file, whatever was there: one that is cut and written again is waited for by some file systems (ext4(5), auto_da_alloc).
pub(crate) fn fresh(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => File::options().read(true).write(true).create_new(true).open(path),
    }
}
