//! `cargo xtask bench`: the benchmarks of benches/, in release.

use anyhow::{Result, bail};
use clap::Args;

use crate::{process, testbed, workspace};

/// Run only where their name is given: they boot stock kernels of the testbed, which takes minutes.
const BY_NAME_ONLY: [&str; 3] = ["em", "explain", "export"];

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Small sizes and few rounds: shows within a minute or two that everything still runs, the figures are rough.
    #[arg(long)]
    short: bool,
    /// Only the benchmarks whose name contains this. `em` (our em beside QEMU's, under stock kernels), `explain` (a stock kernel's core
    /// beside `makedumpfile --dump-dmesg`) and `export` (cores in other forms beside makedumpfile and QEMU) run only by name.
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
        .filter(|name| name.contains(wanted) && (!BY_NAME_ONLY.contains(name) || wanted == *name))
        .collect();
    if names.is_empty() {
        bail!("no benchmark in benches/ has {wanted:?} in its name");
    }
    if names.iter().any(|name| BY_NAME_ONLY.contains(name)) {
        for missing in testbed::fetch(true) {
            eprintln!("cannot be had: {missing}");
        }
    }
    let mut command = workspace::cargo();
    command.env("COREFERRY_CACHE", workspace::cache_dir());
    command.args(["bench", "--locked", "-p", "coreferry"]);
    for name in names {
        command.args(["--bench", name]);
    }
    if options.short {
        command.env("COREFERRY_BENCH_SHORT", "1");
    }
    process::run(&mut command)
}
