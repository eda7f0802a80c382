//! `coreferry serve` on free loopback ports.

use std::{
    net::SocketAddrV4,
    path::{Path, PathBuf},
};

use super::{Daemon, coreferry, cores_list, path_text, wait_for};

/// A running receiver with its ports, as its ready line told them.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) daemon: Daemon,
    pub(crate) dir: PathBuf,
    /// Where senders address their first message.
    pub(crate) netdump: SocketAddrV4,
    /// The API as the ready line names it: `127.0.0.1:PORT` or `unix:PATH`.
    pub(crate) api: String,
}

impl Serve {
    /// Starts a receiver on free ports of 127.0.0.1 that stores below `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// As [`Serve::start`], with more arguments; a `--listen` or `--api` among them replaces the free port.
    pub(crate) fn start_with(dir: &Path, more: &[&str]) -> Self {
        let mut command = coreferry();
        command.args(["serve", "--dir", path_text(dir)]);
        for (option, value) in [("--listen", "127.0.0.1:0"), ("--api", "127.0.0.1:0")] {
            if !more.contains(&option) {
                command.args([option, value]);
            }
        }
        command.args(more);
        let daemon = Daemon::start(command);
        let line = daemon.line_starting("ready ");
        let field = |name: &str| {
            let value = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value
                .unwrap_or_else(|| panic!("no {name}= in the ready line: {line}"))
                .to_owned()
        };
        let netdump = field("netdump")
            .parse()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        Self {
            netdump,
            api: field("api"),
            dir: dir.to_owned(),
            daemon,
        }
    }

    /// The cores stored so far, as `cores list --json --dir` tells them.
    pub(crate) fn cores(&self) -> Vec<serde_json::Value> {
        cores_list(&self.dir)
    }

    /// Waits until exactly `count` cores are listed and none of them is still being received.
    pub(crate) fn settled_cores(&self, count: usize) -> Vec<serde_json::Value> {
        wait_for(&format!("{count} settled cores"), || {
            let cores = self.cores();
            let settled = cores.iter().all(|core| core["state"] != "receiving");
            (settled && cores.len() == count).then_some(cores)
        })
    }

    /// The `vmcore` file of a stored core, found by its id below `DIR/cores/<yyyy>/<mm>/`.
    pub(crate) fn vmcore_path(&self, id: &str) -> PathBuf {
        let entries = |dir: &Path| -> Vec<PathBuf> {
            let listing =
                std::fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()));
            listing.map(|entry| entry.expect("a folder entry").path()).collect()
        };
        let months = entries(&self.dir.join("cores"))
            .into_iter()
            .flat_map(|year| entries(&year));
        let mut found = months
            .map(|month| month.join(id).join("vmcore"))
            .filter(|path| path.exists());
        found
            .next()
            .unwrap_or_else(|| panic!("no vmcore of {id} below {}", self.dir.display()))
    }
}
