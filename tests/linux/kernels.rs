//! The stock kernels of the matrix.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::common;
use crate::testbed::Testbed;

/// A kernel of Debian 12: its own 6.1 or the 6.12 of its backports, for virtual machines (cloud) or for everything (generic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    Cloud61,
    Generic61,
    Cloud612,
    Generic612,
}

impl Kernel {
    /// Its folder in the testbed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kernel::Cloud61 => "6.1-cloud",
            Kernel::Generic61 => "6.1-generic",
            Kernel::Cloud612 => "6.12-cloud",
            Kernel::Generic612 => "6.12-generic",
        }
    }

    /// Whether it has a driver for the em; the cloud kernels have not.
    pub(crate) fn has_e1000(self) -> bool {
        matches!(self, Kernel::Generic61 | Kernel::Generic612)
    }

    /// One of its files: `vmlinuz`, `initrd.cpio` or `release`.
    pub(crate) fn file(self, testbed: &Testbed, name: &str) -> PathBuf {
        testbed.path("guests").join(self.name()).join(name)
    }

    /// What `uname -r` says in it.
    pub(crate) fn release(self, testbed: &Testbed) -> Result<String> {
        let file = self.file(testbed, "release");
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// Whether the testbed has it and the machine around it. If not, says why on standard error; in CI that is a failure.
    pub(crate) fn is_there(self, testbed: &Testbed) -> bool {
        let mut needed = vec![
            self.file(testbed, "release"),
            testbed.path("l1.cpio"),
            testbed.path("bin/e2fsck"),
        ];
        if self.has_e1000() {
            needed.push(testbed.path("inside"));
        }
        let missing = needed.iter().find(|file| !file.exists());
        if let Some(missing) = missing {
            let missing = missing.display();
            common::skip(&format!("the testbed lacks {missing} (cargo xtask testbed --all)"));
        }
        missing.is_none()
    }
}
