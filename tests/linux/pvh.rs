//! The uncompressed kernel, an ELF file, by its PVH entry.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::case::Case;
use crate::crashes;
use crate::kernels::Kernel;
use crate::run;
use crate::testbed::Testbed;

/// Twenty times what it takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A guest that is started by its PVH entry, and crashes like any other.
pub(crate) fn case(kernel: Kernel, testbed: &Testbed) -> Result<Case> {
    let case = Case::new("pvh", kernel)
        .image(vmlinux(testbed)?)
        .payload(crashes::CRASH)
        .expect(|seen| {
            seen.exited(10)?;
            let ready = seen.line("GUEST READY")?;
            ensure!(ready.ends_with(" 2 CPUs"), "{ready}");
            seen.line("the guest reported a panic (pvpanic)")?;
            crashes::panicked(seen, "Kernel panic - not syncing: sysrq triggered crash")?;
            let line = seen.line("VMCOREINFO")?;
            ensure!(line.contains("fw_cfg") && line.contains("agrees=true"), "{line}");
            Ok(format!("2 vCPUs, {}", crashes::stored(seen)?))
        });
    Ok(case)
}

/// The kernel with its symbols, without them.
pub(crate) fn vmlinux(testbed: &Testbed) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let stripped = dir.path().join("vmlinux");
    let mut strip = Command::new("strip");
    strip.args(["-s", "-o"]).arg(&stripped).arg(testbed.path("vmlinux"));
    run::output(&mut strip, dir.path(), "", LIMIT)?;
    let bytes = fs::read(&stripped).context("strip left no file")?;
    ensure!(bytes.starts_with(b"\x7fELF"), "not an ELF file");
    Ok(bytes)
}
