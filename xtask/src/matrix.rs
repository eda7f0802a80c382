//! `cargo xtask matrix`: which tools open the cores of which kernels, as a table in docs/tools.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{process, testbed, workspace};

/// The document, and the lines between which the table stands.
const DOCUMENT: &str = "docs/tools.md";
const BEGIN: &str = "<!-- made by `cargo xtask matrix` -->";
const END: &str = "<!-- end -->";
/// What the test says about a guest, before tool, form and outcome.
const GUEST_FIELDS: usize = 4;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only eight combinations, with little memory.
    #[arg(long)]
    short: bool,
    /// Goes on with a run that was cut off: what it has written down and did not fail is not run again.
    #[arg(long)]
    resume: bool,
}

/// Runs the matrix and writes the table of what came out, failures too.
pub(crate) fn run(options: &Options) -> Result<()> {
    for missing in testbed::fetch(true) {
        eprintln!("cannot be had: {missing}");
    }
    let outcome = workspace::cache_dir().join("matrix.tsv");
    let before = fs::read_to_string(&outcome).unwrap_or_default();
    let kept = if options.resume {
        without_failed(&before)
    } else {
        String::new()
    };
    fs::write(&outcome, kept).with_context(|| format!("cannot write {}", outcome.display()))?;
    let mut test = workspace::cargo();
    test.args([
        "test",
        "--locked",
        "-p",
        "coreferry",
        "--test",
        "matrix",
        "--",
        "--nocapture",
    ]);
    test.arg(if options.short { "eight" } else { "all_combinations" });
    test.arg("--include-ignored");
    test.env("COREFERRY_CACHE", workspace::cache_dir())
        .env("COREFERRY_MATRIX", &outcome);
    let ran = process::run(&mut test);
    let lines = fs::read_to_string(&outcome).with_context(|| format!("no outcome in {}", outcome.display()))?;
    let document = workspace::root().join(DOCUMENT);
    let text = fs::read_to_string(&document).with_context(|| format!("cannot read {DOCUMENT}"))?;
    fs::write(&document, replaced(&text, &table(&lines))?)?;
    println!("{DOCUMENT} has the outcome");
    ran
}

/// The document with another table.
fn replaced(text: &str, table: &str) -> Result<String> {
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("{DOCUMENT} has no line {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{DOCUMENT} has no line {END}"))?;
    ensure!(!after.contains(BEGIN), "{DOCUMENT} has two tables");
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// The lines of those guests in which nothing failed.
fn without_failed(lines: &str) -> String {
    let guest = |line: &str| line.split('\t').take(GUEST_FIELDS).collect::<Vec<_>>().join("\t");
    let failed: Vec<String> = lines
        .lines()
        .filter(|line| line.ends_with("\tFAILED"))
        .map(guest)
        .collect();
    let kept = lines.lines().filter(|line| !failed.contains(&guest(line)));
    kept.fold(String::new(), |text, line| text + line + "\n")
}

/// A row for each guest, a column for each tool and form.
fn table(lines: &str) -> String {
    let mut columns: Vec<String> = Vec::new();
    let mut guests: Vec<Vec<&str>> = Vec::new();
    let mut cells: BTreeMap<(usize, usize), &str> = BTreeMap::new();
    for line in lines.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let (guest, rest) = fields.split_at(fields.len().min(GUEST_FIELDS));
        let [tool, form, outcome] = rest else { continue };
        let row = place(&mut guests, guest.to_vec());
        let column = place(&mut columns, format!("{tool}, {form}"));
        cells.insert((row, column), outcome);
    }
    let mut rows: Vec<usize> = (0..guests.len()).collect();
    rows.sort_by_key(|row| guests.get(*row).map(|guest| (guest.first().copied(), by_size(guest))));
    let mut text = format!(
        "| kernel | vCPUs | memory | fw_cfg driver | {} |\n",
        columns.join(" | ")
    );
    let _ = writeln!(text, "|{}", "---|".repeat(GUEST_FIELDS + columns.len()));
    for (row, guest) in rows.into_iter().filter_map(|row| Some((row, guests.get(row)?))) {
        let outcomes = (0..columns.len()).map(|column| cells.get(&(row, column)).copied().unwrap_or("-"));
        let outcomes: Vec<&str> = outcomes.collect();
        let _ = writeln!(text, "| {} | {} |", guest.join(" | "), outcomes.join(" | "));
    }
    text
}

/// vCPUs, memory and driver of a guest, to sort by.
fn by_size(guest: &[&str]) -> (Vec<u32>, bool) {
    let numbers = guest.get(1..3).unwrap_or_default().iter();
    let number = |text: &&str| {
        text.split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    let in_mib = |text: &&str| number(text) * if text.ends_with("GiB") { 1024 } else { 1 };
    (numbers.map(in_mib).collect(), guest.get(3) != Some(&"yes"))
}

/// Where a thing is in a list, to which it is added if it is not there.
fn place<T: PartialEq>(list: &mut Vec<T>, thing: T) -> usize {
    match list.iter().position(|other| *other == thing) {
        Some(at) => at,
        None => {
            list.push(thing);
            list.len() - 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_with_the_guests_that_failed_or_are_missing() {
        let lines =
            "6.1\t1\tx\tyes\tcrash\tELF\tyes\n6.1\t2\tx\tyes\tcrash\tELF\tyes\n6.1\t2\tx\tyes\tgdb\tELF\tFAILED\n";
        assert_eq!(without_failed(lines), "6.1\t1\tx\tyes\tcrash\tELF\tyes\n");
    }

    #[test]
    fn a_table_has_a_row_for_each_guest_and_a_column_for_each_tool() {
        let lines = "6.1\t1\t5 GiB\tyes\tcrash\tELF\tyes\n6.1\t1\t192 MiB\tyes\tcrash\tELF\tyes\n6.1\t1\t192 MiB\tyes\tgdb\tkdump\tELF only\n\
            6.12\t2\t192 MiB\tno\tcrash\tELF\tFAILED\nnonsense\n";
        let table = table(lines);
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(
            rows[0],
            "| kernel | vCPUs | memory | fw_cfg driver | crash, ELF | gdb, kdump |"
        );
        assert_eq!(rows[2], "| 6.1 | 1 | 192 MiB | yes | yes | ELF only |");
        assert_eq!(
            rows[3], "| 6.1 | 1 | 5 GiB | yes | yes | - |",
            "more memory comes later"
        );
        assert_eq!(rows[4], "| 6.12 | 2 | 192 MiB | no | FAILED | - |");
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let replaced = replaced(&document, &table).unwrap();
        assert!(replaced.starts_with("a\n") && replaced.ends_with("\nb\n") && !replaced.contains("old"));
        assert!(super::replaced("a", &table).is_err());
    }
}
