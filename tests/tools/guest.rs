//! A stock guest that panics, and QEMU's own dump of it.

use crate::run;
use crate::testbed::Testbed;
use anyhow::{Result, bail, ensure};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// vCPUs of the guest: two, so that a reader which mixes them up is found.
pub(crate) const VCPUS: usize = 2;

/// Boots the guest with `crash=1`, waits for its panic and lets QEMU dump it as ELF.
pub(crate) fn panicked_core(testbed: &Testbed, dir: &Path) -> Result<PathBuf> {
    let (log, dump) = (dir.join("console.log"), dir.join("qemu.elf"));
    fs::write(&log, "")?;
    let mut qemu = testbed
        .command("qemu-system-x86_64")
        // Half of the memory stands above 4 GiB, so that there are two ranges that the kernel uses.
        .args(["-M", "pc,max-ram-below-4g=128M", "-m", "256M", "-smp", "2"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-action",
            "panic=pause",
        ])
        .args(["-device", "pvpanic", "-device", "vmcoreinfo"])
        .arg("-kernel")
        .arg(testbed.path("kernel/vmlinuz"))
        .arg("-initrd")
        .arg(testbed.path("l2.cpio"))
        .args([
            "-append",
            "console=ttyS0 loglevel=5 crash=1",
            "-monitor",
            "stdio",
            "-serial",
        ])
        .arg(format!("file:{}", log.display()))
        .stdin(Stdio::piped())
        .stdout(fs::File::create(dir.join("monitor.log"))?)
        .stderr(fs::File::create(dir.join("qemu.log"))?)
        .spawn()?;
    let dumped = dump_after_panic(&mut qemu, &log, &dump);
    if dumped.is_err() {
        let _ = qemu.kill();
    }
    let ended = run::wait(&mut qemu, Duration::from_secs(60));
    dumped?;
    ensure!(
        ended?.success() && dump.exists(),
        "QEMU wrote no dump: {}",
        fs::read_to_string(dir.join("qemu.log"))?
    );
    Ok(dump)
}

fn dump_after_panic(qemu: &mut Child, log: &Path, dump: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    // The trace's end is the last thing that is printed before pvpanic stops the machine.
    while !fs::read_to_string(log)?.contains("</TASK>") {
        if let Some(status) = qemu.try_wait()? {
            bail!("QEMU ended early with {status}; console: {}", fs::read_to_string(log)?);
        }
        ensure!(
            Instant::now() < deadline,
            "no panic in 120 s; console: {}",
            fs::read_to_string(log)?
        );
        sleep(Duration::from_millis(50));
    }
    sleep(Duration::from_millis(500));
    let Some(mut monitor) = qemu.stdin.take() else {
        bail!("QEMU has no monitor")
    };
    writeln!(monitor, "dump-guest-memory {}\nquit", dump.display())?;
    Ok(())
}
