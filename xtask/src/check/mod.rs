//! `cargo xtask check`: the rules between the folders, proved from manifests, lock file and sources.
//!
//! Each rule is a function from what is there to a list of sentences that say what breaks it; no sentence, no fault.

mod directions;
mod sources;
mod versions;

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Runs every rule and prints what breaks it.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let mut packages = workspace::packages(&root.join("Cargo.toml"))?;
    for manifest in workspace::extra_manifests() {
        packages.extend(workspace::packages(&manifest)?);
    }
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let sources = sources::load(&packages)?;
    let rules = [
        ("dependencies run downward only", directions::downward(&packages)),
        ("no cycles between the folders", directions::cycles(&packages)),
        ("one version of the shared crates", versions::doubles(&lock)),
        (
            "only vmm-agent/src/kvm names kvm-ioctls",
            sources::kvm_outside_its_module(&sources),
        ),
        (
            "the pure folders know no socket, clock, file or thread",
            sources::impure(&sources),
        ),
        (
            "unsafe code only in modules that opt in, with a reason",
            sources::unsafe_code(&sources),
        ),
        ("every package takes the workspace's lints", sources::lints(&packages)?),
    ];
    let mut faults = 0;
    for (rule, broken) in &rules {
        println!("{} {rule}", if broken.is_empty() { "ok  " } else { "FAIL" });
        broken.iter().for_each(|sentence| println!("       {sentence}"));
        faults += broken.len();
    }
    if faults > 0 {
        bail!("{faults} faults");
    }
    Ok(())
}
