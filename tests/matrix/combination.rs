//! What the guests of the matrix are made of.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::common::skip;
use crate::guest::Guest;
use crate::testbed::Testbed;

const KERNELS: [&str; 4] = ["6.1-cloud", "6.1-generic", "6.12-cloud", "6.12-generic"];

/// How much memory a guest has, and how much of it is below 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    mib: u32,
    below_4g_mib: u32,
}

/// Little, so that a guest is quick: all of it below 4 GiB, or most of it above.
const LITTLE: [Memory; 2] = [
    Memory {
        mib: 192,
        below_4g_mib: 192,
    },
    Memory {
        mib: 384,
        below_4g_mib: 128,
    },
];
/// As people have it.
const PLENTY: [Memory; 2] = [
    Memory {
        mib: 512,
        below_4g_mib: 512,
    },
    Memory {
        mib: 5120,
        below_4g_mib: 3072,
    },
];

impl fmt::Display for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { mib, .. } if mib.is_multiple_of(1024) => write!(out, "{} GiB", mib / 1024),
            Self { mib, below_4g_mib } if below_4g_mib < mib => write!(out, "{mib} MiB, above 4 GiB"),
            Self { mib, .. } => write!(out, "{mib} MiB"),
        }
    }
}

/// One guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Combination {
    kernel: &'static str,
    pub(crate) vcpus: usize,
    memory: Memory,
    /// Whether fw_cfg's driver tells where VMCOREINFO is.
    pub(crate) driver: bool,
}

impl fmt::Display for Combination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = if self.driver { "yes" } else { "no" };
        write!(out, "{}\t{}\t{}\t{driver}", self.kernel, self.vcpus, self.memory)
    }
}

impl Combination {
    /// Eight in which any two choices meet, but for kernels and numbers of vCPUs; little memory, so that they are quick.
    pub(crate) fn eight() -> Vec<Self> {
        const LOW: Memory = LITTLE[0];
        const HIGH: Memory = LITTLE[1];
        let rows = [
            (0, 1, LOW, true),
            (0, 4, HIGH, false),
            (1, 2, LOW, false),
            (1, 4, HIGH, true),
            (2, 2, HIGH, true),
            (2, 1, LOW, false),
            (3, 4, LOW, true),
            (3, 1, HIGH, false),
        ];
        let made = rows.into_iter().filter_map(|(kernel, vcpus, memory, driver)| {
            Some(Self {
                kernel: KERNELS.get(kernel)?,
                vcpus,
                memory,
                driver,
            })
        });
        made.collect()
    }

    /// All of them, with memory as people have it. What tells the most comes first, for a run may be cut off; 5 GiB take longest.
    pub(crate) fn all() -> Vec<Self> {
        let [little, much] = PLENTY;
        let order = [(2, little), (2, much), (4, little), (1, little), (4, much), (1, much)];
        let of = |(vcpus, memory), driver| {
            KERNELS.map(|kernel| Self {
                kernel,
                vcpus,
                memory,
                driver,
            })
        };
        let both = order
            .into_iter()
            .flat_map(|guest| [true, false].map(|driver| of(guest, driver)));
        both.flatten().collect()
    }

    /// Whether Debian 12's crash is older than its kernel.
    pub(crate) fn is_too_new_for_crash(&self) -> bool {
        self.kernel.starts_with("6.12")
    }

    /// Whether the testbed has its kernel. If not, says why; in CI that is a failure.
    pub(crate) fn is_there(&self, testbed: &Testbed) -> bool {
        let release = testbed.path("guests").join(self.kernel).join("release");
        if !release.exists() {
            skip(&format!(
                "the testbed lacks {} (cargo xtask testbed --all)",
                release.display()
            ));
        }
        release.exists()
    }

    /// What `uname -r` says in it.
    pub(crate) fn release(&self, testbed: &Testbed) -> Result<String> {
        let file = testbed.path("guests").join(self.kernel).join("release");
        let release = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(release.trim().to_owned())
    }

    /// The guest, whose initramfs is made in `dir`.
    pub(crate) fn guest(&self, testbed: &Testbed, dir: &Path) -> Result<Guest> {
        let driver = if self.driver { "qemu_fw_cfg" } else { "" };
        let panic = format!("load pvpanic_mmio {driver}\necho c > /proc/sysrq-trigger\n");
        Ok(Guest {
            mem_mib: self.memory.mib,
            below_4g_mib: self.memory.below_4g_mib,
            vcpus: self.vcpus,
            ..Guest::of_kernel(testbed, self.kernel, &panic, dir)?
        })
    }
}
