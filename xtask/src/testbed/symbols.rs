//! Kernels with debug information, for the guests that debuggers look at.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{apt::Apt, guests::Guest, kernel, part::Part};

/// The part of the testbed with the symbols of a guest's kernel, which must be there.
pub(crate) fn part(testbed: &Path, guest: &Guest) -> Part {
    // Without its guest a part is never current.
    let release = guest.release(testbed).unwrap_or_default();
    Part::new(testbed, &format!("symbols/{}", guest.name), format!("1 {release}"))
}

/// Fills the folder `place`: `vmlinux`, and `release` by which it is found.
pub(crate) fn make(apt: &Apt, testbed: &Path, guest: &Guest, place: &Path) -> Result<()> {
    let release = guest.release(testbed)?;
    let package = apt.package(&format!("linux-image-{release}-dbg"))?;
    fs::create_dir_all(place)?;
    kernel::extract_symbols(apt, &package, &release, &place.join("vmlinux"))?;
    fs::write(place.join("release"), release).context("cannot write the release of the symbols")
}
