//! What came of the cores, and the most that one of them took.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::measured::{self, Taken};
use crate::{freebsd, kernel};

/// What an explanation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// That the core cannot be read.
    Error,
    /// Something of what there was.
    Partial,
    /// Everything.
    Whole,
}

impl Outcome {
    pub(crate) fn of(explanation: &Value) -> Self {
        let signature = explanation["crash"]["signature"].as_str().unwrap_or_default();
        let problems = explanation["problems"].as_array().map_or(0, Vec::len);
        let is_whole = [kernel::SIGNATURE, freebsd::SIGNATURE].contains(&signature);
        let is_something = |key: &str| match &explanation[key] {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        if is_whole && problems == 0 {
            return Self::Whole;
        }
        let told = ["log", "crash", "cpus", "release", "banner", "kernel_offset"];
        if told.into_iter().any(is_something) {
            Self::Partial
        } else {
            Self::Error
        }
    }
}

/// The most of something, and which run it was.
#[derive(Debug, Default)]
struct Most<T>(T, String);

impl<T: PartialOrd> Most<T> {
    fn see(&mut self, value: T, what: &str) {
        if value > self.0 {
            *self = Self(value, what.to_owned());
        }
    }
}

/// All runs so far.
pub(crate) struct Tally {
    peak_kib_max: u64,
    cpu_max: Duration,
    runs: u64,
    cpu: Most<Duration>,
    peak_kib: Most<u64>,
    cpu_sum: Duration,
    outcomes: BTreeMap<(&'static str, Outcome), u64>,
    codes: BTreeMap<(String, i32), u64>,
}

impl Tally {
    /// Of programs that may each have so much memory at any time, and so much processor time.
    pub(crate) fn new(peak_kib_max: u64, cpu_max: Duration) -> Self {
        Self {
            peak_kib_max,
            cpu_max,
            runs: 0,
            cpu: Most::default(),
            peak_kib: Most::default(),
            cpu_sum: Duration::ZERO,
            outcomes: BTreeMap::new(),
            codes: BTreeMap::new(),
        }
    }

    /// Runs a program on a core, and demands that it ends well and within the bounds.
    pub(crate) fn run(&mut self, command: &mut Command, printed: &File, who: &str) -> Result<ExitStatus> {
        let (output, taken) = measured::run(command, printed)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let what = || {
            format!(
                "{who}: {command:?} ended with {} after {taken:?}: {said}",
                output.status
            )
        };
        ensure!(measured::has_survived(output.status, &said), "{}", what());
        ensure!(
            taken.cpu <= self.cpu_max && taken.peak_kib_so_far <= self.peak_kib_max,
            "{}",
            what()
        );
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let verb = ["explain-core", "log", "info", "export"]
            .into_iter()
            .find(|verb| words.iter().any(|word| word == verb));
        let verb = verb.context("a command of ours")?;
        *self
            .codes
            .entry((verb.to_owned(), output.status.code().unwrap_or(-1)))
            .or_default() += 1;
        self.add(taken, &format!("{verb} of {who}"));
        Ok(output.status)
    }

    fn add(&mut self, taken: Taken, what: &str) {
        self.runs += 1;
        self.cpu_sum += taken.cpu;
        self.cpu.see(taken.cpu, what);
        self.peak_kib.see(taken.peak_kib_so_far, what);
    }

    pub(crate) fn explained(&mut self, form: &'static str, outcome: Outcome) {
        *self.outcomes.entry((form, outcome)).or_default() += 1;
    }

    /// Whether damage was neither always nor never too much.
    pub(crate) fn has_all_outcomes(&self) -> bool {
        let seen = |wanted| self.outcomes.keys().any(|(_, outcome)| *outcome == wanted);
        [Outcome::Error, Outcome::Partial, Outcome::Whole].into_iter().all(seen)
    }

    pub(crate) fn print(&self) -> Result<()> {
        println!("{} programs run, {:.1?} of processor time", self.runs, self.cpu_sum);
        println!("longest: {:.3?}, {}", self.cpu.0, self.cpu.1);
        let own = measured::own_peak_kib()?;
        println!(
            "largest: {} KiB, {} (this test itself: {own} KiB)",
            self.peak_kib.0, self.peak_kib.1
        );
        let mut sums: BTreeMap<Outcome, u64> = BTreeMap::new();
        for ((form, outcome), count) in &self.outcomes {
            println!("{form:<24} {outcome:?}: {count}");
            *sums.entry(*outcome).or_default() += count;
        }
        println!("explanations: {sums:?}");
        println!("exit codes: {:?}", self.codes);
        Ok(())
    }
}
