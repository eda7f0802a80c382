//! `cargo xtask fuzz`: the libFuzzer targets of fuzz/, on the stable compiler.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{process, workspace};

/// The coverage that libFuzzer wants (clang's SanitizerCoverage), asked of LLVM directly.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// Longest input: a kernel dump header, a manifest and a journal with some records fit.
const INPUT_LEN_MAX: u32 = 4096;

/// Longest core: header, sub-header, bitmaps and some pages of a kdump file.
const CORE_LEN_MAX: u32 = 32_768;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u32,
    /// Only targets whose name contains this.
    #[arg(value_name = "NAME")]
    only: Option<String>,
}

/// Builds the targets and runs each for a while, from the inputs kept in fuzz/corpus. What breaks one is left in
/// target/fuzz/TARGET and named.
pub(crate) fn run(options: &Options) -> Result<()> {
    let package = workspace::root().join("fuzz");
    let corpus = package.join("corpus");
    let mut names = Vec::new();
    for entry in fs::read_dir(&corpus).with_context(|| format!("cannot list {}", corpus.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| options.only.as_ref().is_none_or(|only| name.contains(only.as_str())));
    names.sort();
    if names.is_empty() {
        bail!(
            "no folder in fuzz/corpus has {:?} in its name",
            options.only.as_deref().unwrap_or_default()
        );
    }
    let program = build(&package)?;
    let mut broken = Vec::new();
    for name in names {
        let work = workspace::root().join("target/fuzz").join(&name);
        fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        let mut command = Command::new(&program);
        command.env("COREFERRY_FUZZ_TARGET", &name);
        command.arg(format!("-max_total_time={}", options.seconds));
        let len_max = if name == "core-file" {
            CORE_LEN_MAX
        } else {
            INPUT_LEN_MAX
        };
        command.arg(format!("-max_len={len_max}"));
        command.args([
            "-rss_limit_mb=1024",
            "-timeout=10",
            "-print_final_stats=1",
            "-verbosity=0",
        ]);
        command.arg(format!("-artifact_prefix={}/", work.display()));
        // The first folder takes what is found, the second is only read.
        let found = work.join("corpus");
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        command.arg(&found).arg(corpus.join(&name));
        let output = process::output(&mut command)?;
        let text = String::from_utf8_lossy(&output.stderr);
        let runs = text
            .lines()
            .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        println!(
            "{name:20} {:>10} runs in {} s, {}",
            runs.unwrap_or("?").trim(),
            options.seconds,
            output.status
        );
        if !output.status.success() {
            println!("{text}");
            broken.push(name);
        }
    }
    if !broken.is_empty() {
        bail!("{} broke; the inputs are in target/fuzz", broken.join(", "));
    }
    Ok(())
}

/// Compiles the targets apart from everything else; gives the program.
fn build(package: &std::path::Path) -> Result<PathBuf> {
    let host = process::read(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let host = host.trim();
    // With an explicit target the flags do not reach build scripts.
    let target_dir = workspace::root().join("target/fuzz/build");
    let mut command = workspace::cargo();
    command.current_dir(package);
    // Not --locked: what the rooms depend on changes in their own lockfile first, and is added to this one.
    command.args(["build", "--release", "--quiet", "--target", host]);
    command.env("RUSTFLAGS", COVERAGE.split_whitespace().collect::<Vec<_>>().join(" "));
    command.env("CARGO_TARGET_DIR", &target_dir);
    process::run(&mut command)?;
    Ok(target_dir.join(host).join("release/fuzz"))
}
