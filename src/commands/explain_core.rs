//! `explain-core`: what a receiver runs, as a process of its own, for each core that it keeps.

use std::ffi::OsString;
use std::path::PathBuf;

use server::limits::{EXPLAIN_CPU_S, EXPLAIN_MEMORY_BYTES, EXPLAIN_PRINTED_BYTES};

use crate::cli_failure::{Exit, OrExit as _, Outcome};
use crate::output;

/// Arguments of `explain-core`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: coreferry explain-core /var/crash/cores/2026/01/01b3…")]
pub(crate) struct Args {
    /// Directory of a stored core.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

impl Args {
    /// The arguments, if they are just those with which a receiver runs it; all others are for the parser.
    pub(crate) fn plain(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let [_, command, directory] = [words.next()?, words.next()?, words.next()?];
        let is_plain =
            command == "explain-core" && !directory.to_string_lossy().starts_with('-') && words.next().is_none();
        is_plain.then(|| Self {
            directory: directory.into(),
        })
    }
}

/// Prints what the core tells, as JSON.
pub(crate) fn run(args: &Args) -> Outcome {
    server::confine(EXPLAIN_MEMORY_BYTES, EXPLAIN_CPU_S, EXPLAIN_PRINTED_BYTES).or_exit(Exit::Failed)?;
    let explanation = server::explain(&args.directory).or_exit(Exit::Failed)?;
    output::json(&explanation)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_receiver_says_is_taken_without_the_parser() {
        let plain = |words: &[&str]| Args::plain(words.iter().map(OsString::from)).map(|args| args.directory);
        assert_eq!(
            plain(&["coreferry", "explain-core", "/a/b"]),
            Some(PathBuf::from("/a/b"))
        );
        for others in [
            &["coreferry", "explain-core"][..],
            &["coreferry", "explain-core", "--help"],
            &["coreferry", "explain-core", "/a", "/b"],
            &["coreferry", "--json", "explain-core"],
            &["coreferry", "cores", "/a"],
        ] {
            assert_eq!(plain(others), None, "{others:?}");
        }
    }
}
