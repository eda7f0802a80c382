//! Debian's programs inside a guest: in `/t`, beside the loader and the libraries that they are of one build with.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::testbed::Testbed;

/// Where the programs lie in the testbed.
const PROGRAMS: [(&str, &str); 2] = [("ethtool", "sbin/ethtool"), ("iperf3", "usr/bin/iperf3")];
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// Paths in the guest and what is to be there, for the programs of these names.
pub(crate) fn files(testbed: &Testbed, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let root = testbed.path("inside");
    let mut files = vec![("t/ld".to_owned(), read(&root.join(LOADER))?)];
    for (name, path) in PROGRAMS.iter().filter(|(name, _)| names.contains(name)) {
        let program = root.join(path);
        files.push((format!("t/{name}"), read(&program)?));
        for library in libraries(&root, &program)? {
            let file = Path::new(&library).file_name().context("a library has a name")?;
            let place = format!("t/{}", file.to_string_lossy());
            if !files.iter().any(|(other, _)| *other == place) {
                files.push((place, read(Path::new(&library))?));
            }
        }
    }
    Ok(files)
}

/// The libraries that the loader finds for a program, as it says itself: `NAME => PATH (ADDRESS)`.
fn libraries(root: &Path, program: &Path) -> Result<Vec<String>> {
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
    Ok(found.map(|(path, _)| path).filter(inside).map(str::to_owned).collect())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
