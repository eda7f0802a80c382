//! passt(1) from the testbed, in the agent's namespace.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Daemon, wait_for};
use crate::network::Network;
use crate::testbed;

/// The program of the testbed, if it is there.
pub(crate) fn find() -> Option<PathBuf> {
    testbed::program("passt")
}

/// A running passt; ends when this is dropped.
pub(crate) struct Passt {
    socket: PathBuf,
    /// Ended before its directory goes.
    _daemon: Daemon,
    _dir: tempfile::TempDir,
}

impl Passt {
    /// Starts it and waits for its socket.
    pub(crate) fn start(network: &Network, program: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // Started as root, passt becomes nobody, and must still be able to make its socket.
        let everyone = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(dir.path(), everyone).expect("a directory for everyone");
        let socket = dir.path().join("passt.sock");
        let mut passt = Command::new(program);
        passt.args(["--foreground", "--stderr", "--socket"]).arg(&socket);
        let daemon = Daemon::start(network.in_agent(&passt));
        wait_for("passt's socket", || socket.exists().then_some(()));
        Self {
            socket,
            _daemon: daemon,
            _dir: dir,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}
