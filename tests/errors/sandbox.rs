//! A command in namespaces of its own, made by unshare(1): what is mounted there is seen by that command alone.

use std::process::Command;

use crate::common::skip;

/// `command` after the shell commands of `setup`, in new namespaces of these kinds (`--mount`, `--net`); `after` runs
/// when it has ended and does not change its exit code. None where this machine does not allow that; it is said then.
pub(crate) fn unshared(namespace: &str, setup: &str, command: &Command, after: &str) -> Option<Command> {
    let mut unshare = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.arg(namespace);
    let mut probe = Command::new("unshare");
    probe.args(unshare.get_args()).arg("true");
    if !probe.status().is_ok_and(|status| status.success()) {
        skip(&format!("`unshare {namespace}` is not allowed here"));
        return None;
    }
    let script = match after {
        "" => format!("{setup}\nexec \"$@\""),
        after => format!("{setup}\nset +e\n\"$@\"\ncode=$?\n{after}\nexit $code"),
    };
    unshare.args(["sh", "-ec", &script, "sh"]);
    unshare.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    Some(unshare)
}
