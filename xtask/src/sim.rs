//! `cargo xtask sim`: simulated dumps, one for each seed, in release.

use anyhow::Result;
use clap::Args;

use crate::{process, workspace};

/// Which dumps to play.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many seeds; each draws both ends, the network, and who loses power when.
    #[arg(long, value_name = "N", default_value_t = 5000)]
    seeds: u64,
    /// The first of them. With `--seeds 1` it repeats one that failed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Plays this many dumps of 64 MiB of a stock client over a link that loses 1 % too, with paired acknowledgements and
    /// without: none may have a hole with them, some have to without them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    silent_holes: u64,
}

impl Options {
    /// What takes minutes: all that is promised.
    pub(crate) const fn full() -> Self {
        Self {
            seeds: 100_000,
            from: 0,
            silent_holes: 1000,
        }
    }
}

/// Runs the simulation of the netdump crate; it prints a table, and each seed under which a rule was broken.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut command = workspace::cargo();
    command.args([
        "run",
        "--locked",
        "--release",
        "--quiet",
        "-p",
        "netdump",
        "--example",
        "sim",
        "--",
    ]);
    command.arg("--seeds").arg(options.seeds.to_string());
    command.arg("--from").arg(options.from.to_string());
    command.arg("--silent-holes").arg(options.silent_holes.to_string());
    process::run(&mut command)
}
