//! `cargo xtask ci`: the script that CI runs, on this machine.

use std::process::Command;

use anyhow::Result;

use crate::{process, workspace};

/// Runs `.ci/run`, so that there is one list of steps only.
pub(crate) fn run() -> Result<()> {
    process::run(Command::new("bash").arg(".ci/run").current_dir(workspace::root()))
}
