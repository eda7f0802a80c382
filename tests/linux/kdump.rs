//! A guest that is set up to dump itself: it is left alone for a while, and dumped when that fails.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::case::Case;
use crate::crashes::{panicked, stored};
use crate::kernels::Kernel;
use crate::run;
use crate::testbed::Testbed;

/// Loads a second kernel for its panic and panics. The second kernel has the same drivers and panics in its turn.
const PAYLOAD: &str = r#"
load pvpanic_mmio; chmod 755 /kexec_load
mkdir /second; printf 'load pvpanic_mmio\necho "SECOND KERNEL"\necho c > /proc/sysrq-trigger\n' > /second/payload
(cd /second; echo payload | cpio -o -H newc 2> /dev/null) >> /initrd
/kexec_load /vmlinuz /initrd 'console=ttyS0 quiet panic=-1 nr_cpus=1 reset_devices' || poweroff -f
rm /vmlinuz /initrd
echo "SECOND LOADED $(cat /sys/kernel/kexec_crash_loaded)"; echo c > /proc/sysrq-trigger
"#;

/// The case; the program that loads the second kernel is built into `dir`.
pub(crate) fn case(kernel: Kernel, testbed: &Testbed, dir: &Path) -> Result<Case> {
    let program = dir.join("kexec_load");
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O1", "-Wall", "-Werror", "-x", "c", "-", "-o"])
        .arg(&program);
    run::output(&mut cc, dir, include_str!("kexec_load.c"), Duration::from_secs(60))?;
    // Without crash_kexec_post_notifiers Linux starts its second kernel before anybody, pvpanic included, hears of the panic.
    Ok(Case::new("kdump", kernel)
        // Wherever KASLR puts the first kernel, 160 MiB are free in one piece beside it.
        .mem_mib(512)
        .append("crashkernel=160M crash_kexec_post_notifiers=1")
        .file("kexec_load", bytes(&program)?)
        .file("vmlinuz", bytes(&kernel.file(testbed, "vmlinuz"))?)
        .file("initrd", bytes(&kernel.file(testbed, "initrd.cpio"))?)
        .payload(PAYLOAD)
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
        }))
}

fn bytes(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
