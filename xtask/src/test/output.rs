//! What the output of `cargo test` says.

use std::ops::AddAssign;

/// Numbers of tests, and why some could not run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skips: Vec<String>,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skips.extend(other.skips);
    }
}

/// Sums up the result lines and collects the skips. A test that says `SKIP: reason` passes in the eyes of the harness; it
/// is counted as skipped instead.
pub(crate) fn read(text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines() {
        if let Some((_, counts)) = line.split_once("test result: ") {
            tally.passed += count(counts, "passed");
            tally.failed += count(counts, "failed");
        } else if let Some((_, reason)) = line.split_once("SKIP: ") {
            tally.skips.push(reason.trim().to_owned());
        }
    }
    tally.passed = tally.passed.saturating_sub(tally.skips.len() as u64);
    tally
}

/// The output without what passing tests printed; only the skips among it matter, and they are told on their own.
pub(crate) fn without_successes(text: &str) -> String {
    let mut kept = String::new();
    let mut in_successes = false;
    for line in text.lines() {
        in_successes =
            line == "successes:" || in_successes && line != "failures:" && !line.starts_with("test result: ");
        if !in_successes {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The number before a word in `ok. 12 passed; 0 failed; 3 ignored; …`.
fn count(counts: &str, word: &str) -> u64 {
    let mut parts = counts.split([';', '.']).map(str::trim);
    parts
        .find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
running 3 tests
...
successes:

---- a_thing_works stdout ----
SKIP: no /dev/kvm here

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 2.01s
";

    #[test]
    fn counts_add_up_and_a_skip_is_not_a_pass() {
        let tally = read(TEXT);
        assert_eq!(
            tally,
            Tally {
                passed: 6,
                failed: 2,
                skips: vec!["no /dev/kvm here".into()]
            }
        );
    }

    #[test]
    fn what_passing_tests_printed_is_left_out() {
        let text =
            "running 2 tests\nsuccesses:\n---- a ----\nchatter\nfailures:\n---- b ----\nwhy\ntest result: FAILED.\n";
        assert_eq!(
            without_successes(text),
            "running 2 tests\nfailures:\n---- b ----\nwhy\ntest result: FAILED.\n"
        );
    }

    #[test]
    fn no_result_line_counts_nothing() {
        assert_eq!(read("error: could not compile"), Tally::default());
    }
}
