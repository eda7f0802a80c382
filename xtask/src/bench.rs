//! `cargo xtask bench`: the benchmarks of benches/, in release.

use anyhow::{Result, bail};
use clap::Args;

use crate::{process, workspace};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Small sizes and few rounds: shows within a minute or two that everything still runs, the figures are rough.
    #[arg(long)]
    short: bool,
    /// Only the benchmarks whose file name contains this.
    #[arg(value_name = "NAME")]
    only: Option<String>,
}

/// Runs every benchmark of the root package. A benchmark reads `COREFERRY_BENCH_SHORT` from its environment.
pub(crate) fn run(options: &Options) -> Result<()> {
    let packages = workspace::packages(&workspace::root().join("Cargo.toml"))?;
    let mine = packages.iter().filter(|package| package.dir == workspace::root());
    let names = mine
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind == "bench");
    let wanted = options.only.as_deref().unwrap_or_default();
    let names: Vec<&str> = names
        .map(|target| target.name.as_str())
        .filter(|name| name.contains(wanted))
        .collect();
    if names.is_empty() {
        bail!("no benchmark in benches/ has {wanted:?} in its name");
    }
    let mut command = workspace::cargo();
    command.args(["bench", "--locked", "-p", "coreferry"]);
    for name in names {
        command.args(["--bench", name]);
    }
    if options.short {
        command.env("COREFERRY_BENCH_SHORT", "1");
    }
    process::run(&mut command)
}
