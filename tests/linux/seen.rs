//! What a guest left behind.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What was seen of one guest.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    dir: PathBuf,
    /// What the guest said on its console and `coreferry run` on its outputs, without carriage returns.
    pub(crate) output: String,
    /// What the steps printed.
    pub(crate) steps: String,
    exit: Option<i32>,
    cores: Vec<Value>,
    /// From the start of `coreferry run` to its end.
    pub(crate) took_s: f64,
}

impl Seen {
    /// Reads what is in the guest's folder.
    pub(crate) fn read(name: &str, dir: PathBuf) -> Result<Self> {
        let text = |file: &str| {
            let bytes = fs::read(dir.join(file)).with_context(|| format!("guest {name} left no {file}"))?;
            anyhow::Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
        };
        let times: Vec<f64> = text("times")?
            .split_whitespace()
            .filter_map(|time| time.parse().ok())
            .collect();
        let cores = text("cores.json")?;
        let mut cores: Vec<Value> =
            serde_json::from_str(&cores).with_context(|| format!("`cores list --json` is no array: {cores}"))?;
        // The list is the receiver's whole one.
        cores.retain(|core| core["guest"] == name);
        Ok(Self {
            name: name.to_owned(),
            output: text("out")?,
            steps: text("steps")?,
            exit: text("exit")?.trim().parse().ok(),
            cores,
            took_s: times.last().unwrap_or(&0.0) - times.first().unwrap_or(&0.0),
            dir,
        })
    }

    /// The exit code of `coreferry run` must be this; 137 is that of a guest that took too long.
    pub(crate) fn exited(&self, code: i32) -> Result<()> {
        ensure!(self.exit == Some(code), "exit code {:?}, not {code}", self.exit);
        Ok(())
    }

    /// The first line with `text` in it, of the guest or of `coreferry run`.
    pub(crate) fn line(&self, text: &str) -> Result<&str> {
        line_with(&self.output, text)
    }

    /// The first line with `text` in it that the steps printed.
    pub(crate) fn step(&self, text: &str) -> Result<&str> {
        line_with(&self.steps, text)
    }

    /// Nothing said `text`.
    pub(crate) fn never(&self, text: &str) -> Result<()> {
        match self.line(text) {
            Ok(line) => anyhow::bail!("it said {line:?}"),
            Err(_) => Ok(()),
        }
    }

    /// How often `text` was said.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.output.matches(text).count()
    }

    /// The guest's cores, as `cores list --json` shows them, newest first.
    pub(crate) fn cores(&self) -> &[Value] {
        &self.cores
    }

    /// Its only core, which must be complete.
    pub(crate) fn core(&self) -> Result<&Value> {
        let [core] = self.cores.as_slice() else {
            anyhow::bail!("{} cores, not one: {:?}", self.cores.len(), self.cores)
        };
        ensure!(core["state"] == "complete", "{core}");
        Ok(core)
    }

    /// A file that the guest left: `disk.img`, `core/vmcore`, or what its steps put into `$R`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Everything, for the report of a failure.
    pub(crate) fn everything(&self) -> String {
        let Self {
            name,
            output,
            steps,
            exit,
            cores,
            ..
        } = self;
        format!(
            "--- {name}: exit code {exit:?}\n{output}\n--- steps of {name}\n{steps}\n--- cores of {name}\n{cores:#?}\n"
        )
    }
}

fn line_with<'t>(said: &'t str, text: &str) -> Result<&'t str> {
    let line = said.lines().find(|line| line.contains(text));
    line.with_context(|| format!("nothing says {text:?}"))
}
