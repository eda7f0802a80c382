//! The three initramfs, all of busybox, modules and an init: that of a guest which crashes on demand, that of the guests which
//! run what a test adds, and that of the machine around them, which offers `/dev/kvm` by nesting and runs what a test adds.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::cpio::Archive;
use crate::process;

/// What an initramfs is made of, besides busybox.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Modules that its init can load; what they depend on comes along.
    modules: &'static [&'static str],
    /// What the init does after [`BEGIN`].
    init: &'static str,
}

/// How every init begins. `load NAME…` loads modules after those they depend on; what is built in needs no loading.
const BEGIN: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
load() {
  for module; do
    while read -r needed; do [ -d /sys/module/$needed ] || insmod /mods/$needed.ko || echo "INSMOD FAILED $needed"; done < /mods/$module.needs
  done
}
"#;

/// The guest. Words of the kernel command line that the kernel does not know become variables here: crash=1 asks for a
/// panic, restart=1 for a reset, fill=N for N MiB of random bytes in memory before it, hold=1 for a guest that stays up,
/// virtio=1 for the drivers of virtio devices.
pub(crate) const GUEST: Recipe = Recipe {
    modules: &[
        "pvpanic_mmio",
        "pvpanic_pci",
        "qemu_fw_cfg",
        "virtio_pci",
        "virtio_net",
        "virtio_blk",
        "virtio_rng",
        "virtio_balloon",
    ],
    init: r#"load pvpanic_mmio pvpanic_pci qemu_fw_cfg
if [ "$virtio" ]; then load virtio_pci virtio_net virtio_blk virtio_rng virtio_balloon; fi
if [ "$fill" ]; then dd if=/dev/urandom of=/tmp/fill bs=1M count=$fill 2> /dev/null; fi
echo "GUEST READY $(uname -r) $(grep -c '^processor' /proc/cpuinfo) CPUs"
if [ "$crash" ]; then echo c > /proc/sysrq-trigger; fi
if [ "$restart" ]; then reboot -f; fi
while [ "$hold" ]; do sleep 3600; done
poweroff -f
"#,
};

/// The guests of tests: `/payload`, which the test adds, is a script that may `load` what it wants.
pub(crate) const DRIVERS: Recipe = Recipe {
    modules: &[
        "pvpanic_mmio",
        "pvpanic_pci",
        "qemu_fw_cfg",
        "virtio_pci",
        "virtio_net",
        "virtio_blk",
        "virtio_rng",
        "virtio_balloon",
        "e1000",
        // VLANs.
        "8021q",
        // ext4 asks the kernel's cryptography for it by name, so it is no dependency.
        "crc32c_generic",
        "ext4",
    ],
    init: r#"echo "GUEST READY $(uname -r) $(grep -c '^processor' /proc/cpuinfo) CPUs"
. /payload
poweroff -f
"#,
};

/// The machine around it: `/p/run`, which the test appends as an archive of its own, finds KVM, a disk for what it wants to hand
/// out and, by QEMU's user network, the host as 10.0.2.2.
pub(crate) const OUTER: Recipe = Recipe {
    modules: &["kvm_amd", "virtio_pci", "virtio_net", "virtio_blk", "tun", "8021q"],
    init: r#"load kvm_amd virtio_pci virtio_net virtio_blk tun 8021q
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
echo "OUTER READY $(uname -r)"
sh /p/run; echo "OUTER END $?"
poweroff -f
"#,
};

impl Recipe {
    /// All of it as text.
    pub(crate) fn text(&self) -> String {
        format!("3 {} {BEGIN}{}", self.modules.join(" "), self.init)
    }

