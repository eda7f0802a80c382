//! A kernel that came with its core is all that a debugger needs: a stock guest is booted from the uncompressed kernel that its
//! distribution has for debuggers, and `cores debug` opens the core with no other symbols in reach.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::case::Case;
use crate::common;
use crate::debuggers;
use crate::kernels::Kernel;
use crate::ours::OurCore;
use crate::readers::LIMIT;
use crate::run;
use crate::seen::Seen;
use crate::testbed::Testbed;

/// Packing, unpacking, reading, hashing, sending and bringing back 600 MB there takes minutes.
const CASE_LIMIT_S: u32 = 1800;

/// The file with everything, and the release that it is of.
pub(crate) fn with_symbols(kernel: Kernel, testbed: &Testbed) -> Result<Option<PathBuf>> {
    Ok(testbed.symbols(kernel.release(testbed)?.trim()))
}

/// A guest that keeps such a kernel and panics.
pub(crate) fn cases(kernel: Kernel, vmlinux: &Path) -> Result<Vec<Case>> {
    let vmlinux = fs::read(vmlinux).with_context(|| format!("cannot read {}", vmlinux.display()))?;
    let case = Case::new("kept", kernel)
        .image(vmlinux)
        .options("--keep-kernel")
        .payload(&format!("{}{}", debuggers::TOLD, debuggers::CRASH))
        .brings_core()
        .limit_s(CASE_LIMIT_S)
        .expect(debuggers::panicked);
    Ok(vec![case])
}

/// Debuggers open its core; an old crash says of a newer kernel that it does not.
pub(crate) fn check(testbed: &Testbed, dir: &Path, all: &[Seen], vmlinux: &Path) -> Result<()> {
    for seen in all {
        let core = OurCore::open(&seen.file("core/vmcore"))?;
        let kept = core.note.kept_kernel.as_ref().context("the core has no kernel in it")?;
        let len = fs::metadata(vmlinux)?.len();
        ensure!(kept.len_bytes == len, "{kept:?}, and the file has {len} bytes");
        let desk = Desk::new(testbed, dir, seen)?;
        let release = core.vmcoreinfo("OSRELEASE")?;
        let crash = match desk.debug("crash", "sys\nbt\nquit\n") {
            Ok(said) => by_crash(&said, release)?,
            Err(error) if release.starts_with("6.12.") => known_fault(&error.to_string())?,
            Err(error) => return Err(error),
        };
        eprintln!("{}: {crash}", seen.name);
        eprintln!("{}: {}", seen.name, by_drgn(&desk.debug("drgn", DRGN)?, release)?);
        desk.symbols_are(vmlinux)?;
    }
    Ok(())
}

/// Somebody who has a core, the programs and nothing else: no symbols, no server of them, and an empty cache.
#[derive(Debug)]
pub(crate) struct Desk {
    dir: PathBuf,
    path: String,
}

impl Desk {
    /// The core that a guest left becomes the only one of a receiver's folder.
    pub(crate) fn new(testbed: &Testbed, dir: &Path, seen: &Seen) -> Result<Self> {
        let dir = dir.join(format!("desk-{}", seen.name));
        let from = seen.file("core");
        let manifest: Value = serde_json::from_slice(&fs::read(from.join("manifest.json"))?)?;
        let id = manifest["id"].as_str().context("a manifest has an id")?;
        let month = dir.join("cores/2026/01");
        fs::create_dir_all(&month)?;
        // What is checked beside it opens the same files.
        std::os::unix::fs::symlink(&from, month.join(id))?;
        let path = format!("{}:/usr/bin:/bin", testbed.path("bin").display());
        Ok(Self { dir, path })
    }

    /// `cores` with these arguments on that core.
    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = common::coreferry();
        command.arg("cores").args(arguments).arg("--dir").arg(&self.dir);
        command.env("PATH", &self.path).env("DEBUGINFOD_URLS", "");
        command.env("XDG_CACHE_HOME", self.dir.join("cache"));
        command
    }

    /// What a debugger says to this input.
    pub(crate) fn debug(&self, with: &str, input: &str) -> Result<String> {
        let mut command = self.command(&["debug", "latest", "--with", with]);
        run::output(&mut command, &self.dir, input, LIMIT)
    }

    /// What `cores debug` says where it has no symbols, with more arguments.
    pub(crate) fn refused(&self, more: &[&str]) -> Result<String> {
        let output = self.command(&["debug", "latest", "--print"]).args(more).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let cache = self.dir.join("cache");
        ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
        ensure!(!cache.exists(), "something was written out that is of no use");
        Ok(said)
    }

    /// What `cores ARGUMENTS` prints.
    pub(crate) fn say(&self, arguments: &[&str]) -> Result<String> {
        run::output(&mut self.command(arguments), &self.dir, "", LIMIT)
    }

    /// The symbols that a debugger gets are the kernel out of the core, and the same bytes as `vmlinux`.
    fn symbols_are(&self, vmlinux: &Path) -> Result<()> {
        let command: Value =
            serde_json::from_str(&self.say(&["debug", "latest", "--with", "drgn", "--print", "--json"])?)?;
        let symbols = Path::new(command["command"][4].as_str().context("no symbols")?);
        ensure!(symbols.starts_with(self.dir.join("cache")), "{command}");
        ensure!(fs::read(symbols)? == fs::read(vmlinux)?, "{command}: another file");
        Ok(())
    }
}

fn by_crash(said: &str, release: &str) -> Result<String> {
    let has = |parts: &[&str]| -> Result<&str> {
        let line = said.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        line.with_context(|| format!("crash says no {parts:?}:\n{said}"))
    };
    has(&["RELEASE: ", release])?;
    let panic = has(&["PANIC: ", "\"Kernel panic - not syncing: sysrq triggered crash\""])?;
    has(&["PID: 1 ", "COMMAND: \"init\""])?;
    for function in ["panic", "sysrq_handle_crash", "write_sysrq_trigger"] {
        has(&[" #", &format!("] {function} at ")])?;
    }
    Ok(format!("crash: {}", panic.trim()))
}

/// crash 8.0.2 does not know kernels from 6.10 on; `cores debug` says so before.
fn known_fault(said: &str) -> Result<String> {
    ensure!(said.contains("kernels from 6.10 on need a newer one"), "{said}");
    Ok("crash: too old, and told so".to_owned())
}

/// As somebody would type it.
const DRGN: &str = r#"print("RELEASE", prog["UTS_RELEASE"].string_().decode())
print("TASKS", *[task.comm.string_().decode() for task in for_each_task(prog)])
print("CRASHED", *[frame.name for frame in prog.crashed_thread().stack_trace()])
"#;

fn by_drgn(said: &str, release: &str) -> Result<String> {
    let words = |start: &str| -> Result<Vec<&str>> {
        // A prompt may stand before it.
        let line = said.lines().find_map(|line| line.split_once(start));
        let (_, words) = line.with_context(|| format!("drgn says no {start}:\n{said}"))?;
        Ok(words.split_whitespace().collect())
    };
    ensure!(words("RELEASE ")? == [release], "{said}");
    let (tasks, crashed) = (words("TASKS ")?, words("CRASHED ")?);
    for task in ["init", "kthreadd", "sleep"] {
        ensure!(tasks.contains(&task), "no task {task}:\n{said}");
    }
    for function in ["panic", "sysrq_handle_crash", "write_sysrq_trigger", "vfs_write"] {
        ensure!(
            crashed.contains(&function),
            "no {function} in the crashed stack:\n{said}"
        );
    }
    Ok(format!("drgn: {} tasks; {}", tasks.len(), crashed.join(" ")))
}
