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

fn main() -> ExitCode {
    // A shell that wants to know how a line could go on asks by this variable, and gets nothing else.
    clap_complete::CompleteEnv::with_factory(cli::parser)
        .var(commands::completions::VARIABLE)
        .complete();
    let command = cli::parse().command;
    output::start_log(command.log_level(), command.log_format());
    match command.run(cli::parser()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure);
            failure.exit().into()
        }
    }
}
