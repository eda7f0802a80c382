//! The two initramfs, both of busybox, drivers and an init: that of the guest, which crashes on demand, and that of the machine
//! around it, which offers `/dev/kvm` by nesting and runs what a test adds.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::cpio::Archive;

/// What an initramfs is made of, besides busybox.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Modules in the order they are loaded; what they depend on is loaded before them.
    modules: &'static [&'static str],
    /// Modules that are there and loaded on demand, likewise.
    on_demand: &'static [&'static str],
    init: &'static str,
}

/// The guest. Words of the kernel command line that the kernel does not know become variables here: crash=1 asks for a
/// panic, restart=1 for a reset, fill=N for N MiB of random bytes in memory before it, hold=1 for a guest that stays up,
/// virtio=1 for the drivers of virtio devices.
pub(crate) const GUEST: Recipe = Recipe {
    modules: &["pvpanic-mmio", "pvpanic-pci", "qemu_fw_cfg"],
    on_demand: &["virtio_pci", "virtio_net", "virtio_blk", "virtio-rng", "virtio_balloon"],
    init: r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
while read -r m; do insmod /mods/$m.ko || echo "INSMOD FAILED $m"; done < /mods/order
if [ "$virtio" ]; then while read -r m; do insmod /mods/$m.ko || echo "INSMOD FAILED $m"; done < /mods/on-demand; fi
if [ "$fill" ]; then dd if=/dev/urandom of=/tmp/fill bs=1M count=$fill 2> /dev/null; fi
echo "GUEST READY $(uname -r) $(grep -c '^processor' /proc/cpuinfo) CPUs"
if [ "$crash" ]; then echo c > /proc/sysrq-trigger; fi
if [ "$restart" ]; then reboot -f; fi
while [ "$hold" ]; do sleep 3600; done
poweroff -f
"#,
};

/// The machine around it: `/p/run`, which the test appends as an archive of its own, finds KVM and, by QEMU's user network,
/// the host as 10.0.2.2.
pub(crate) const OUTER: Recipe = Recipe {
    modules: &["kvm-amd", "virtio_pci", "virtio_net", "tun"],
    on_demand: &[],
    init: r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
while read -r m; do insmod /mods/$m.ko || echo "INSMOD FAILED $m"; done < /mods/order
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
echo "OUTER READY $(uname -r)"
sh /p/run; echo "OUTER END $?"
poweroff -f
"#,
};

impl Recipe {
    /// All of it as text.
    pub(crate) fn text(&self) -> String {
        let (modules, on_demand) = (self.modules.join(" "), self.on_demand.join(" "));
        format!("2 {modules} / {on_demand} {}", self.init)
    }

    /// Builds the archive from the unpacked kernel and busybox.
    pub(crate) fn build(&self, testbed: &Path, place: &Path) -> Result<()> {
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "mods", "proc", "sys", "tmp"] {
            archive.folder(folder);
        }
        let busybox = testbed.join("pkgs/bin/busybox");
        archive.file("bin/busybox", 0o755, &read(&busybox)?);
        archive.file("init", 0o755, self.init.as_bytes());
        let files = modules(&testbed.join("kernel/lib/modules"))?;
        let mut order = Vec::new();
        let mut list = |name, modules: &[&str]| {
            let before = order.len();
            modules.iter().try_for_each(|module| load(module, &files, &mut order))?;
            let lines: String = order.iter().skip(before).map(|name| format!("{name}\n")).collect();
            archive.file(name, 0o644, lines.as_bytes());
            anyhow::Ok(())
        };
        list("mods/order", self.modules)?;
        list("mods/on-demand", self.on_demand)?;
        for name in &order {
            archive.file(&format!("mods/{name}.ko"), 0o644, &read(path_of(name, &files)?)?);
        }
        fs::write(place, archive.finish()).with_context(|| format!("cannot write {}", place.display()))
    }
}

/// Puts a module into the load order, after those it depends on.
fn load(module: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<String>) -> Result<()> {
    let name = canonical(module);
    if order.contains(&name) {
        return Ok(());
    }
    for dependency in dependencies(&read(path_of(&name, files)?)?) {
        load(&dependency, files, order)?;
    }
    order.push(name);
    Ok(())
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
fn modules(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".ko") {
                found.insert(canonical(name), entry.path());
            }
        }
    }
    Ok(found)
}

fn path_of<'f>(name: &str, files: &'f BTreeMap<String, PathBuf>) -> Result<&'f Path> {
    files
        .get(name)
        .map(PathBuf::as_path)
        .with_context(|| format!("the kernel package has no module {name}"))
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
}
