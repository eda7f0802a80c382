//! The headers of a guest's kernel, by which a module for it is built.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{
    apt::{self, Apt},
    guests::Guest,
    part::Part,
};

/// The part of the testbed with the headers of a guest's kernel, which must be there.
pub(crate) fn part(testbed: &Path, guest: &Guest) -> Part {
    // Without its guest a part is never current.
    let release = guest.release(testbed).unwrap_or_default();
    Part::new(testbed, &format!("headers/{}", guest.name), format!("1 {release}"))
}

/// Fills the folder `place`: `build` leads to what is /lib/modules/RELEASE/build elsewhere, `lib` has the one library that its
/// programs need and a machine may lack.
pub(crate) fn make(apt: &Apt, testbed: &Path, guest: &Guest, place: &Path) -> Result<()> {
    let release = guest.release(testbed)?;
    let package = apt.package(&format!("linux-headers-{release}"))?;
    let needed = apt.depends(&package)?;
    let ours = |name: &&String| name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-");
    let download = place.with_added_extension("download");
    for name in needed.iter().filter(ours).chain([&package.name]) {
        let archive = apt.download(&apt.package(name)?, &download)?;
        apt::unpack(&archive, place)?;
    }
    fs::remove_dir_all(&download).context("cannot remove the packages of the headers")?;
    make_movable(&place.join("usr/src").join(&package.name))?;
    std::os::unix::fs::symlink(format!("usr/src/{}", package.name), place.join("build"))?;
    fs::create_dir_all(place.join("lib"))?;
    let libelf = testbed.join("pkgs/usr/lib/x86_64-linux-gnu/libelf.so.1");
    fs::copy(&libelf, place.join("lib/libelf.so.1")).with_context(|| format!("cannot copy {}", libelf.display()))?;
    Ok(())
}

/// Headers name the place where they are installed; here they lie elsewhere.
fn make_movable(headers: &Path) -> Result<()> {
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile).with_context(|| format!("cannot read {}", makefile.display()))?;
    let (installed, here) = ("include /usr/src/", "include $(dir $(lastword $(MAKEFILE_LIST)))../");
    ensure!(
        text.contains(installed),
        "{} does not {installed}…: {text}",
        makefile.display()
    );
    fs::write(&makefile, text.replace(installed, here)).context("cannot write the headers' Makefile")
}
