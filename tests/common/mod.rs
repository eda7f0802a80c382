//! Helpers for the tests that run the binary as a user runs it.
//!
//! A test file says `mod common;` and uses what it needs. Everything started here ends with the test: a [`Daemon`] ends
//! its own process, by its own process id, when it goes out of scope.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses its own part of this module"
)]

mod daemon;
mod serve;

pub(crate) use daemon::Daemon;
pub(crate) use serve::Serve;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long a test waits for something that normally takes milliseconds. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test, with an environment that does not depend on who runs the test.
pub(crate) fn coreferry() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coreferry"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COREFERRY_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs the binary to its end and returns what it printed. Says on failure which command it was.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let output = coreferry().args(arguments).output();
    output.unwrap_or_else(|error| panic!("cannot run coreferry {arguments:?}: {error}"))
}

/// The text that a failed command wrote to standard error.
pub(crate) fn complaint(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "coreferry {arguments:?}:\n{text}");
    text
}

/// Runs the binary, demands exit code 0 and returns its standard output as text.
pub(crate) fn run_ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "coreferry {arguments:?} ended with {}\nstandard output:\n{}\nstandard error:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("standard output is text")
}

/// What `coreferry cores list --json --dir DIR` says: one array of objects.
pub(crate) fn cores_list(dir: &Path) -> Vec<serde_json::Value> {
    let text = run_ok(&["cores", "list", "--json", "--dir", path_text(dir)]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("`cores list --json` is no array ({error}):\n{text}"))
}

/// A path as text; the temporary folders of the tests have plain names.
pub(crate) fn path_text(path: &Path) -> &str {
    path.to_str().expect("the paths of the tests are text")
}

/// Polls `ready` every 10 ms until it gives a value; panics with `what` after [`PATIENCE`].
pub(crate) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A temporary folder that goes away with the test.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("coreferry-test-")
        .tempdir()
        .expect("a temporary folder can be made")
}

/// Says that a test cannot run here and why; the test returns after it. In CI, where everything must run, it fails.
///
/// The line goes past the capture of the test harness, so that `cargo xtask test` and a person both see it.
pub(crate) fn skip(reason: &str) {
    assert!(!in_ci(), "CI runs every test, but this one cannot run: {reason}");
    let _ = writeln!(std::io::stderr(), "SKIP: {reason}");
}

/// Whether this is a CI run, where a skipped test is a failed one.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
