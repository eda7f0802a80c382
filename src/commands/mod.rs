//! The commands, one module each: its arguments, and `run`.

pub(crate) mod completions;
pub(crate) mod cores;
pub(crate) mod demo;
pub(crate) mod run;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod vms;

use crate::cli::Command;
use crate::cli_failure::Outcome;

/// Runs one command to its end.
pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(args),
        Command::Vms(args) => vms::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Cores(args) => cores::run(args),
        Command::Send(args) => send::run(args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::manual(&args),
    }
}
