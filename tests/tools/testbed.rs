//! The packages that `cargo xtask` unpacks without installing them.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::common::skip;

/// What must be there.
const PARTS: [&str; 8] = [
    "bin/qemu-system-x86_64",
    "bin/crash",
    "bin/makedumpfile",
    "bin/gdb",
    "bin/python3",
    "kernel/vmlinuz",
    "vmlinux",
    "l2.cpio",
];

/// A complete testbed folder.
#[derive(Debug)]
pub(crate) struct Testbed {
    dir: PathBuf,
}

impl Testbed {
    /// The testbed, if it is complete. If not, says why on standard error; in CI that is a failure.
    pub(crate) fn find() -> Option<Self> {
        let dir = env::var_os("COREFERRY_TESTBED").map_or_else(|| cache().join("testbed"), PathBuf::from);
        // The programs run in another folder.
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        let missing = PARTS.iter().find(|part| !dir.join(part).exists());
        let Some(missing) = missing else {
            return Some(Self { dir });
        };
        let missing = dir.join(missing);
        skip(&format!(
            "the testbed lacks {} (cargo xtask testbed)",
            missing.display()
        ));
        None
    }

    /// A file of the testbed.
    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }

    /// A program of the testbed, else of the machine.
    pub(crate) fn command(&self, program: &str) -> Command {
        let ours = self.dir.join("bin").join(program);
        Command::new(if ours.exists() { ours } else { PathBuf::from(program) })
    }
}

fn cache() -> PathBuf {
    env::var_os("COREFERRY_CACHE").map_or_else(|| PathBuf::from("target/cache"), PathBuf::from)
}
