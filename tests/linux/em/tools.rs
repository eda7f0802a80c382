//! Debian's programs inside a guest: in `/t`, beside the loader and the libraries that they are of one build with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::testbed::Testbed;

/// Where the programs for guests lie in the testbed.
const PROGRAMS: [(&str, &str); 2] = [("ethtool", "sbin/ethtool"), ("iperf3", "usr/bin/iperf3")];
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// Paths in the guest and what is to be there, for the programs of these names.
pub(crate) fn files(testbed: &Testbed, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let programs: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(_, path)| *path)
        .collect();
    bundle(&testbed.path("inside"), "t", &programs)
}

/// Programs of the packages unpacked in `root`, for a folder `place`: they, their libraries, and the loader as `ld`.
pub(crate) fn bundle(root: &Path, place: &str, programs: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = vec![(format!("{place}/ld"), read(&root.join(LOADER))?)];
    for path in programs {
        let program = root.join(path);
        let libraries = libraries(root, &program)?;
        for file in std::iter::once(&program).chain(&libraries) {
            let name = file.file_name().context("a file has a name")?.to_string_lossy();
            let path = format!("{place}/{name}");
            if !files.iter().any(|(other, _)| *other == path) {
                files.push((path, read(file)?));
            }
        }
    }
    Ok(files)
}

/// The libraries that the loader finds for a program, as it says itself: `NAME => PATH (ADDRESS)`.
fn libraries(root: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let folders = ["lib", "usr/lib"].map(|folder| root.join(folder).join("x86_64-linux-gnu").display().to_string());
    let mut loader = Command::new(root.join(LOADER));
    loader
        .args(["--library-path", &folders.join(":"), "--list"])
        .arg(program);
    let output = loader.output().with_context(|| format!("cannot run {loader:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !said.contains("not found"),
        "{loader:?} said {said}"
    );
    let found = said
        .lines()
        .filter_map(|line| line.split_once(" => ")?.1.split_once(" ("));
    let inside = |path: &&str| Path::new(path).starts_with(root) && !path.ends_with(LOADER);
    Ok(found.map(|(path, _)| path).filter(inside).map(PathBuf::from).collect())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
