//! A stock guest that panics, and QEMU's own dump of it.

use crate::run;
use crate::testbed::Testbed;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// vCPUs of the guest: two, so that a reader which mixes them up is found.
pub(crate) const VCPUS: usize = 2;

/// It takes some seconds; the rest is room for a busy machine.
const PANIC_LIMIT: Duration = Duration::from_secs(300);

/// On its command line. Without KVM, on a busy machine, the timer may not tick as often as the kernel's check of it wants.
const APPEND: &str = "console=ttyS0 loglevel=5 no_timer_check";

/// How often a guest is booted in all.
const ATTEMPTS: u32 = 3;

/// A guest.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) mem_mib: u32,
    /// The rest of its memory lies above 4 GiB, so that there are two ranges that the kernel uses.
    pub(crate) below_4g_mib: u32,
    pub(crate) vcpus: usize,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// Words on its command line.
    pub(crate) append: String,
}

impl Guest {
    /// The testbed's own guest, which panics when it is up.
    pub(crate) fn new(testbed: &Testbed) -> Self {
        Self {
            mem_mib: 256,
            below_4g_mib: 128,
            vcpus: VCPUS,
            kernel: testbed.path("kernel/vmlinuz"),
            initrd: testbed.path("l2.cpio"),
            append: "crash=1".to_owned(),
        }
    }

    /// A guest of one of the testbed's kernels, which runs `payload`. Its initramfs is made in `dir`.
    #[allow(dead_code, reason = "not every test that has guests has such ones")]
    pub(crate) fn of_kernel(testbed: &Testbed, kernel: &str, payload: &str, dir: &Path) -> Result<Self> {
        let folder = testbed.path("guests").join(kernel);
        let mut initrd = fs::read(folder.join("initrd.cpio"))?;
        // Archives begin at a multiple of four (Linux, buffer-format.rst).
        initrd.resize(initrd.len().next_multiple_of(512), 0);
        initrd.extend(archive_of("payload", payload.as_bytes()));
        let path = dir.join("initrd.cpio");
        fs::write(&path, initrd)?;
        Ok(Self {
            kernel: folder.join("vmlinuz"),
            initrd: path,
            append: "panic=-1".to_owned(),
            ..Self::new(testbed)
        })
    }
}

/// An initramfs of one script (cpio "newc").
fn archive_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, mode, content) in [(name, 0o100_755, content), ("TRAILER!!!", 0, &[])] {
        let (content_len, name_len) = (content.len(), name.len() + 1);
        let zeros = "00000000";
        let header = format!(
            "070701{:08X}{mode:08X}{zeros}{zeros}00000001{zeros}{content_len:08X}{zeros}{zeros}{zeros}{zeros}{name_len:08X}{zeros}{name}\0",
            1
        );
        for part in [header.as_bytes(), content] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

/// A guest that has panicked: it stands still, and its QEMU takes commands.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) monitor: ChildStdin,
    #[allow(dead_code, reason = "for those who measure QEMU")]
    pub(crate) pid: u32,
}

/// Boots the guest, waits for its panic and lets QEMU dump it as ELF.
pub(crate) fn panicked_core(testbed: &Testbed, dir: &Path, guest: &Guest) -> Result<PathBuf> {
    let dump = dir.join("qemu.elf");
    attempts(&mut || {
        boot(testbed, dir, guest, &mut |stopped| {
            // Where pvpanic did not stop the machine it has ended by itself.
            let asked = writeln!(stopped.monitor, "dump-guest-memory {}", dump.display());
            asked.context("QEMU ended before its dump")
        })?;
        ensure!(
            dump.exists(),
            "QEMU wrote no dump: {}",
            fs::read_to_string(dir.join("qemu.log"))?
        );
        Ok(())
    })?;
    Ok(dump)
}

/// Boots the guest, waits for its panic, and ends it after `act`.
#[allow(dead_code, reason = "for those who ask more of QEMU than its ELF dump")]
pub(crate) fn panicked(
    testbed: &Testbed,
    dir: &Path,
    guest: &Guest,
    act: &mut dyn FnMut(&mut Stopped) -> Result<()>,
) -> Result<()> {
    attempts(&mut || boot(testbed, dir, guest, act))
}

/// A guest that dies otherwise, as happens now and then without KVM, is booted again.
fn attempts(once: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    for attempt in 1..ATTEMPTS {
        match once() {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("attempt {attempt}: {error:#}"),
        }
    }
    once()
}

fn boot(testbed: &Testbed, dir: &Path, guest: &Guest, act: &mut dyn FnMut(&mut Stopped) -> Result<()>) -> Result<()> {
    let log = dir.join("console.log");
    fs::write(&log, "")?;
    let mut qemu = testbed
        .qemu(&guest.kernel, &guest.initrd, &format!("{APPEND} {}", guest.append))
        .arg("-M")
        .arg(format!("pc,max-ram-below-4g={}M", guest.below_4g_mib))
        .args(["-m", &format!("{}M", guest.mem_mib), "-smp", &guest.vcpus.to_string()])
        .args(["-action", "panic=pause"])
        .args(["-device", "pvpanic", "-device", "vmcoreinfo"])
        .args(["-monitor", "stdio", "-serial"])
        .arg(format!("file:{}", log.display()))
        .stdin(Stdio::piped())
        .stdout(fs::File::create(dir.join("monitor.log"))?)
        .stderr(fs::File::create(dir.join("qemu.log"))?)
        .spawn()?;
    let acted = after_panic(&mut qemu, &log, act);
    if acted.is_err() {
        let _ = qemu.kill();
    }
    let ended = run::wait(&mut qemu, Duration::from_secs(60));
    acted.with_context(|| format!("console: {}", fs::read_to_string(&log).unwrap_or_default()))?;
    ensure!(
        ended?.success(),
        "QEMU failed: {}",
        fs::read_to_string(dir.join("qemu.log"))?
    );
    Ok(())
}

fn after_panic(qemu: &mut Child, log: &Path, act: &mut dyn FnMut(&mut Stopped) -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + PANIC_LIMIT;
    // The trace's end is the last thing that is printed before pvpanic stops the machine.
    while !has_panicked(&fs::read_to_string(log)?) {
        if let Some(status) = qemu.try_wait()? {
            bail!("QEMU ended early with {status}");
        }
        ensure!(Instant::now() < deadline, "no panic in {PANIC_LIMIT:?}");
        sleep(Duration::from_millis(50));
    }
    sleep(Duration::from_millis(500));
    let Some(monitor) = qemu.stdin.take() else {
        bail!("QEMU has no monitor")
    };
    let mut stopped = Stopped {
        monitor,
        pid: qemu.id(),
    };
    act(&mut stopped)?;
    // Where pvpanic did not stop the machine it may have ended by now; whether it did its work is seen by that.
    let _ = writeln!(stopped.monitor, "quit");
    Ok(())
}

/// Whether a console has the panic that was asked for; another one is none.
fn has_panicked(console: &str) -> bool {
    let (_, trace) = console.split_once("sysrq triggered crash").unwrap_or_default();
    trace.contains("</TASK>")
}
