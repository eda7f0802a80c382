//! `serve`.

use crate::cli_failure::{Exit, Failure, Outcome};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: coreferry serve")]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: Args) -> Outcome {
    Err(Failure::new(Exit::Failed, "`serve` is not there yet"))
}
