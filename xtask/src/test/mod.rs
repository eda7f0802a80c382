//! `cargo xtask test`: all tests, tier by tier.
//!
//! Tier `unit` runs the tests inside the crates, `doc` the examples in their documentation; every file below a `tests/`
//! folder is a tier of its own, named after the file. All of them are built together, once.

mod output;
mod tiers;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;

use crate::{process, sim, testbed, workspace};
use output::Tally;
use tiers::Tier;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Everything, whole matrices and long runs included: sets COREFERRY_ALL=1, runs ignored tests and simulates in full.
    #[arg(long)]
    all: bool,
    /// Only tiers whose name contains this; may be given several times.
    #[arg(long = "tier", value_name = "NAME")]
    tiers: Vec<String>,
    /// Fetch nothing: tests that need what is not in the cache say SKIP.
    #[arg(long)]
    no_fetch: bool,
    /// Only tests whose name contains this.
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// Builds, fetches, runs and sums up.
pub(crate) fn run(options: &Options) -> Result<()> {
    let packages = workspace::packages(&workspace::root().join("Cargo.toml"))?;
    let tiers = tiers::select(tiers::all(&packages), &options.tiers)?;
    let mut notes = prepare(&tiers, options)?;

    let mut sum = Tally::default();
    let mut times = Vec::new();
    for tier in &tiers {
        let began = Instant::now();
        let tally = tiers::run(tier, options.all, options.filter.as_deref())?;
        times.push((tier.name.clone(), began.elapsed(), tally.clone()));
        sum += tally;
    }
    summary(&times);
    notes.append(&mut sum.skips);
    notes.iter().for_each(|reason| println!("SKIP: {reason}"));
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, notes.len());
    if options.all && options.tiers.is_empty() && options.filter.is_none() {
        sim::run(&sim::Options::full())?;
    }
    if sum.failed > 0 {
        bail!("{} tests failed", sum.failed);
    }
    if workspace::in_ci() && !notes.is_empty() {
        bail!("CI runs every test, but {} were skipped", notes.len());
    }
    Ok(())
}

/// Compiles the tests while what they need is fetched; returns what could not be had, and why.
fn prepare(tiers: &[Tier], options: &Options) -> Result<Vec<String>> {
    let fetch = !options.no_fetch && tiers.iter().any(|tier| tier.needs_testbed);
    thread::scope(|scope| {
        let fetching = fetch.then(|| scope.spawn(|| testbed::fetch(options.all)));
        let built = process::run(workspace::cargo().args(["test", "--workspace", "--locked", "--no-run", "-q"]));
        let missing = match fetching.map(thread::ScopedJoinHandle::join) {
            None => Vec::new(),
            Some(Ok(missing)) => missing,
            Some(Err(_)) => bail!("fetching the testbed panicked"),
        };
        built.map(|()| missing)
    })
}

fn summary(times: &[(String, Duration, Tally)]) {
    println!(
        "\n{:<24} {:>8} {:>8} {:>8} {:>9}",
        "tier", "passed", "failed", "skipped", "seconds"
    );
    for (name, time, tally) in times {
        let Tally {
            passed, failed, skips, ..
        } = tally;
        println!(
            "{name:<24} {passed:>8} {failed:>8} {:>8} {:>9.1}",
            skips.len(),
            time.as_secs_f64()
        );
    }
    println!();
}
