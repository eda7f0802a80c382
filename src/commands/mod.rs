//! The commands, one module each: its arguments, and `run`.

pub(crate) mod completions;
pub(crate) mod cores;
pub(crate) mod send;
pub(crate) mod serve;

use crate::cli::Command;
use crate::cli_failure::Outcome;

/// Runs one command to its end.
pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Cores(args) => cores::run(args),
        Command::Send(args) => send::run(args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::manual(&args),
    }
}
