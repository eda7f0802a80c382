//! `cargo xtask lint`: formatting and clippy.

use anyhow::Result;

use crate::{process, workspace};

/// Everything but the test runs: what a reviewer should not have to say.
pub(crate) fn run() -> Result<()> {
    process::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    for manifest in workspace::extra_manifests() {
        process::run(
            workspace::cargo()
                .args(["fmt", "--check", "--manifest-path"])
                .arg(manifest),
        )?;
    }
    process::run(workspace::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))
}
