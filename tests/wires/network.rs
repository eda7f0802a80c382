//! Three network namespaces in a row: the agent's, a gateway's, the receiver's.
//!
//! ```text
//!  agent                          gateway                      receiver
//!  tap0 ─ br0 ─ up0 ───────────── a0 10.9.0.1/24
//!  (or: up0 10.9.0.2/24)          b0 192.0.2.1/24 ──────────── b0 192.0.2.7/24
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

/// What stands at the agent's end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AgentSide {
    /// A TAP on a bridge with the way out; the namespace itself has no address.
    TapOnBridge,
    /// A host with this address and default route.
    Host { address: Ipv4Addr, gateway: Ipv4Addr },
}

/// The namespaces; gone when this is dropped.
pub(crate) struct Network {
    agent: String,
    gateway: String,
    receiver: String,
}

impl Network {
    /// Makes namespaces with names that no other test and no other run has.
    pub(crate) fn make(test: &str, side: AgentSide) -> Self {
        let name = |role: &str| format!("cf-{test}-{role}-{}", std::process::id());
        let network = Self {
            agent: name("agent"),
            gateway: name("gateway"),
            receiver: name("receiver"),
        };
        let Self {
            agent,
            gateway,
            receiver,
        } = &network;
        for namespace in [agent, gateway, receiver] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        connect((agent, "up0"), (gateway, "a0"));
        connect((gateway, "b0"), (receiver, "b0"));
        ip(&["-n", gateway, "addr", "add", "10.9.0.1/24", "dev", "a0"]);
        ip(&["-n", gateway, "addr", "add", "192.0.2.1/24", "dev", "b0"]);
        ip(&["-n", receiver, "addr", "add", "192.0.2.7/24", "dev", "b0"]);
        ip(&["-n", receiver, "route", "add", "default", "via", "192.0.2.1"]);
        ip(&[
            "netns",
            "exec",
            gateway,
            "sh",
            "-c",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
        ]);
        match side {
            AgentSide::TapOnBridge => {
                ip(&["-n", agent, "link", "add", "br0", "type", "bridge"]);
                ip(&["-n", agent, "tuntap", "add", "tap0", "mode", "tap"]);
                for port in ["up0", "tap0"] {
                    ip(&["-n", agent, "link", "set", port, "master", "br0"]);
                }
                for interface in ["br0", "tap0"] {
                    ip(&["-n", agent, "link", "set", interface, "up"]);
                }
            }
            AgentSide::Host { address, gateway } => {
                ip(&["-n", agent, "addr", "add", &format!("{address}/24"), "dev", "up0"]);
                ip(&["-n", agent, "route", "add", "default", "via", &gateway.to_string()]);
            }
        }
        network
    }

    /// Runs `work` on a thread that is in the agent's namespace.
    pub(crate) fn run_as_agent<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.agent)).expect("the agent's namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("entering the agent's namespace");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// `command` with its arguments and environment, in the receiver's namespace.
    pub(crate) fn in_receiver(&self, command: &Command) -> Command {
        in_namespace(&self.receiver, command)
    }

    /// `command` with its arguments and environment, in the agent's namespace.
    pub(crate) fn in_agent(&self, command: &Command) -> Command {
        in_namespace(&self.agent, command)
    }

    /// Lets the link to the receiver carry no more than `mtu` bytes.
    pub(crate) fn narrow(&self, mtu: u16) {
        for namespace in [&self.gateway, &self.receiver] {
            ip(&["-n", namespace, "link", "set", "b0", "mtu", &mtu.to_string()]);
        }
    }

    /// Deletes the TAP, as an administrator might.
    pub(crate) fn delete_tap(&self) {
        ip(&["-n", &self.agent, "link", "del", "tap0"]);
    }

    /// Switches the TAP on or off.
    pub(crate) fn set_tap_up(&self, up: bool) {
        ip(&["-n", &self.agent, "link", "set", "tap0", if up { "up" } else { "down" }]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.agent, &self.gateway, &self.receiver] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// A small file system in memory, unmounted when this is dropped.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of so many bytes.
    pub(crate) fn mount(len_bytes: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let options = format!("size={len_bytes},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "coreferry-test"])
            .arg(dir.path())
            .status()
            .expect("mount(8) runs");
        assert!(mounted.success(), "mount: {mounted}");
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Two interfaces in two namespaces with a cable between them.
fn connect(one: (&str, &str), other: (&str, &str)) {
    let (peer, end) = (
        ["peer", "name", other.1, "netns", other.0],
        ["link", "add", one.1, "netns", one.0],
    );
    let arguments: Vec<&str> = [&end[..], &["type", "veth"], &peer[..]].concat();
    ip(&arguments);
    for (namespace, interface) in [one, other] {
        ip(&["-n", namespace, "link", "set", interface, "up"]);
    }
}

fn in_namespace(namespace: &str, command: &Command) -> Command {
    let mut outer = Command::new("ip");
    outer
        .args(["netns", "exec", namespace])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

fn ip(arguments: &[impl AsRef<OsStr> + std::fmt::Debug]) {
    let output = Command::new("ip").args(arguments).output().expect("ip(8) runs");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
