//! `send`.

use crate::cli_failure::{Exit, Failure, Outcome};

/// Arguments of `send`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: coreferry send")]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: Args) -> Outcome {
    Err(Failure::new(Exit::Failed, "`send` is not there yet"))
}
