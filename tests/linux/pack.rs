//! What goes into the machine in between: files packed behind the testbed's archive, and the binary under test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::run;
use crate::testbed::Testbed;

/// Packing takes seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// Writes an initramfs: the archive `first`, and behind it what is below `root`. A kernel unpacks one after the other.
pub(crate) fn append(testbed: &Testbed, dir: &Path, first: &Path, root: &Path, initrd: &Path) -> Result<()> {
    fs::copy(first, initrd).with_context(|| format!("cannot copy {}", first.display()))?;
    let mut cpio = Command::new("sh");
    cpio.args([
        "-c",
        "cd \"$2\" && find . | \"$0\" cpio -o -H newc 2> /dev/null >> \"$1\"",
    ])
    .arg(testbed.path("bin/busybox"))
    .args([initrd, root]);
    run::output(&mut cpio, dir, "", LIMIT).map(drop)
}

/// Without its debug information the binary is a tenth; a machine without `strip` takes it whole.
pub(crate) fn copy_binary(root: &Path, place: &Path) -> Result<()> {
    let (from, to) = (Path::new(env!("CARGO_BIN_EXE_coreferry")), place.join("coreferry"));
    let stripped = Command::new("strip").arg("-o").arg(&to).arg(from).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(from, &to)?;
    }
    for library in libraries(&to)? {
        let inside = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().context("a library has a folder")?)?;
        fs::copy(&library, &inside).with_context(|| format!("cannot copy {library}"))?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The loader and the libraries that `ldd` names; none for a static binary.
fn libraries(binary: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(binary).output().context("cannot run ldd")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("not a dynamic executable"), "ldd: {said}");
        return Ok(Vec::new());
    }
    let said = String::from_utf8(output.stdout)?;
    if said.contains("not found") {
        bail!("a library is missing:\n{said}");
    }
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(str::to_owned).collect())
}
