//! `cores`.

use crate::cli_failure::{Exit, Failure, Outcome};

/// Arguments of `cores`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: coreferry cores")]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: Args) -> Outcome {
    Err(Failure::new(Exit::Failed, "`cores` is not there yet"))
}
