//! The command line as a whole; each command's arguments are in its own module.

use clap::{CommandFactory as _, Parser};

use crate::commands::Command;

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
