//! A stock Debian kernel and its debug information.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::apt::{self, Apt, Package};
use crate::process;

/// The package that always names the newest kernel of Debian 12 for virtual machines, the smallest one.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What the kernel folder is made of.
pub(crate) fn recipe() -> String {
    format!("1 {KERNEL}")
}

/// What the symbols are made of.
pub(crate) fn symbols_recipe() -> String {
    format!("1 {KERNEL}-dbg")
}

/// Unpacks the kernel with its modules; `release` holds its version and `vmlinuz` leads to its image.
pub(crate) fn unpack(apt: &Apt, place: &Path) -> Result<()> {
    let package = apt.behind(KERNEL)?;
    let archive = apt.download(&package, &place.join("download"))?;
    apt::unpack(&archive, place)?;
    fs::remove_dir_all(place.join("download"))?;
    let release = release_of(&package.name)?;
    symlink(format!("boot/vmlinuz-{release}"), place.join("vmlinuz"))?;
    fs::write(place.join("release"), release).context("cannot write the kernel's release")
}

/// The testbed's kernel with debug information.
pub(crate) fn fetch_symbols(apt: &Apt, place: &Path) -> Result<()> {
    let kernel = apt.behind(KERNEL)?;
    let package = apt.behind(&format!("{KERNEL}-dbg"))?;
    if package.version != kernel.version {
        bail!(
            "{} is of version {}, its kernel of {}",
            package.name,
            package.version,
            kernel.version
        );
    }
    extract_symbols(apt, &package, release_of(&kernel.name)?, place)
}

/// Takes the one file that is wanted out of a package with debug information, and leaves the rest packed.
pub(crate) fn extract_symbols(apt: &Apt, package: &Package, release: &str, place: &Path) -> Result<()> {
    let folder = place.with_added_extension("download");
    let archive = apt.download(package, &folder)?;
    let member = format!("./usr/lib/debug/boot/vmlinux-{release}");
    let mut reader = Command::new("dpkg-deb");
    let mut reader = reader
        .arg("--fsys-tarfile")
        .arg(&archive)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pipe = reader.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    // The first hit ends the search: the rest of the archive is not even decompressed.
    tar.args(["-x", "--occurrence=1", "-O", &member])
        .stdin(pipe)
        .stdout(fs::File::create(place)?);
    let status = tar
        .status()
        .with_context(|| format!("cannot run {}", process::shown(&tar)))?;
    // tar stops early; once its end of the pipe is closed here too, dpkg-deb ends by a broken pipe.
    drop(tar);
    let _ = reader.wait();
    if !status.success() || fs::metadata(place)?.len() == 0 {
        bail!("no {member} in package {}", package.name);
    }
    fs::remove_dir_all(&folder).context("cannot remove the downloaded symbols package")
}

/// The release that a kernel package installs: what follows `linux-image-`.
fn release_of(package: &str) -> Result<&str> {
    package
        .strip_prefix("linux-image-")
        .with_context(|| format!("{package} is no kernel package"))
}
