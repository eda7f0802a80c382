//! The command line of coreferry: parse, call, print.

mod cli;
mod cli_failure;
mod commands;
mod host_port;
mod output;
mod signals;
mod trust;
mod vm_sockets;

use std::process::ExitCode;

use cli_failure::Outcome;
use commands::explain_core;

fn main() -> ExitCode {
    // A receiver runs it for each core, and waits: building the whole command line would take a fifth of the time.
    if let Some(args) = explain_core::Args::plain(std::env::args_os()) {
        return ended(explain_core::run(&args));
    }
    // A shell that wants to know how a line could go on asks by this variable, and gets nothing else.
    clap_complete::CompleteEnv::with_factory(cli::parser)
        .var(commands::completions::VARIABLE)
        .complete();
    let command = cli::parse().command;
    output::start_log(command.log_level(), command.log_format());
    ended(command.run(cli::parser()))
}

/// Says why a command failed, and how the process ends.
fn ended(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure);
            failure.exit().into()
        }
    }
}
