//! Debuggers open the core of a stock guest.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::case::Case;
use crate::crashes;
use crate::kernels::Kernel;
use crate::ours::OurCore;
use crate::readers;
use crate::seen::Seen;
use crate::testbed::Testbed;

/// The guest, of the kernel whose debug information the testbed has.
pub(crate) fn cases() -> Vec<Case> {
    vec![crashes::sysrq("opened", Kernel::Cloud61, 2).brings_core()]
}

/// Each reader opens its core.
pub(crate) fn check(testbed: &Testbed, dir: &Path, all: &[Seen]) -> Result<()> {
    let Some(seen) = all.iter().find(|seen| seen.file("core").exists()) else {
        anyhow::bail!("no core was brought along")
    };
    let core = OurCore::open(&seen.file("core/vmcore"))?;
    let note = &core.note;
    ensure!((note.trigger.as_str(), note.vcpus.len()) == ("pvpanic", 2), "{note:?}");
    ensure!(note.release.as_deref() == core.vmcoreinfo("OSRELEASE").ok(), "{note:?}");
    ensure!(note.console_tail.contains("sysrq triggered crash"), "{note:?}");
    ensure!(core.cpus.len() == 2, "registers of {} vCPUs", core.cpus.len());
    eprintln!("readelf: {}", readers::readelf(testbed, dir, &core)?);
    eprintln!("gdb: {}", readers::gdb(testbed, dir, &core)?);
    eprintln!("drgn: {}", readers::drgn(testbed, dir, &core)?);
    eprintln!("crash: {}", readers::crash(testbed, dir, &core)?);
    Ok(())
}
