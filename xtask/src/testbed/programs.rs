//! Programs that the tests use as judges or as the other side, unpacked with all their libraries.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::apt::Apt;
use crate::process;

/// The packages; what they depend on comes along.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "crash",
    "e2fsprogs",
    "gdb",
    "makedumpfile",
    "passt",
    "python3",
    "python3-pip",
    "qemu-system-x86",
    "tcpdump",
    "xz-utils",
];

/// What runs inside guests: the test of a network driver, and traffic for it. A part of its own: the programs of the
/// machine are many, and stay as they are.
const INSIDE: &[&str] = &["ethtool", "iperf3"];

/// The debugger for kernels that comes as a Python package, with its version.
const DRGN: &str = "drgn==0.3.0";

/// The memory forensics framework, another Python package. A part of its own: it needs nothing of drgn.
const VOLATILITY: &str = "volatility3==2.28.2";

/// Programs with a shim in `bin/`: name, path below `pkgs/`, arguments in front, environment.
const SHIMS: &[(&str, &str, &str, &str)] = &[
    ("busybox", "bin/busybox", "", ""),
    ("crash", "usr/bin/crash", "", ""),
    ("debugfs", "sbin/debugfs", "", ""),
    ("e2fsck", "sbin/e2fsck", "", ""),
    ("gdb", "usr/bin/gdb", "", r#"PYTHONHOME="$P/usr""#),
    ("makedumpfile", "usr/bin/makedumpfile", "", ""),
    ("mke2fs", "sbin/mke2fs", "", r#"MKE2FS_CONFIG="$P/etc/mke2fs.conf""#),
    ("passt", "usr/bin/passt", "", ""),
    ("python3", "usr/bin/python3.11", "", PYTHON),
    ("drgn", "usr/bin/python3.11", "-m drgn", PYTHON),
    ("qemu-system-x86_64", "usr/bin/qemu-system-x86_64", QEMU_DATA, QEMU),
    ("tcpdump", "usr/bin/tcpdump", "", ""),
    ("xz", "usr/bin/xz", "", ""),
];

const PYTHON: &str = r#"PYTHONHOME="$P/usr" PYTHONPATH="$T/venv""#;
const QEMU: &str = r#"QEMU_MODULE_DIR="$P/usr/lib/x86_64-linux-gnu/qemu""#;
const QEMU_DATA: &str = r#"-L "$P/usr/share/qemu" -L "$P/usr/share/seabios""#;

/// What the unpacked packages are made of.
pub(crate) fn recipe() -> String {
    format!("1 {}", PACKAGES.join(" "))
}

/// What the programs for guests are made of.
pub(crate) fn inside_recipe() -> String {
    format!("1 {}", INSIDE.join(" "))
}

/// Unpacks the programs for guests.
pub(crate) fn unpack_inside(apt: &Apt, place: &Path) -> Result<()> {
    apt.unpack_with_dependencies(INSIDE, place)
}

/// What the shims are made of: their text.
pub(crate) fn shims_recipe() -> String {
    SHIMS.iter().map(shim).collect()
}

/// What the folder of drgn is made of.
pub(crate) fn venv_recipe() -> String {
    format!("2 {DRGN}")
}

/// Unpacks the packages.
pub(crate) fn unpack(apt: &Apt, place: &Path) -> Result<()> {
    apt.unpack_with_dependencies(PACKAGES, place)
}

/// Writes a small shell script for each program.
pub(crate) fn write_shims(place: &Path) -> Result<()> {
    fs::create_dir_all(place)?;
    SHIMS
        .iter()
        .try_for_each(|entry| write_script(&place.join(entry.0), &shim(entry)))
}

/// A script that runs an unpacked program under the unpacked dynamic loader, so that program, loader and C library are of
/// one build whatever the machine has. Only this program sees those libraries, what it starts does not.
fn shim((_, path, arguments, environment): &(&str, &str, &str, &str)) -> String {
    let loader = r#""$P/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2""#;
    let libraries = r#""$P/lib/x86_64-linux-gnu:$P/usr/lib/x86_64-linux-gnu""#;
    let start = match *path {
        // Statically linked: there is nothing to load.
        "bin/busybox" => String::new(),
        _ => format!("{loader} --argv0 \"$0\" --library-path {libraries} "),
    };
    format!(
        "#!/bin/sh\n\
         T=$(cd \"$(dirname \"$0\")/..\" && pwd); P=$T/pkgs\n\
         exec env {environment} {start}\"$P/{path}\" {arguments} \"$@\"\n"
    )
}

/// Installs drgn for the unpacked Python, into a folder that only its shim looks into.
pub(crate) fn install_drgn(testbed: &Path, place: &Path) -> Result<()> {
    install(DRGN, testbed, place)?;
    // What a virtual environment would have; pip's own script names a path that is not the final one.
    for (name, program) in [("python", "python3"), ("python3", "python3"), ("drgn", "drgn")] {
        write_script(
            &place.join("bin").join(name),
            &format!("#!/bin/sh\nexec \"$(dirname \"$0\")/../../bin/{program}\" \"$@\"\n"),
        )?;
    }
    Ok(())
}

/// What the folder of Volatility is made of.
pub(crate) fn volatility_recipe() -> String {
    format!("1 {VOLATILITY}")
}

/// Installs Volatility for the unpacked Python.
pub(crate) fn install_volatility(testbed: &Path, place: &Path) -> Result<()> {
    install(VOLATILITY, testbed, place)
}

/// Installs a Python package with what it needs into a folder.
fn install(package: &str, testbed: &Path, place: &Path) -> Result<()> {
    let mut pip = Command::new(testbed.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-cache-dir", "--target"])
        .arg(place)
        .arg(package);
    process::read(&mut pip).map(drop)
}

/// Writes a script that can be run.
pub(super) fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}
