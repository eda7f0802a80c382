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

/// An oops that ends in a panic; the registers that the fault found are on record.
const OOPS: &str = "
load pvpanic_mmio
insmod /mods/coreferry_shim.ko
echo 1 > /proc/sys/kernel/panic_on_oops
insmod /mods/oops.ko
";

/// The guests with the module.
pub(crate) fn cases(kernel: Kernel, testbed: &Testbed) -> Result<Vec<Case>> {
    let release = kernel.release(testbed)?;
    let [shim, oops] = modules(kernel, testbed)?;
    Ok(vec![asked(kernel, &release, shim.clone()), oopsed(kernel, shim, oops)])
}

/// A guest with the module, which was loaded last and after it had been removed once.
fn asked(kernel: Kernel, release: &str, shim: Vec<u8>) -> Case {
    let release = release.to_owned();
    Case::new("shim", kernel)
        .file("mods/coreferry_shim.ko", shim)
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
            told(seen, &release)?;
            Ok(format!("told by the panic record, {}", crashes::stored(seen)?))
        })
}

fn oopsed(kernel: Kernel, shim: Vec<u8>, oops: Vec<u8>) -> Case {
    Case::new("oopsed", kernel)
        .file("mods/coreferry_shim.ko", shim)
        .file("mods/oops.ko", oops)
        .payload(OOPS)
        .brings_core()
        .expect(|seen| {
            seen.exited(10)?;
            let line = seen.line("the guest panicked on CPU ")?;
            ensure!(line.ends_with("Kernel panic - not syncing: Fatal exception"), "{line}");
            let core = fs::read(seen.file("core/vmcore"))?;
            let (record, _) = record(&core)?;
            // What tests/linux/oops.c loads.
            let [rax, rbx, rsi, cr2] = [0, 1, 4, 19].map(|index| record.register(index));
            ensure!(
                (rax, rbx, rsi, cr2) == (0xcf00_0cf0, 0x5ee_d0dd_ba11, 0x600d_deed, 0xcf00_0cf0),
                "rax {rax:#x}, rbx {rbx:#x}, rsi {rsi:#x}, cr2 {cr2:#x}"
            );
            Ok(format!("the registers of the fault, {}", crashes::stored(seen)?))
        })
}

/// Builds the module, and the one that faults.
fn modules(kernel: Kernel, testbed: &Testbed) -> Result<[Vec<u8>; 2]> {
    let dir = tempfile::tempdir()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-shim/linux");
    for file in ["Makefile", "coreferry_shim.c", "coreferry_shim_abi.h"] {
        fs::copy(source.join(file), dir.path().join(file)).with_context(|| format!("no {file}"))?;
    }
    let oops = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/linux/oops.c");
    fs::copy(oops, dir.path().join("oops.c")).context("no oops.c")?;
    let makefile = dir.path().join("Makefile");
    let rules = fs::read_to_string(&makefile)?.replace("obj-m := ", "obj-m := oops.o ");
    fs::write(&makefile, rules)?;
    let headers = testbed.path("headers").join(kernel.name());
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(dir.path())
        .env("LD_LIBRARY_PATH", headers.join("lib"));
    make.arg(format!("KDIR={}", fs::canonicalize(headers.join("build"))?.display()));
    // Type information needs a program that is not among the headers; the module works without.
    run::output(make.arg("CONFIG_DEBUG_INFO_BTF_MODULES="), dir.path(), "", LIMIT)?;
    let built = |name: &str| {
        let built = dir.path().join(name);
        run::output(Command::new("strip").arg("-g").arg(&built), dir.path(), "", LIMIT)?;
        fs::read(&built).with_context(|| format!("make built no {name}"))
    };
    Ok([built("coreferry_shim.ko")?, built("oops.ko")?])
}

/// A panic record's page.
struct Record<'c>(&'c [u8]);

impl Record<'_> {
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap_or_default())
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap_or_default())
    }

    fn text(&self, at: usize) -> &[u8] {
        self.0[at..].split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn register(&self, index: usize) -> u64 {
        self.long(0x040 + 8 * index)
    }
}

/// The record in a core, and the core's memory.
fn record(core: &[u8]) -> Result<(Record<'_>, &[u8])> {
    let memory = core.get(MEMORY_AT..).context("the core has no memory")?;
    let mut pages = memory.chunks_exact(4096);
    let complete = |page: &&[u8]| page.starts_with(b"CFPANIC\0") && page.ends_with(b"DONE");
    let page = pages.find(complete).context("no record in memory")?;
    Ok((Record(page), memory))
}

/// The record lies in the core as docs/guest-shim.md says, and everything that it points at is there.
fn told(seen: &Seen, release: &str) -> Result<()> {
    let core = fs::read(seen.file("core/vmcore"))?;
    let (record, memory) = record(&core)?;
    ensure!(
        record.text(0x128) == b"Linux" && record.text(0x148) == release.as_bytes(),
        "OS and release"
    );
    ensure!(record.word(0x014) < 2, "CPU {}", record.word(0x014));
    let [rip, rsp, cr3] = [16, 7, 20].map(|index| record.register(index));
    // With five levels of page tables the kernel has the upper half from 0xff00… on.
    ensure!(
        record.word(0x100) == 1 && rip >= 0xffff_ffff_8000_0000 && rsp >= 0xff00_0000_0000_0000 && cr3 != 0,
        "registers: rip {rip:#x}, rsp {rsp:#x}, cr3 {cr3:#x}"
    );
    ensure!(record.word(0x104) == 20, "a build id of {} bytes", record.word(0x104));
    ensure!(
        record.long(0x018) > 1_500_000_000_000_000_000,
        "time {}",
        record.long(0x018)
    );
    let (log_at, log_len) = (
        usize::try_from(record.long(0x020))?,
        usize::try_from(record.long(0x028))?,
    );
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
