//! A guest that starts another kernel by kexec: for its own dump, where it is left alone for a while and dumped when that fails, or
//! at once. Where that is a kernel of another version, the core is one of the kernel that ran, and says what was booted beside it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vmm_agent::kernel::build_id;

use crate::case::Case;
use crate::crashes::{panicked, stored};
use crate::kept::Desk;
use crate::kernels::Kernel;
use crate::ours::OurCore;
use crate::seen::Seen;
use crate::testbed::Testbed;
use crate::{pvh, run};

/// What the second kernel runs, with the same drivers, and how it is loaded. A program's words and the kernel's share the console: the
/// program's come first. The first one's VMCOREINFO is told by fw_cfg; the second one's by nobody.
const SECOND: &str = r#"
load pvpanic_mmio qemu_fw_cfg; chmod 755 /kexec_load
mkdir /second; printf 'load pvpanic_mmio\necho "SECOND KERNEL $(uname -r)"; sleep 2\necho c > /proc/sysrq-trigger\n' > /second/payload
(cd /second; echo payload | cpio -o -H newc 2> /dev/null) >> /initrd
words='console=ttyS0 quiet panic=-1'
"#;
/// Loads the second kernel for the panic, and panics.
const AT_PANIC: &str = r#"
/kexec_load /vmlinuz /initrd "$words nr_cpus=1 reset_devices" || poweroff -f
rm /vmlinuz /initrd
echo "SECOND LOADED $(cat /sys/kernel/kexec_crash_loaded)"; echo c > /proc/sysrq-trigger
"#;
/// Goes on as the second kernel.
const AT_ONCE: &str = "/kexec_load /vmlinuz /initrd \"$words\" now\n";

/// Its dump kernel is of another version, or it goes on as one.
const OTHERS: [&str; 2] = ["kdump-other", "kexec-other"];

/// The cases of a kernel; the program that loads the second one is built into `dir`.
pub(crate) fn cases(kernel: Kernel, testbed: &Testbed, dir: &Path) -> Result<Vec<Case>> {
    let program = dir.join("kexec_load");
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O1", "-Wall", "-Werror", "-x", "c", "-", "-o"])
        .arg(&program);
    run::output(&mut cc, dir, include_str!("kexec_load.c"), Duration::from_secs(60))?;
    let case = |name, second: Kernel, how: &str| {
        anyhow::Ok(
            Case::new(name, kernel)
                // Wherever KASLR puts the first kernel, 160 MiB are free in one piece beside it.
                .mem_mib(512)
                .file("kexec_load", bytes(&program)?)
                .file("vmlinuz", bytes(&second.file(testbed, "vmlinuz"))?)
                .file("initrd", bytes(&second.file(testbed, "initrd.cpio"))?)
                .payload(&format!("{SECOND}{how}")),
        )
    };
    let mut cases = vec![at_panic(case("kdump", kernel, AT_PANIC)?)];
    if let Some(other) = other(kernel) {
        let [kdump, kexec] = OTHERS;
        cases.push(keeps(at_panic(case(kdump, other, AT_PANIC)?), kernel, testbed)?);
        let kexec = case(kexec, other, AT_ONCE)?.expect(|seen| {
            seen.exited(10)?;
            seen.line("SECOND KERNEL")?;
            panicked(seen, "sysrq triggered crash")?;
            Ok(format!("went on as another kernel, {}", stored(seen)?))
        });
        cases.push(keeps(kexec, kernel, testbed)?);
    }
    Ok(cases)
}

/// Left alone when it panics, and dumped when its second kernel does.
fn at_panic(case: Case) -> Case {
    // Without crash_kexec_post_notifiers Linux starts its second kernel before anybody, pvpanic included, hears of the panic.
    case.append("crashkernel=160M crash_kexec_post_notifiers=1")
        .expect(|seen| {
            seen.exited(10)?;
            seen.line("SECOND LOADED 1")?;
            seen.line("the guest panicked and dumps itself (pvpanic CRASHLOADED); nothing is done about it for now")?;
            seen.line("SECOND KERNEL")?;
            let dumps = seen.count("begins");
            ensure!(dumps == 1, "{dumps} dumps, not 1");
            seen.line("the guest's own dump failed or took too long")?;
            panicked(seen, "sysrq triggered crash")?;
            Ok(format!("left alone, then dumped, {}", stored(seen)?))
        })
}

/// Its first kernel is in the core; of one that could have symbols the testbed has the uncompressed image.
fn keeps(case: Case, kernel: Kernel, testbed: &Testbed) -> Result<Case> {
    let case = case.options("--keep-kernel").brings_core();
    Ok(match kernel {
        Kernel::Cloud61 => case.image(pvh::vmlinux(testbed)?),
        _ => case,
    })
}

/// The kernel of another version that one of the small ones starts.
fn other(kernel: Kernel) -> Option<Kernel> {
    match kernel {
        Kernel::Cloud61 => Some(Kernel::Cloud612),
        Kernel::Cloud612 => Some(Kernel::Cloud61),
        Kernel::Generic61 | Kernel::Generic612 => None,
    }
}

/// A core of the second kernel says so, names the first one as what was booted, and never takes its file for symbols.
pub(crate) fn check(testbed: &Testbed, dir: &Path, kernel: Kernel, all: &[Seen]) -> Result<()> {
    let Some(second) = other(kernel) else { return Ok(()) };
    for seen in all.iter().filter(|seen| OTHERS.contains(&seen.name.as_str())) {
        check_one(testbed, dir, [kernel, second], seen).with_context(|| seen.name.clone())?;
    }
    Ok(())
}

fn check_one(testbed: &Testbed, dir: &Path, kernels: [Kernel; 2], seen: &Seen) -> Result<()> {
    let [first, second] = kernels;
    let id_of = |kernel: Kernel| anyhow::Ok(build_id::of(&File::open(kernel.file(testbed, "vmlinuz"))?)?);
    let (booted, ran) = (id_of(first)?, id_of(second)?);
    ensure!(booted != ran, "both have the build id {ran}");
    let release = second.release(testbed)?.trim().to_owned();
    seen.line(&format!("SECOND KERNEL {release}"))?;

    let core = OurCore::open(&seen.file("core/vmcore"))?;
    ensure!(core.vmcoreinfo("OSRELEASE")? == release, "{}", core.vmcoreinfo);
    ensure!(core.vmcoreinfo("BUILD-ID")? == ran, "{}", core.vmcoreinfo);
    let note = &core.note;
    let said = (&note.release, &note.build_id, &note.booted_build_id);
    ensure!(
        said == (&Some(release.clone()), &Some(ran.clone()), &Some(booted.clone())),
        "{note:?}"
    );
    ensure!(note.kept_kernel.is_some(), "{note:?}");

    let desk = Desk::new(testbed, dir, seen)?;
    let info = desk.say(&["info", "latest"])?;
    for line in [
        format!("build id     {ran}"),
        format!("booted with  another kernel, build id {booted}"),
    ] {
        ensure!(info.lines().any(|there| there == line), "`{line}` is not said:\n{info}");
    }
    let complaint = desk.refused(&[])?;
    for part in [
        format!("no symbols for kernel {release}, build id {ran}"),
        " in the core is of another kernel".to_owned(),
    ] {
        ensure!(complaint.contains(&part), "`{part}` is not said:\n{complaint}");
    }
    eprintln!("{}: {release}, build id {ran}, booted with {booted}", seen.name);
    Ok(())
}

fn bytes(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
