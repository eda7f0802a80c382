//! The commands, one module each: its arguments, and `run`.

pub(crate) mod completions;
pub(crate) mod cores;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod explain_core;
pub(crate) mod run;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod tokens;
pub(crate) mod vms;
pub(crate) mod webhooks;

use clap::Subcommand;

use crate::cli_failure::Outcome;
use crate::output::LogFormat;

/// The commands. A new one is a module, a variant, and a line in [`Command::run`].
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole road once: a guest panics, its core arrives and is proved.
    Demo(demo::Args),
    /// Run a guest whose memory is saved when it crashes.
    Run(Box<run::Args>),
    /// List, inspect, dump and stop the machines on this host.
    Vms(vms::Args),
    /// Receive dumps, store and prove them, and serve the API.
    Serve(serve::Args),
    /// List, inspect, verify and fetch stored cores.
    Cores(cores::Args),
    /// Send an existing vmcore to a receiver.
    Send(send::Args),
    /// Say whether this host is able to run guests, and whether a dump from here arrives.
    Doctor(doctor::Args),
    /// Make, list and remove the tokens of a receiver's API.
    Tokens(tokens::Args),
    /// List the events that nobody could be told of.
    Webhooks(webhooks::Args),
    /// Print what a stored core tells of the crash; what a receiver runs for each core.
    #[command(hide = true)]
    ExplainCore(explain_core::Args),
    /// Print the completions of a shell.
    Completions(completions::CompletionsArgs),
    /// Print the manual page.
    Man(completions::ManArgs),
}

impl Command {
    /// What is logged where nobody said otherwise: a daemon tells what it does, a tool only what goes wrong.
    pub(crate) fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info",
            _ => "warn",
        }
    }

    /// What log lines look like.
    pub(crate) fn log_format(&self) -> LogFormat {
        match self {
            Self::Serve(args) => args.log.format,
            Self::Run(args) => args.log.format,
            _ => LogFormat::Text,
        }
    }

    /// Runs it to its end. `parser` is the whole command line, for the manual page.
    pub(crate) fn run(self, parser: clap::Command) -> Outcome {
        match self {
            Self::Demo(args) => demo::run(&args),
            Self::Run(args) => run::run(*args),
            Self::Vms(args) => vms::run(args),
            Self::Serve(args) => serve::run(args),
            Self::Cores(args) => cores::run(args),
            Self::Send(args) => send::run(args),
            Self::Doctor(args) => doctor::run(&args),
            Self::Tokens(args) => tokens::run(args),
            Self::Webhooks(args) => webhooks::run(args),
            Self::ExplainCore(args) => explain_core::run(&args),
            Self::Completions(args) => completions::completions(&args),
            Self::Man(args) => completions::manual(&args, parser),
        }
    }
}
