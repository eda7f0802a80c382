//! The command line of coreferry: parse, call, print.

mod cli;
mod cli_failure;
mod commands;
mod host_port;
mod output;
mod signals;
mod vm_sockets;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::parse();
    output::start_log(&cli.command);
    match commands::run(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure);
            failure.exit().into()
        }
    }
}
