//! `tokens`: who may use a receiver's API over TCP.

use std::path::PathBuf;

use api::Scope;
use clap::Subcommand;
use server::{TokenError, Tokens};

use crate::cli_failure::{Exit, Failure, Outcome};
use crate::output;

/// Arguments of `tokens`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "As soon as there is one token, everybody who comes over TCP has to show one, also from this host. The unix\n\
    socket (`serve --api unix:PATH`) goes by its mode instead. Commands show the token in COREFERRY_TOKEN, or in the file\n\
    that COREFERRY_TOKEN_FILE names.\n\n\
    Example: coreferry tokens add grafana --scope read-meta --dir /var/crash"
)]
pub(crate) struct Args {
    /// Directory of the receiver.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "COREFERRY_DIR",
        default_value = "/var/crash"
    )]
    dir: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token; its secret is printed once and kept nowhere.
    #[command(after_help = "Example: coreferry tokens add ops --scope read-meta,read-core,admin")]
    Add {
        /// Its name: it stands in the audit file.
        name: String,
        /// What it allows: read-meta, read-core, trigger, admin; separated by commas.
        #[arg(long, value_name = "SCOPES", value_delimiter = ',', default_value = "read-meta", value_parser = parse_scope)]
        scope: Vec<Scope>,
    },
    /// List the tokens.
    #[command(after_help = "Example: coreferry tokens list --json")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a token; it is refused from now on.
    #[command(after_help = "Example: coreferry tokens remove ops")]
    Remove {
        /// Its name.
        name: String,
    },
}

/// Runs one verb.
pub(crate) fn run(args: Args) -> Outcome {
    let tokens = Tokens::of(&args.dir);
    match args.verb {
        Verb::Add { name, scope } => {
            let secret = tokens.add(&name, &scope).map_err(|why| failed(&why))?;
            output::line(&secret)?;
        }
        Verb::List { json: true } => {
            let all = tokens.all().map_err(|why| failed(&why))?;
            let shown = all.iter().map(
                |token| serde_json::json!({ "name": token.name, "scopes": token.scopes, "made_at": token.made_at }),
            );
            output::json(&shown.collect::<Vec<_>>())?;
        }
        Verb::List { json: false } => {
            let all = tokens.all().map_err(|why| failed(&why))?;
            let rows = all
                .into_iter()
                .map(|token| vec![token.name, token.scopes.join(","), token.made_at]);
            output::line(&output::table(&["NAME", "SCOPES", "MADE"], rows.collect()))?;
        }
        Verb::Remove { name } => tokens.remove(&name).map_err(|why| failed(&why))?,
    }
    Ok(Exit::Ok)
}

fn failed(why: &TokenError) -> Failure {
    let exit = match why {
        TokenError::File { .. } => Exit::Failed,
        TokenError::Taken(_) | TokenError::Name(_) => Exit::Usage,
        TokenError::Missing(_) => Exit::NothingMatched,
    };
    Failure::new(exit, why.to_string())
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| format!("the scopes are {}", Scope::ALL.map(Scope::as_str).join(", ")))
}
