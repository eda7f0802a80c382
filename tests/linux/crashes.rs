//! Guests that crash, each in a way of its own, and whose memory must arrive whole.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::case::Case;
use crate::kernels::Kernel;
use crate::ours::OurCore;
use crate::seen::Seen;

/// The drivers of a guest that is looked after.
const DRIVERS: &str = "load pvpanic_mmio pvpanic_pci qemu_fw_cfg\n";
/// A crash that somebody asks for.
pub(crate) const CRASH: &str = "load pvpanic_mmio pvpanic_pci qemu_fw_cfg\necho c > /proc/sysrq-trigger\n";

/// The cases of a kernel.
pub(crate) fn cases(kernel: Kernel) -> Vec<Case> {
    vec![
        sysrq("one", kernel, 1),
        sysrq("two", kernel, 2),
        sysrq("eight", kernel, 8),
        early(kernel),
        tripled(kernel),
        nmi(kernel),
    ]
}

/// sysrq-c with that many processors.
pub(crate) fn sysrq(name: &'static str, kernel: Kernel, vcpus: u8) -> Case {
    Case::new(name, kernel)
        .vcpus(vcpus)
        .mem_mib(if vcpus > 2 { 192 } else { 128 })
        .payload(CRASH)
        .expect(move |seen| {
            seen.exited(10)?;
            ensure!(
                seen.line("GUEST READY")?.ends_with(&format!(" {vcpus} CPUs")),
                "{}",
                seen.line("GUEST READY")?
            );
            seen.line("the guest reported a panic (pvpanic)")?;
            seen.line(&format!("frozen: {vcpus} vCPUs"))?;
            panicked(seen, "Kernel panic - not syncing: sysrq triggered crash")?;
            let line = seen.line("VMCOREINFO")?;
            ensure!(line.contains("fw_cfg") && line.contains("true"), "{line}");
            Ok(format!("{vcpus} vCPUs, by pvpanic, {}", stored(seen)?))
        })
}

/// Nothing is loaded yet when there is no init: neither pvpanic nor fw_cfg. Only the console tells.
fn early(kernel: Kernel) -> Case {
    let append = "rdinit=/none init=/none";
    Case::new("early", kernel)
        .options("--panic-console")
        .append(append)
        .expect(|seen| {
            seen.exited(10)?;
            seen.never("GUEST READY")?;
            seen.line("the serial console said: ")?;
            panicked(seen, "Kernel panic - not syncing")?;
            let line = seen.line("VMCOREINFO")?;
            ensure!(line.contains("search") && line.contains("true"), "{line}");
            Ok(format!("by the console, {}", stored(seen)?))
        })
}

/// The same without anybody listening to the console: the kernel resets by a triple fault, and that is no ordinary reset.
fn tripled(kernel: Kernel) -> Case {
    Case::new("tripled", kernel)
        .append("rdinit=/none init=/none reboot=t")
        .expect(|seen| {
            seen.exited(10)?;
            seen.line("a vCPU shut down after a triple fault")?;
            panicked(seen, "Kernel panic - not syncing")?;
            Ok(format!("by a triple fault, {}", stored(seen)?))
        })
}

fn nmi(kernel: Kernel) -> Case {
    let payload = format!("{DRIVERS}echo 1 > /proc/sys/kernel/unknown_nmi_panic; echo 'NMI AWAITED'; sleep 1000\n");
    Case::new("nmi", kernel)
        .payload(&payload)
        .steps("said 'NMI AWAITED' && vms nmi")
        .brings_core()
        .expect(|seen| {
            seen.exited(10)?;
            seen.line("the guest reported a panic (pvpanic)")?;
            // In an NMI Linux only writes to its log, which the console would show later.
            let core = fs::read(seen.file("core/vmcore"))?;
            let words = b"Kernel panic - not syncing: NMI: Not continuing";
            ensure!(
                core.windows(words.len()).any(|window| window == words),
                "the kernel's log in the core does not name the NMI"
            );
            // What its file says is what the kernel says itself (kernel/crash_core.c).
            let core = OurCore::open(&seen.file("core/vmcore"))?;
            let booted = core.note.booted_build_id.as_deref();
            ensure!(booted == core.vmcoreinfo("BUILD-ID").ok(), "{:?}", core.note);
            Ok(format!("by an NMI, {}", stored(seen)?))
        })
}

/// The guest's only core is complete and names this panic.
pub(crate) fn panicked(seen: &Seen, panic: &str) -> Result<()> {
    let core = seen.core()?;
    let text = core["panic"].as_str().context("a core of a panic names it")?;
    ensure!(text.contains(panic), "{core}");
    Ok(())
}

pub(crate) fn stored(seen: &Seen) -> Result<String> {
    let core = seen.core()?;
    let mib = |key: &str| core[key].as_u64().unwrap_or(0) >> 20;
    Ok(format!(
        "complete, {} of {} MiB stored",
        mib("stored_bytes"),
        mib("file_len_bytes")
    ))
}
