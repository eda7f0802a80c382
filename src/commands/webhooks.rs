//! `webhooks`: what became of events that addresses were to be told of.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;

use crate::cli_failure::{Exit, Outcome};
use crate::output;

/// Arguments of `webhooks`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The addresses are in the file of `coreferry serve --config` (docs/serve.toml). A receiver's API has the same list at\n\
    /api/v1/dead-letters.\n\n\
    Example: coreferry webhooks dead --dir /var/crash"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the events that an address could not be told of, newest first.
    #[command(after_help = "Example: coreferry webhooks dead --json")]
    Dead {
        /// Directory of the receiver.
        #[arg(long, value_name = "DIR", env = "COREFERRY_DIR", default_value = "/var/crash")]
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs one verb.
pub(crate) fn run(args: Args) -> Outcome {
    let Verb::Dead { dir, json } = args.verb;
    std::fs::read_dir(&dir)
        .with_context(|| format!("cannot read {}; --dir names the receiver's directory", dir.display()))?;
    let letters =
        server::dead_letters(&dir).with_context(|| format!("cannot read the dead letters of {}", dir.display()))?;
    if json {
        output::json(&letters)?;
    } else if letters.is_empty() {
        output::say("no dead letters");
    } else {
        let now = jiff::Timestamp::now();
        let rows = letters.into_iter().map(|letter| {
            vec![
                output::ago(&letter.died_at, now),
                letter.event.kind,
                letter.event.subject,
                letter.to,
                letter.last_error.unwrap_or_default(),
            ]
        });
        output::line(&output::table(
            &["GIVEN UP", "EVENT", "CORE", "TO", "WHY"],
            rows.collect(),
        ))?;
    }
    Ok(Exit::Ok)
}
