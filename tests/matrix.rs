//! Every tool opens a core of every kernel: kernels × vCPUs × memory × fw_cfg's driver × tools × forms of a core.
//!
//! A stock guest panics under QEMU (TCG), QEMU dumps it, and the `vmcore` crate lays that out as ours; `cores export` makes the
//! compressed form. The short matrix is eight combinations, in which each kernel, number of vCPUs and place of memory meets each other
//! choice but for kernels and vCPUs; `cargo xtask matrix` runs all of them and writes the table of docs/tools.md from what came
//! out (`COREFERRY_MATRIX`). crash, gdb and drgn need debug information: for the whole matrix the testbed has that of every kernel,
//! else of one. A known fault of a tool is a check, too: it fails when the fault is gone.

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
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use combination::Combination;
use testbed::Testbed;
use tools::Cell;

#[test]
fn every_tool_opens_the_cores_of_eight_combinations() {
    check(&Combination::eight());
}

#[test]
#[ignore = "the whole matrix takes an hour"]
fn every_tool_opens_the_cores_of_all_combinations() {
    check(&Combination::all());
}

/// Makes a core of each combination, several at a time, and lets all tools at it; the failures are told together.
fn check(combinations: &[Combination]) {
    let Some(testbed) = Testbed::find() else { return };
    if !combinations.iter().all(|combination| combination.is_there(&testbed)) {
        return;
    }
    let done = written_down();
    let is_open = |combination: &&Combination| !done.contains(&format!("{combination}\t"));
    let queue = Mutex::new(combinations.iter().filter(is_open));
    let failures = Mutex::new(String::new());
    let work = || {
        while let Some(combination) = next(&queue) {
            let failed = match tools::check(&testbed, combination) {
                Ok(cells) => {
                    write_down(combination, &cells).expect("COREFERRY_MATRIX can be written");
                    failures_of(combination, &cells)
                }
                Err(error) => format!("{combination}: {error:#}\n"),
            };
            *failures.lock().unwrap_or_else(PoisonError::into_inner) += &failed;
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_once() {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{failures}");
}

fn next<'a>(queue: &Mutex<impl Iterator<Item = &'a Combination>>) -> Option<&'a Combination> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn failures_of(combination: &Combination, cells: &[Cell]) -> String {
    let failed = cells.iter().filter(|cell| cell.failed);
    let lines = failed.map(|cell| format!("{combination}: {} on {}: {}\n", cell.tool, cell.form, cell.said));
    lines.collect()
}

/// How many guests at a time: two keep two processors busy, since no tool uses more than one.
fn at_once() -> usize {
    let wanted = std::env::var("COREFERRY_MATRIX_AT_ONCE").ok();
    wanted.and_then(|number| number.parse().ok()).unwrap_or(2)
}

/// What an earlier run that is to be gone on with wrote.
fn written_down() -> String {
    let path = std::env::var_os("COREFERRY_MATRIX");
    path.and_then(|path| std::fs::read_to_string(path).ok())
        .unwrap_or_default()
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
