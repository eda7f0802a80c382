//! `explain-core`: what a receiver runs, as a process of its own, for each core that it keeps.

use std::path::PathBuf;

use crate::cli_failure::{Exit, OrExit as _, Outcome};
use crate::output;

/// Address space: the program itself, a log of 64 MiB three times over, and room to spare.
const MEMORY_BYTES: u64 = 1 << 30;
/// Time on a CPU: a log takes milliseconds.
const CPU_S: u64 = 30;

/// Arguments of `explain-core`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: coreferry explain-core /var/crash/cores/2026/01/01b3…")]
pub(crate) struct Args {
    /// Directory of a stored core.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Prints what the core tells, as JSON.
pub(crate) fn run(args: &Args) -> Outcome {
    server::confine(MEMORY_BYTES, CPU_S).or_exit(Exit::Failed)?;
    let explanation = server::explain(&args.directory).or_exit(Exit::Failed)?;
    output::json(&explanation)?;
    Ok(Exit::Ok)
}
