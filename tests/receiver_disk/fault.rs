//! Receivers whose disk is slow or fails, by a library between them and the C library.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Daemon, coreferry, path_text, skip};

/// A C program of this folder, compiled; none where there is no compiler.
pub(crate) fn compiled(dir: &Path, source: &str, options: &[&str]) -> Option<PathBuf> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/receiver_disk")
        .join(source);
    let to = dir.join(source.replace('.', "-"));
    match Command::new("cc")
        .args(options)
        .arg("-O1")
        .arg("-o")
        .arg(&to)
        .arg(from)
        .status()
    {
        Ok(status) => {
            assert!(status.success(), "{source} does not compile");
            Some(to)
        }
        Err(_) => {
            skip("there is no C compiler");
            None
        }
    }
}

/// The library.
pub(crate) fn fault_library(dir: &Path) -> Option<PathBuf> {
    compiled(dir, "fault.c", &["-shared", "-fPIC"])
}

/// A receiver, and where to find it.
pub(crate) struct Receiver {
    pub(crate) daemon: Daemon,
    pub(crate) netdump: SocketAddrV4,
    pub(crate) api: String,
}

impl Receiver {
    /// A receiver whose calls on some files are slow or fail, as the variables say.
    pub(crate) fn with_faults(dir: &Path, library: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Self::command(dir);
        command.env("LD_PRELOAD", library).envs(variables.iter().copied());
        Self::started(command)
    }

    /// One without faults.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::started(Self::command(dir))
    }

    /// The command line of a receiver.
    pub(crate) fn command(dir: &Path) -> Command {
        let mut command = coreferry();
        command.args(["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
        command.args(["--dir", path_text(dir)]);
        command
    }

    /// Starts it.
    pub(crate) fn started(command: Command) -> Self {
        let daemon = Daemon::start(command);
        let ready = daemon.line_starting("ready ");
        let field = |name: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("{name} in {ready}")).to_owned()
        };
        Self {
            netdump: field("netdump=").parse().expect("an address"),
            api: field("api="),
            daemon,
        }
    }

    /// What is listed.
    pub(crate) fn cores(&self) -> Vec<serde_json::Value> {
        let listed = crate::common::run_ok(&["cores", "list", "--json", "--api", &self.api]);
        serde_json::from_str(&listed).expect("an array")
    }
}

/// A store and what is beside it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = crate::common::temp_dir();
        fs::create_dir(dir.path().join("store")).expect("a folder");
        Self { dir }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
