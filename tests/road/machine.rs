//! A folder that stands for a host, and machines that run in it under `coreferry run`.
#![allow(dead_code, reason = "each test file uses its own part of this module")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{self, Daemon, PATIENCE, Serve, coreferry, path_text};

/// Nobody listens there: an address of this host that no test uses.
pub(crate) const NOBODY: &str = "127.0.0.77:9";

/// A reading of the console that took longer than this had to wait for the guest.
const WAITED: Duration = Duration::from_millis(20);

/// A host of a test's own: one temporary folder with the kernel, the sockets, the spool and the receiver's directory.
#[derive(Debug)]
pub(crate) struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// A fresh host, unless guests cannot run here; then says so.
    pub(crate) fn new() -> Option<Self> {
        let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
        if let Err(why) = kvm {
            common::skip(&format!("guests need /dev/kvm: {why}"));
            return None;
        }
        let host = Self {
            dir: common::temp_dir(),
        };
        std::fs::create_dir(host.path("runtime")).expect("a folder for sockets");
        std::fs::write(host.kernel(), guest_shim::DEMO_GUEST_ELF).expect("a kernel file");
        Some(host)
    }

    /// A path in the host's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The demo guest's kernel.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.path("kernel.elf")
    }

    /// The API socket of the machine `name`.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.path("runtime/coreferry/vms").join(format!("{name}.sock"))
    }

    /// The binary on this host.
    pub(crate) fn command(&self) -> Command {
        let mut command = coreferry();
        command.env("XDG_RUNTIME_DIR", self.path("runtime"));
        command
    }

    /// A small machine that will run the demo guest with the command line `append`.
    pub(crate) fn run_command(&self, name: &str, append: &str, more: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.command();
        command
            .args(["run", "--name", name, "--mem-mib", "64", "--append"])
            .arg(format!("touch_mib=2 delay_ticks=1 {append}"))
            .arg("--kernel")
            .arg(self.kernel())
            .args(more);
        command
    }

    /// Starts such a machine.
    pub(crate) fn run(&self, name: &str, append: &str, more: &[impl AsRef<OsStr>]) -> Machine<'_> {
        Machine {
            daemon: Daemon::start(self.run_command(name, append, more)),
            name: name.to_owned(),
            host: self,
        }
    }

    /// A receiver on this host.
    pub(crate) fn serve(&self) -> Serve {
        Serve::start(&self.path("cores"))
    }

    /// Runs `coreferry vms` with `arguments` to its end.
    pub(crate) fn vms(&self, arguments: &[&str]) -> Output {
        let output = self.command().arg("vms").args(arguments).output();
        output.expect("coreferry vms can be run")
    }

    /// The machines that `vms list` shows, by name; those of other people on this host are left out.
    pub(crate) fn listed(&self, names: &[&str]) -> Vec<Value> {
        let output = self.vms(&["list", "--json"]);
        let all: Vec<Value> = serde_json::from_slice(&output.stdout).expect("`vms list --json` is an array");
        let ours = |vm: &Value| names.iter().any(|name| vm["name"] == *name);
        all.into_iter().filter(ours).collect()
    }
}

/// A running machine; it ends with its value.
#[derive(Debug)]
pub(crate) struct Machine<'h> {
    pub(crate) daemon: Daemon,
    name: String,
    host: &'h Host,
}

impl Machine<'_> {
    /// Its API socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.host.socket(&self.name)
    }

    /// What `vms info` says, once its socket is there.
    pub(crate) fn info(&self) -> Value {
        common::wait_for("the machine's API", || {
            let output = self.host.vms(&["info", &self.name, "--json"]);
            output
                .status
                .success()
                .then(|| serde_json::from_slice(&output.stdout).expect("`vms info --json` is JSON"))
        })
    }

    /// Waits until `vms info` says this state, and returns what it said.
    pub(crate) fn info_when(&self, state: &str) -> Value {
        common::wait_for(&format!("{} in state {state}", self.name), || {
            let info = self.info();
            (info["state"] == state).then_some(info)
        })
    }

    /// Runs `vms VERB NAME`, which must work.
    pub(crate) fn act(&self, verb: &str) {
        let output = self.host.vms(&[verb, &self.name]);
        assert!(output.status.success(), "vms {verb}: {}", stderr(&output));
    }

    /// Waits until it has said `part` on standard error.
    pub(crate) fn says(&self, part: &str) {
        common::wait_for(&format!("{} saying `{part}`", self.name), || {
            self.said().contains(part).then_some(())
        });
    }

    /// Everything it has said on standard error.
    pub(crate) fn said(&self) -> String {
        self.daemon.stderr_text()
    }

    /// Waits for its end and returns its exit code.
    pub(crate) fn ends(&mut self) -> i32 {
        self.ends_within(PATIENCE)
    }

    /// As [`Machine::ends`], with a limit.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> i32 {
        let status = self.daemon.exit_within(limit);
        status.code().unwrap_or_else(|| panic!("{}: {status}", self.name))
    }

    /// Asks it to end as a service manager does, and returns its exit code.
    pub(crate) fn terminate(mut self) -> i32 {
        self.daemon.signal(Signal::SIGTERM);
        self.ends()
    }

    /// The next heartbeat that the guest gives from now on; older ones that nobody has read are passed over.
    pub(crate) fn fresh_heartbeat(&self) -> u64 {
        loop {
            let asked = Instant::now();
            let line = self.daemon.line_starting("heartbeat ");
            if asked.elapsed() > WAITED {
                return line["heartbeat ".len()..]
                    .trim()
                    .parse()
                    .expect("a heartbeat has a number");
            }
        }
    }

    /// Demands that the guest goes on: two more heartbeats, in their order.
    pub(crate) fn goes_on_after(&self, before: u64) {
        let first = self.fresh_heartbeat();
        let second = self.fresh_heartbeat();
        assert!(
            before < first && first < second,
            "heartbeats {before}, {first}, {second}"
        );
    }
}

/// The `--netdump` arguments for a receiver.
pub(crate) fn to(receiver: impl std::fmt::Display) -> [String; 2] {
    ["--netdump".to_owned(), receiver.to_string()]
}

/// The only file in a folder.
pub(crate) fn only_file_in(dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|why| panic!("cannot list {}: {why}", path_text(dir)));
    let files: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder entry").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// What a program said on standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
