//! Every tool opens a core of every kernel: kernels × vCPUs × memory × fw_cfg's driver × tools × forms of a core.
//!
//! A stock guest panics under QEMU (TCG), QEMU dumps it, and the `vmcore` crate lays that out as ours; `cores export` makes the
//! compressed form. The short matrix is eight combinations, in which each kernel, number of vCPUs and place of memory meets each other
//! choice but for kernels and vCPUs; `cargo xtask matrix` runs all of them and writes the table of docs/tools.md from what came
//! out (`COREFERRY_MATRIX`). crash, gdb and drgn's stacks need symbols, which the testbed has for one kernel.

#[path = "matrix/combination.rs"]
mod combination;
mod common;
#[path = "tools/guest.rs"]
#[allow(dead_code, reason = "the tests of the layout have a guest of their own")]
mod guest;
#[path = "tools/ours.rs"]
#[allow(dead_code, reason = "the tests of the layout ask more of it")]
mod ours;
#[path = "tools/readers.rs"]
#[allow(dead_code, reason = "the tests of the layout ask more of it")]
mod readers;
#[path = "tools/run.rs"]
mod run;
#[path = "tools/testbed.rs"]
mod testbed;
#[path = "matrix/tools.rs"]
mod tools;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::thread;

use anyhow::{Result, bail};
use combination::Combination;
use testbed::Testbed;
use tools::Cell;

#[test]
#[ignore = "of the whole matrix"]
fn every_tool_opens_the_cores_of_eight_combinations() {
    check(&Combination::eight());
}

#[test]
#[ignore = "the whole matrix takes an hour"]
fn every_tool_opens_the_cores_of_all_combinations() {
    check(&Combination::all());
}

/// Makes a core of each combination, two at a time, and lets all tools at it; the failures are told together.
fn check(combinations: &[Combination]) {
    let Some(testbed) = Testbed::find() else { return };
    if !combinations.iter().all(|combination| combination.is_there(&testbed)) {
        return;
    }
    let mut failures = String::new();
    for pair in combinations.chunks(2) {
        let checked: Vec<Result<Vec<Cell>>> = thread::scope(|scope| {
            let testbed = &testbed;
            let start = |combination| scope.spawn(move || tools::check(testbed, combination));
            let started: Vec<_> = pair.iter().map(start).collect();
            let ended = started.into_iter().map(thread::ScopedJoinHandle::join);
            ended
                .map(|end| end.unwrap_or_else(|_| bail!("the check panicked")))
                .collect()
        });
        for (combination, checked) in pair.iter().zip(checked) {
            match checked {
                Ok(cells) => {
                    write_down(combination, &cells).expect("COREFERRY_MATRIX can be written");
                    for cell in cells.iter().filter(|cell| cell.failed) {
                        failures += &format!("{combination}: {} on {}: {}\n", cell.tool, cell.form, cell.said);
                    }
                }
                Err(error) => failures += &format!("{combination}: {error:#}\n"),
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// Appends a line for each cell to the file that `cargo xtask matrix` reads.
fn write_down(combination: &Combination, cells: &[Cell]) -> Result<()> {
    for cell in cells {
        eprintln!("{combination}: {} on {}: {}", cell.tool, cell.form, cell.said);
    }
    let Some(path) = std::env::var_os("COREFERRY_MATRIX") else {
        return Ok(());
    };
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    for cell in cells {
        let outcome = match (cell.failed, cell.known) {
            (true, _) => "FAILED",
            (false, Some(known)) => known,
            (false, None) => "yes",
        };
        writeln!(file, "{combination}\t{}\t{}\t{outcome}", cell.tool, cell.form)?;
    }
    Ok(())
}
