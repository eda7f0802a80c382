//! Runs a program to its end or its deadline.

use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

/// Where a program's output goes.
const OUTPUT: &str = "output.txt";

/// Standard output and error of a program that ended with status 0. `input` is its standard input.
///
/// Both streams go to files in `dir`: a reader that floods one must not block on a pipe.
pub(crate) fn output(command: &mut Command, dir: &Path, input: &str, limit: Duration) -> Result<String> {
    // A program that ends without reading everything is judged by its status.
    let feed = |mut stdin: ChildStdin| drop(stdin.write_all(input.as_bytes()));
    output_fed(command, dir, feed, limit)
}

/// As [`output`]; `feed` has a thread for writing what the program reads, and ends when that fails at the latest.
pub(crate) fn output_fed(
    command: &mut Command,
    dir: &Path,
    feed: impl FnOnce(ChildStdin) + Send,
    limit: Duration,
) -> Result<String> {
    let path = dir.join(OUTPUT);
    let file = File::create(&path)?;
    let mut child = command
        .current_dir(dir)
        .env("HOME", dir)
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let stdin = child.stdin.take().context("a pipe was asked for")?;
    let status = scope(|scope| {
        scope.spawn(|| feed(stdin));
        wait(&mut child, limit)
    });
    let said = said(dir);
    let status = status
        .with_context(|| format!("{command:?}"))
        .with_context(|| format!("it said:\n{said}"))?;
    ensure!(status.success(), "{command:?} ended with {status}:\n{said}");
    Ok(said)
}

/// What the program said that [`output`] ran last in `dir`, however it ended.
pub(crate) fn said(dir: &Path) -> String {
    String::from_utf8_lossy(&fs::read(dir.join(OUTPUT)).unwrap_or_default()).into_owned()
}

/// Waits for a child; ends it when the time is up.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    bail!("still running after {} s", limit.as_secs())
}
