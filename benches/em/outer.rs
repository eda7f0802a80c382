//! The machine with everything in it: the binary under test, QEMU, a kernel and its guests' initramfs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::testbed::Testbed;
use crate::{Amount, machine, pack, script, tools};

/// Three guests that come up one after the other took 90 s on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
/// Runs of iperf3 in a round; each may take a few seconds more than it was told to.
const RUNS_PER_ROUND: u32 = 15;
const RUN_LIMIT_S: u32 = 60;
/// The emulation itself fails now and then.
const ATTEMPTS: u32 = 3;
/// What QEMU reads for a guest that it loads itself.
const FIRMWARE: [&str; 3] = ["seabios/bios-256k.bin", "qemu/linuxboot_dma.bin", "qemu/kvmvapic.bin"];

/// Runs the machine with guests of a kernel; returns what it said.
pub(crate) fn run(testbed: &Testbed, dir: &Path, kernel: &str, amount: Amount) -> Result<String> {
    let initrd = dir.join("outer.cpio");
    write_initrd(testbed, dir, &initrd, kernel, amount)?;
    let mut failure = None;
    for _ in 0..ATTEMPTS {
        match boot(testbed, dir, &initrd, amount) {
            Ok(said) => return Ok(said),
            Err(error) => eprintln!("once more: {:#}", failure.insert(error)),
        }
    }
    Err(failure.context("it was never tried")?)
}

fn boot(testbed: &Testbed, dir: &Path, initrd: &Path, amount: Amount) -> Result<String> {
    let mut qemu = machine::qemu(testbed, initrd);
    let limit = BOOT_LIMIT + Duration::from_secs((amount.rounds * RUNS_PER_ROUND * RUN_LIMIT_S).into());
    let said = machine::run(&mut qemu, dir, limit)?;
    if said.contains("OUTER END 0") {
        Ok(said)
    } else {
        bail!("it ended early: {said}")
    }
}

fn write_initrd(testbed: &Testbed, dir: &Path, initrd: &Path, kernel: &str, amount: Amount) -> Result<()> {
    let root = dir.join("outer");
    let place = root.join("p");
    fs::create_dir_all(&place)?;
    pack::copy_binary(&root, &place)?;
    let packages = testbed.path("pkgs");
    let inside = tools::files(testbed, &["iperf3"])?;
    let qemu = tools::bundle(&packages, "q", &["usr/bin/qemu-system-x86_64"])?;
    write_all(&place, &[inside.as_slice(), qemu.as_slice()].concat())?;
    for file in FIRMWARE {
        let from = packages.join("usr/share").join(file);
        let name = from.file_name().context("a file has a name")?;
        fs::copy(&from, place.join("q").join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let guest = testbed.path("guests").join(kernel);
    fs::copy(guest.join("vmlinuz"), place.join("vmlinuz")).with_context(|| format!("no kernel {kernel}"))?;
    let own = dir.join("guest");
    write_all(&own, &inside)?;
    fs::write(own.join("payload"), script::GUEST)?;
    pack::append(
        testbed,
        dir,
        &guest.join("initrd.cpio"),
        &own,
        &place.join("initrd.cpio"),
    )?;
    let Amount { rounds, seconds, pings } = amount;
    let variables = format!("ROUNDS={rounds}; SECONDS_EACH={seconds}; PINGS={pings}\n");
    fs::write(place.join("run"), variables + script::MACHINE)?;
    pack::append(testbed, dir, &testbed.path("l1.cpio"), &root, initrd)?;
    fs::remove_dir_all(&root).context("cannot remove what was packed")
}

fn write_all(place: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    for (path, bytes) in files {
        let file = place.join(path);
        fs::create_dir_all(file.parent().context("a file has a folder")?)?;
        fs::write(file, bytes)?;
    }
    Ok(())
}
