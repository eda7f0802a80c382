//! `cargo xtask lint`: formatting, clippy, and links of the documentation.

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
    ]))?;
    process::run(workspace::cargo().env("RUSTDOCFLAGS", "-D warnings").args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
        "-q",
    ]))
}
