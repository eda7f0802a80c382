//! The tiers, found from what cargo knows, and how one of them is run.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::Stdio,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, bail};

use super::output::{self, Tally};
use crate::{
    process,
    workspace::{self, Package},
};

/// A set of tests that one `cargo test` runs.
#[derive(Debug, Clone)]
pub(crate) struct Tier {
    pub(crate) name: String,
    /// The target selection of `cargo test`.
    selection: Vec<String>,
    /// Whether its tests may use fetched programs, kernels or symbols.
    pub(crate) needs_testbed: bool,
}

/// Every tier of the workspace, the quick ones first.
pub(crate) fn all(packages: &[Package]) -> Vec<Tier> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut tiers = vec![
        Tier {
            name: "unit".into(),
            selection: words(&["--lib", "--bins"]),
            needs_testbed: false,
        },
        Tier {
            name: "doc".into(),
            selection: words(&["--doc"]),
            needs_testbed: false,
        },
    ];
    let targets = packages
        .iter()
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind == "test");
    let mut names: Vec<&str> = targets.map(|target| target.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    tiers.extend(names.into_iter().map(|name| Tier {
        name: name.to_owned(),
        selection: words(&["--test", name]),
        needs_testbed: true,
    }));
    tiers
}

/// The tiers whose name contains one of `wanted`; all of them if nothing is wanted by name.
pub(crate) fn select(tiers: Vec<Tier>, wanted: &[String]) -> Result<Vec<Tier>> {
    let names = tiers
        .iter()
        .map(|tier| tier.name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    let chosen = |tier: &Tier| wanted.is_empty() || wanted.iter().any(|part| tier.name.contains(part.as_str()));
    let selected: Vec<Tier> = tiers.into_iter().filter(chosen).collect();
    if selected.is_empty() {
        bail!("no tier is called {}; there are: {names}", wanted.join(" or "));
    }
    Ok(selected)
}

/// Runs one tier. What its failing tests printed is shown, else only one line.
///
/// The same package selection as for the build is used throughout, so that cargo unifies the same features and builds
/// nothing twice.
pub(crate) fn run(tier: &Tier, all: bool, filter: Option<&str>) -> Result<Tally> {
    let mut command = workspace::cargo();
    command
        .args(["test", "--workspace", "--locked", "-q", "--no-fail-fast"])
        .args(&tier.selection);
    command.args(filter).args(["--", "--show-output"]);
    command.env("COREFERRY_CACHE", workspace::cache_dir());
    if all {
        command.arg("--include-ignored").env("COREFERRY_ALL", "1");
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", process::shown(&command)))?;
    let text = Mutex::new(String::new());
    thread::scope(|scope| {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        scope.spawn(|| stdout.map(|pipe| gather(pipe, &text)));
        scope.spawn(|| stderr.map(|pipe| gather(pipe, &text)));
    });
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {}", process::shown(&command)))?;
    let text = text.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut tally = output::read(&text);
    if !status.success() {
        // A test binary that could not be built, or died, has no result line of its own.
        tally.failed = tally.failed.max(1);
        println!("{}", output::without_successes(&text));
    }
    println!(
        "{} {}: {} passed, {} failed",
        if status.success() { "ok  " } else { "FAIL" },
        tier.name,
        tally.passed,
        tally.failed
    );
    Ok(tally)
}

/// Collects a pipe line by line, so that the lines of both outputs stay whole.
fn gather(pipe: impl Read, text: &Mutex<String>) {
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&line);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(name: &str) -> Tier {
        Tier {
            name: name.into(),
            selection: Vec::new(),
            needs_testbed: false,
        }
    }

    #[test]
    fn a_part_of_a_name_selects_and_an_unknown_one_is_an_error() {
        let tiers = vec![tier("unit"), tier("stock"), tier("receiver")];
        let chosen = select(tiers.clone(), &["sto".into(), "rec".into()]).unwrap();
        assert_eq!(
            chosen.iter().map(|tier| tier.name.as_str()).collect::<Vec<_>>(),
            ["stock", "receiver"]
        );
        assert_eq!(select(tiers.clone(), &[]).unwrap().len(), 3);
        assert!(
            select(tiers, &["attic".into()])
                .unwrap_err()
                .to_string()
                .contains("stock")
        );
    }
}