    /// Builds the archive from busybox and the kernel whose modules are below `modules`; `lacks` names modules that this kernel
    /// does not have.
    pub(crate) fn build(&self, testbed: &Path, modules: &Path, lacks: &[&str], place: &Path) -> Result<()> {
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "mods", "mnt", "proc", "sys", "tmp"] {
            archive.folder(folder);
        }
        archive.file("bin/busybox", 0o755, &read(&testbed.join("pkgs/bin/busybox"))?);
        archive.file("init", 0o755, format!("{BEGIN}{}", self.init).as_bytes());
        let kernel = Modules::below(testbed, modules)?;
        let mut all = BTreeMap::new();
        for module in self.modules {
            let mut needed = Vec::new();
            if !lacks.contains(module) {
                kernel.load(&canonical(module), &mut needed)?;
            }
            let lines: String = needed.iter().map(|(name, _)| format!("{name}\n")).collect();
            archive.file(&format!("mods/{module}.needs"), 0o644, lines.as_bytes());
            all.extend(needed);
        }
        for (name, bytes) in &all {
            archive.file(&format!("mods/{name}.ko"), 0o644, bytes);
        }
        fs::write(place, archive.finish()).with_context(|| format!("cannot write {}", place.display()))
    }
}

/// The modules of one kernel.
struct Modules {
    /// Unpacks what is compressed.
    xz: PathBuf,
    /// By canonical name.
    files: BTreeMap<String, PathBuf>,
    /// Canonical names of what is no file but part of the kernel.
    built_in: Vec<String>,
}

impl Modules {
    fn below(testbed: &Path, folder: &Path) -> Result<Self> {
        let built_in =
            fs::read_to_string(folder.join("modules.builtin")).context("the kernel has no modules.builtin")?;
        let name = |line: &str| module_name(line.rsplit('/').next()?);
        Ok(Self {
            xz: testbed.join("bin/xz"),
            files: module_files(folder)?,
            built_in: built_in.lines().filter_map(name).collect(),
        })
    }

    /// Puts a module and its bytes into the load order, after those it depends on.
    fn load(&self, name: &str, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        if order.iter().any(|(earlier, _)| earlier == name) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else {
            ensure!(
                self.built_in.iter().any(|built_in| built_in == name),
                "the kernel package has no module {name}"
            );
            return Ok(());
        };
        let bytes = self.read(file)?;
        for dependency in dependencies(&bytes) {
            self.load(&canonical(&dependency), order)?;
        }
        order.push((name.to_owned(), bytes));
        Ok(())
    }

    /// The bytes of a module, which newer packages compress.
    fn read(&self, file: &Path) -> Result<Vec<u8>> {
        if file.extension().is_none_or(|kind| kind != "xz") {
            return read(file);
        }
        let output = process::output(std::process::Command::new(&self.xz).arg("-dc").arg(file))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "xz -dc {} failed: {said}", file.display());
        Ok(output.stdout)
    }
}

/// The modules a module depends on, as its `.modinfo` section says: `depends=a,b`, between NUL bytes.
fn dependencies(module: &[u8]) -> Vec<String> {
    let entries = module.split(|byte| *byte == 0);
    let found = entries
        .filter_map(|entry| entry.strip_prefix(b"depends="))
        .map(String::from_utf8_lossy);
    let names: Vec<String> = found
        .flat_map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Every module file below a folder, by its canonical name.
fn module_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
                found.insert(name, entry.path());
            }
        }
    }
    Ok(found)
}

/// The canonical name of a module's file, compressed or not.
fn module_name(file: &str) -> Option<String> {
    let name = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(canonical(name))
}

/// Module names are the same with `-` and `_`.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        assert_eq!(
            dependencies(b"\0license=GPL\0depends=kvm,ccp\0name=kvm_amd\0"),
            ["kvm", "ccp"]
        );
        assert!(dependencies(b"\0depends=\0").is_empty());
    }

    #[test]
    fn a_module_has_one_name_however_its_file_is_called() {
        for file in ["virtio-rng.ko", "virtio_rng.ko.xz"] {
            assert_eq!(module_name(file).as_deref(), Some("virtio_rng"));
        }
        assert_eq!(module_name("modules.dep"), None);
    }
}
