//! The guest-shim's module for Linux, built against the guest's headers: the panic record tells more than pvpanic, and the host has
//! it before pvpanic says anything.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::case::Case;
use crate::crashes;
use crate::kernels::Kernel;
use crate::run;
use crate::seen::Seen;
use crate::testbed::Testbed;

/// Twenty times what it takes.
const LIMIT: Duration = Duration::from_secs(120);
/// pvpanic is there first, and with the highest priority; fw_cfg's driver, which would tell where VMCOREINFO lies, is not there.
const PAYLOAD: &str = "
load pvpanic_mmio pvpanic_pci
for again in 1 2; do
  insmod /mods/coreferry_shim.ko && echo SHIM LOADED
  [ $again = 2 ] || rmmod coreferry_shim || echo RMMOD FAILED
done
echo c > /proc/sysrq-trigger
";
/// Where memory begins in a core.
const MEMORY_AT: usize = 1 << 20;
const PANIC: &str = "Kernel panic - not syncing: sysrq triggered crash";

/// A guest with the module, which was loaded last and after it had been removed once.
pub(crate) fn case(kernel: Kernel, testbed: &Testbed) -> Result<Case> {
    let release = kernel.release(testbed)?;
    let case = Case::new("shim", kernel)
        .file("mods/coreferry_shim.ko", module(kernel, testbed)?)
        .payload(PAYLOAD)
        .brings_core()
        .expect(move |seen| {
            seen.exited(10)?;
            ensure!(
                seen.count("SHIM LOADED") == 2,
                "it cannot be loaded, removed and loaded again"
            );
            seen.never("RMMOD FAILED")?;
            // This is the trigger's text, which the message in the record is a part of.
            let line = seen.line("the guest panicked on CPU ")?;
            ensure!(line.ends_with(PANIC), "{line}");
            crashes::panicked(seen, PANIC)?;
            let line = seen.line("VMCOREINFO")?;
            ensure!(line.contains("panic-record") && line.contains("agrees=true"), "{line}");
            record(seen, &release)?;
            Ok(format!("told by the panic record, {}", crashes::stored(seen)?))
        });
    Ok(case)
}

/// Builds the module.
fn module(kernel: Kernel, testbed: &Testbed) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-shim/linux");
    for file in ["Makefile", "coreferry_shim.c", "coreferry_shim_abi.h"] {
        fs::copy(source.join(file), dir.path().join(file)).with_context(|| format!("no {file}"))?;
    }
    let headers = testbed.path("headers").join(kernel.name());
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(dir.path())
        .env("LD_LIBRARY_PATH", headers.join("lib"));
    make.arg(format!("KDIR={}", fs::canonicalize(headers.join("build"))?.display()));
    // Type information needs a program that is not among the headers; the module works without.
    run::output(make.arg("CONFIG_DEBUG_INFO_BTF_MODULES="), dir.path(), "", LIMIT)?;
    let built = dir.path().join("coreferry_shim.ko");
    run::output(Command::new("strip").arg("-g").arg(&built), dir.path(), "", LIMIT)?;
    fs::read(built).context("make built no module")
}

/// The record lies in the core as docs/guest-shim.md says, and everything that it points at is there.
fn record(seen: &Seen, release: &str) -> Result<()> {
    let core = fs::read(seen.file("core/vmcore"))?;
    let memory = core.get(MEMORY_AT..).context("the core has no memory")?;
    let mut pages = memory.chunks_exact(4096);
    let complete = |page: &&[u8]| page.starts_with(b"CFPANIC\0") && page.ends_with(b"DONE");
    let page = pages.find(complete).context("no record in memory")?;
    let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap_or_default());
    let long = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap_or_default());
    let text = |at: usize| page[at..].split(|byte| *byte == 0).next().unwrap_or_default();
    ensure!(
        text(0x128) == b"Linux" && text(0x148) == release.as_bytes(),
        "OS and release"
    );
    ensure!(word(0x014) < 2, "CPU {}", word(0x014));
    let (rip, rsp, cr3) = (long(0x040 + 16 * 8), long(0x040 + 7 * 8), long(0x040 + 20 * 8));
    ensure!(
        // With five levels of page tables the kernel has the upper half from 0xff00… on.
        word(0x100) == 1 && rip >= 0xffff_ffff_8000_0000 && rsp >= 0xff00_0000_0000_0000 && cr3 != 0,
        "registers: rip {rip:#x}, rsp {rsp:#x}, cr3 {cr3:#x}"
    );
    ensure!(word(0x104) == 20, "a build id of {} bytes", word(0x104));
    ensure!(long(0x018) > 1_500_000_000_000_000_000, "time {}", long(0x018));
    let (log_at, log_len) = (usize::try_from(long(0x020))?, usize::try_from(long(0x028))?);
    let log = memory
        .get(log_at..log_at + log_len)
        .context("the log is outside of memory")?;
    let log = String::from_utf8_lossy(log);
    ensure!(
        log.contains("sysrq: Trigger a crash") && log.contains(PANIC),
        "log:\n{log}"
    );
    Ok(())
}
