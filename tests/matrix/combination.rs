//! What the guests of the matrix are made of.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::common::skip;
use crate::guest::Guest;
use crate::testbed::Testbed;

/// The kernel whose symbols the testbed has.
pub(crate) const WITH_SYMBOLS: &str = "6.1-cloud";
const KERNELS: [&str; 4] = [WITH_SYMBOLS, "6.1-generic", "6.12-cloud", "6.12-generic"];

/// Where the guest's memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// Below 4 GiB, in MiB.
    Low(u32),
    /// So much in all, all but 128 MiB of it above 4 GiB.
    High(u32),
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
        let memory = match self.memory {
            Memory::Low(mib) => format!("{mib} MiB"),
            Memory::High(mib) => format!("{mib} MiB, above 4 GiB"),
        };
        let driver = if self.driver { "yes" } else { "no" };
        write!(out, "{}\t{}\t{memory}\t{driver}", self.kernel, self.vcpus)
    }
}

impl Combination {
    /// Eight in which any two choices meet, but for kernels and numbers of vCPUs; little memory, so that they are quick.
    pub(crate) fn eight() -> Vec<Self> {
        const LOW: Memory = Memory::Low(192);
        const HIGH: Memory = Memory::High(384);
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

    /// All of them, with memory as people have it.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for kernel in KERNELS {
            for vcpus in [1, 2, 4] {
                for memory in [Memory::Low(512), Memory::High(5120)] {
                    for driver in [true, false] {
                        all.push(Self {
                            kernel,
                            vcpus,
                            memory,
                            driver,
                        });
                    }
                }
            }
        }
        all
    }

    pub(crate) fn has_symbols(&self) -> bool {
        self.kernel == WITH_SYMBOLS
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
        let (mem_mib, below_4g_mib) = match self.memory {
            Memory::Low(mib) => (mib, mib),
            Memory::High(mib) => (mib, 128),
        };
        Ok(Guest {
            mem_mib,
            below_4g_mib,
            vcpus: self.vcpus,
            ..Guest::of_kernel(testbed, self.kernel, &panic, dir)?
        })
    }
}
