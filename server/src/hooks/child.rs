//! One command from its start to its end, or to its deadline.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::HookUser;
use crate::limits::HOOK_LOOK;

/// What is run.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// What it may read; less than a pipe holds (pipe(7): 64 KiB), so that writing it never waits.
    pub(super) input: Vec<u8>,
    /// Whether it gets a PATH; else its environment is empty, as netdumpd's scripts find it.
    pub(super) path: bool,
    /// Where it runs. The user of the command has to be able to enter it.
    pub(super) dir: PathBuf,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// By itself.
    Ended(ExitStatus),
    /// At its deadline.
    Killed,
}

/// Where programs are found by the hooks' own scripts.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command until it ends or `until`, which may come closer meanwhile.
pub(super) fn run(call: &Call, user: Option<HookUser>, until: &dyn Fn() -> Instant) -> io::Result<Outcome> {
    let mut command = Command::new(&call.program);
    command
        .args(&call.arguments)
        .env_clear()
        .current_dir(&call.dir)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if call.path {
        command.env("PATH", PATH);
    }
    if let Some(user) = user {
        // Without groups of its own, the standard library drops the supplementary ones.
        command.gid(user.gid).uid(user.uid);
    }
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read is no error.
        let _ = stdin.write_all(&call.input);
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Outcome::Ended(status));
        }
        if Instant::now() >= until() {
            end_group(&mut child);
            child.wait()?;
            return Ok(Outcome::Killed);
        }
        std::thread::sleep(HOOK_LOOK);
    }
}

/// Ends a child that was not waited for yet, and whatever it started in its process group.
fn end_group(child: &mut Child) {
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    if group.is_ok_and(|group| killpg(group, Signal::SIGKILL).is_ok()) {
        return;
    }
    let _ = child.kill();
}
