//! The arguments: one variant per command, each with its arguments in the command's own module.

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "coreferry",
    version,
    about = "Ferries the memory of a crashed guest off a KVM host",
    long_about = "Ferries the memory of a crashed guest off a KVM host: freezes the machine, reads its memory from \
                  the host side, sends it by the netdump protocol, and stores, proves and lists what arrived.",
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 nothing matched, 4 core incomplete or verify failed,\n\
                  5 denied, 6 other side unreachable, 7 deadline passed.\n\n\
                  Example: coreferry serve --dir /var/crash",
    propagate_version = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands. A new one is a module in `commands/`, a variant here and a line in `commands::run`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole road once: a guest panics, its core arrives and is proved.
    Demo(commands::demo::Args),
    /// Run a guest whose memory is saved when it crashes.
    Run(commands::run::Args),
    /// List, inspect, dump and stop the machines on this host.
    Vms(commands::vms::Args),
    /// Receive dumps, store and prove them, and serve the API.
    Serve(commands::serve::Args),
    /// List, inspect, verify and fetch stored cores.
    Cores(commands::cores::Args),
    /// Send an existing vmcore to a receiver.
    Send(commands::send::Args),
    /// Print the completions of a shell.
    Completions(commands::completions::CompletionsArgs),
    /// Print the manual page.
    Man(commands::completions::ManArgs),
}

/// Reads the arguments; a mistake in them ends the process with a hint and exit code 2.
pub(crate) fn parse() -> Cli {
    Cli::parse()
}

/// The parser itself, for completions and the manual page.
pub(crate) fn parser() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_is_sound() {
        parser().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_gives_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "`{path}` does not say what it does");
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(example.contains("Example"), "`{path}` has no example");
            command.get_subcommands().for_each(|sub| walk(sub, &path));
        }
        walk(&parser(), "");
    }
}
