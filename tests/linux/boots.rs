//! Guests that live an ordinary life: their drivers find our devices, and no end that they choose is a crash.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::case::Case;
use crate::kernels::Kernel;
use crate::run;
use crate::seen::Seen;
use crate::testbed::Testbed;

/// Which driver is bound to what, the network in both directions, and the disk. It stays until it was asked three times for an
/// echo.
const DEVICES: &str = r#"
load virtio_pci virtio_net virtio_blk virtio_rng virtio_balloon e1000 crc32c_generic ext4 pvpanic_mmio pvpanic_pci qemu_fw_cfg
for device in /sys/bus/pci/devices/* /sys/bus/virtio/devices/* /sys/bus/platform/devices/QEMU*; do
  [ -e $device/driver ] && echo "BOUND $(basename $(readlink -f $device/driver)) to ${device##*/}"
done
ip link set lo up; ip link set eth0 up; ip addr add 10.9.$N.2/24 dev eth0
until [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do sleep 0.2; done
echo "LINK of $(basename $(readlink -f /sys/class/net/eth0/device/driver))"
ping -c 3 10.9.$N.1 && echo "PING OUT"
mount -t ext4 /dev/vda /mnt && head -c 3000000 /dev/urandom > /mnt/random && echo "DISK $(md5sum < /mnt/random)"
umount /mnt
until [ "$(awk '/^Icmp: [0-9]/ { print $10 }' /proc/net/snmp)" -ge 3 ]; do sleep 0.5; done
"#;
/// A guest that has several lives counts them in its disk's first sector, which ext4 leaves alone.
pub(crate) const COUNT_LIVES: &str = r#"
load virtio_pci virtio_blk
life=$(($(head -c 512 /dev/vda | tr -dc 0-9)+1)); echo $life | dd of=/dev/vda bs=512 conv=sync 2> /dev/null; sync
echo "LIFE $life"
"#;
/// By the keyboard controller, by the register that the FADT names, by port 0xcf9; then it powers off.
const RESETS: &str = r#"
case $life in 1) by=kbd;; 2) by=acpi;; 3) by=pci;; *) poweroff -f;; esac
echo $by > /sys/kernel/reboot/type; echo "RESET by $(cat /sys/kernel/reboot/type)"; reboot -f
"#;

/// The cases of a kernel.
pub(crate) fn cases(kernel: Kernel, testbed: &Testbed) -> Result<Vec<Case>> {
    let release = kernel.release(testbed)?;
    let (model, driver) = if kernel.has_e1000() {
        ("em", "e1000")
    } else {
        ("virtio", "virtio_net")
    };
    let (mke2fs, debugfs) = (testbed.path("bin/e2fsck"), testbed.path("bin/debugfs"));
    let lives = Case::new("lives", kernel)
        .net(model)
        .disk()
        .payload(DEVICES)
        .steps("said 'PING OUT' && ping -c 3 10.9.$N.2 && echo 'PING IN'")
        .expect(move |seen| {
            seen.exited(0)?;
            seen.line(&format!("GUEST READY {release} 2 CPUs"))?;
            seen.never("INSMOD FAILED")?;
            seen.line(&format!("LINK of {driver}"))?;
            seen.line("PING OUT")?;
            seen.step("PING IN")?;
            for bound in [
                "virtio_blk",
                "virtio_rng",
                "virtio_balloon",
                "pvpanic-mmio",
                "pvpanic-pci",
                "fw_cfg",
            ] {
                seen.line(&format!("BOUND {bound} to "))?;
            }
            seen.never("dump ")?;
            disk_has_what_was_written(seen, Command::new(&mke2fs), Command::new(&debugfs))?;
            Ok(format!(
                "2 CPUs, {driver} answers both ways, ext4 on virtio_blk, powers off"
            ))
        });
    let resets = Case::new("resets", kernel)
        .disk()
        .payload(&format!("{COUNT_LIVES}{RESETS}"))
        .expect(|seen| {
            seen.exited(0)?;
            for by in ["kbd", "acpi", "pci"] {
                seen.line(&format!("RESET by {by}"))?;
            }
            let resets = seen.count("the guest reset itself");
            ensure!(resets == 3, "{resets} resets, not 3");
            seen.never("dump ")?;
            Ok("resets by keyboard controller, FADT and 0xcf9 boot again".into())
        });
    Ok(vec![lives, resets])
}

/// The file system is sound, and holds what the guest says it wrote.
fn disk_has_what_was_written(seen: &Seen, mut e2fsck: Command, mut debugfs: Command) -> Result<()> {
    let (disk, copy) = (seen.file("disk.img"), seen.file("random"));
    let limit = std::time::Duration::from_secs(60);
    run::output(e2fsck.args(["-f", "-n"]).arg(&disk), &seen.file(""), "", limit)?;
    debugfs
        .arg("-R")
        .arg(format!("dump /random {}", copy.display()))
        .arg(&disk);
    run::output(&mut debugfs, &seen.file(""), "", limit)?;
    let digest = run::output(Command::new("md5sum").arg(&copy), &seen.file(""), "", limit)?;
    let digest = digest.split_whitespace().next().context("md5sum says nothing")?;
    seen.line(&format!("DISK {digest}")).map(drop)
}
