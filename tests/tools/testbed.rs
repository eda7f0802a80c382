//! The packages that `cargo xtask` unpacks without installing them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

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

    /// The kernel of a release with debug information, if it is there.
    #[allow(dead_code, reason = "some tests ask nothing that needs it")]
    pub(crate) fn symbols(&self, release: &str) -> Option<PathBuf> {
        let is_of = |folder: &Path| {
            let said = fs::read_to_string(folder.join("release"));
            said.is_ok_and(|said| said.trim() == release)
        };
        if is_of(&self.path("kernel")) {
            return Some(self.path("vmlinux"));
        }
        let folders = fs::read_dir(self.path("symbols")).ok()?;
        let mut folders = folders.filter_map(|entry| Some(entry.ok()?.path()));
        Some(folders.find(|folder| is_of(folder))?.join("vmlinux"))
    }

    /// QEMU without KVM, which boots this kernel and has nothing in it but what is added; a reset ends it.
    #[allow(dead_code, reason = "not every test boots something")]
    pub(crate) fn qemu(&self, kernel: &Path, initrd: &Path, append: &str) -> Command {
        let mut qemu = self.command("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", append]);
        qemu
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
