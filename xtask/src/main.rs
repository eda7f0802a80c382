//! Developer commands: `cargo xtask COMMAND`.
//!
//! What a person types before a commit and what CI runs are the same commands. They need the Rust toolchain and a C
//! compiler; whatever else the tests need is fetched into a cache folder, never installed into the system.

mod bench;
mod check;
mod ci;
mod fuzz;
mod lint;
mod matrix;
mod process;
mod sim;
mod test;
mod testbed;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of coreferry.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Proves the rules between the folders: who depends on whom, one version of the shared crates, where unsafe may be.
    ///
    /// Reads `cargo metadata`, Cargo.lock and the sources; compiles nothing.
    Check,
    /// Formatting and clippy over the whole workspace, warnings are errors.
    Lint,
    /// Runs the tests, tier by tier, and fetches first what they need.
    ///
    /// By itself it runs what takes minutes. A test that cannot run on this machine prints `SKIP: reason`; with CI=true
    /// in the environment a skip is a failure. The last line reads `N passed, N failed, N skipped`.
    ///
    /// Example: cargo xtask test --tier stock
    Test(test::Options),
    /// Runs the benchmarks of benches/.
    Bench(bench::Options),
    /// Simulates dumps between our ends and stock ends over bad networks, and checks the rules that hold over them.
    ///
    /// Example: cargo xtask sim --seeds 100000
    Sim(sim::Options),
    /// Throws made-up bytes at everything that reads what the network or a guest sends (libFuzzer, stable compiler).
    ///
    /// Needs a C++ compiler. Example: cargo xtask fuzz --seconds 60 netdump
    Fuzz(fuzz::Options),
    /// Fetches what the tests need (stock kernels, crash, QEMU, drgn) into the cache folder, and nothing else.
    ///
    /// The cache is ${COREFERRY_CACHE:-target/cache}. Packages come by apt from the mirror this machine uses, checked by
    /// apt's signatures, and are only unpacked.
    Testbed(testbed::Options),
    /// Makes cores of all kernels, numbers of vCPUs and sizes of memory, lets every tool open them, and writes the table of
    /// docs/tools.md.
    ///
    /// Example: cargo xtask matrix --short
    Matrix(matrix::Options),
    /// Does what .ci/run does: lint, check, test, the demo and the short benchmarks.
    Ci,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Check => check::run(),
        Command::Lint => lint::run(),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Testbed(options) => testbed::run(&options),
        Command::Matrix(options) => matrix::run(&options),
        Command::Ci => ci::run(),
    }
}
