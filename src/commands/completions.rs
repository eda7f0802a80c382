//! `completions` and `man`: what a package installs beside the binary.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::cli_failure::{Exit, Failure, Outcome};

/// What a shell sets to have a line completed.
pub(crate) const VARIABLE: &str = "COREFERRY_COMPLETE";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: coreferry completions bash > /etc/bash_completion.d/coreferry")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: coreferry man | man -l -")]
pub(crate) struct ManArgs {
    /// Print the page of this command instead, such as `serve` or `cores fetch`.
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Prints what makes a shell ask this program how a line could go on: words, files, and ids of cores.
pub(crate) fn completions(args: &CompletionsArgs) -> Outcome {
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&name) else {
        return Err(Failure::new(
            Exit::Usage,
            format!("there are no completions for {name}"),
        ));
    };
    let mut text = Vec::new();
    shell
        .write_registration(VARIABLE, "coreferry", "coreferry", "coreferry", &mut text)
        .context("cannot write the completions")?;
    print(&text)
}

/// Prints a manual page.
pub(crate) fn manual(args: &ManArgs, mut page: clap::Command) -> Outcome {
    page.build();
    for name in &args.command {
        let Some(sub) = page.find_subcommand(name) else {
            let sentence = format!(
                "there is no command `{}`; see `coreferry --help`",
                args.command.join(" ")
            );
            return Err(Failure::new(Exit::Usage, sentence));
        };
        page = sub.clone();
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .context("cannot render the manual page")?;
    print(&text)
}

/// Writes to standard output; a reader that went away is no error.
fn print(text: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(anyhow::Error::new(why)
            .context("cannot write to standard output")
            .into()),
        _ => Ok(Exit::Ok),
    }
}
