//! A network namespace of this process's own: loopback, a TAP with an address, and passt on a host with one cable.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use vmm_agent::dump::{ClientAddress, ClientNetwork};
use vmm_agent::net::{TapWire, Wire, WireError, WireSpec};

/// The dump port on the TAP, and the host behind it.
const TAP_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const TAP_HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The host that passt runs on, and its gateway: what goes there, passt takes to its own loopback (passt(1), `--map-gw`).
const PASST_HOST: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 2);
const PASST_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);

/// What there is.
pub(crate) struct Place {
    /// A TAP could be made.
    tap: bool,
    passt: Option<Passt>,
    missing: Vec<String>,
}

/// A running passt.
struct Passt {
    child: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

/// A way from the dump port to the sink.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    User,
    /// With the kernel's UDP segmentation if it has it, or never.
    Tap {
        segments_udp: bool,
    },
    Passt(PathBuf),
}

impl Place {
    /// Puts this process into a namespace, before it has any other thread, and makes there what can be made.
    pub(crate) fn enter() -> Self {
        let mut place = Self {
            tap: false,
            passt: None,
            missing: Vec::new(),
        };
        if let Err(why) = unshare(CloneFlags::CLONE_NEWNET) {
            place.missing.push(format!(
                "rows of tap and stream: no network namespace ({why}), are you root?"
            ));
            return place;
        }
        match make_networks() {
            Ok(()) => place.tap = true,
            Err(why) => place.missing.push(format!("rows of tap and stream: {why:#}")),
        }
        if place.tap {
            match Passt::start() {
                Ok(passt) => place.passt = Some(passt),
                Err(why) => place.missing.push(format!("rows of stream: {why:#}")),
            }
        }
        place
    }

    /// What could not be made, and why.
    pub(crate) fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Every way that there is.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let mut ways = vec![Way::User];
        if self.tap {
            ways.extend([true, false].map(|segments_udp| Way::Tap { segments_udp }));
        }
        ways.extend(self.passt.iter().map(|passt| Way::Passt(passt.socket.clone())));
        ways
    }

    /// The process of passt.
    pub(crate) fn relay_pid(&self) -> Option<u32> {
        self.passt.as_ref().map(|passt| passt.child.id())
    }
}

impl Way {
    pub(crate) fn open(&self) -> Result<Box<dyn Wire>, WireError> {
        match self {
            Self::User => WireSpec::User.open(),
            Self::Tap { segments_udp: true } => WireSpec::Tap("tap0".to_owned()).open(),
            Self::Tap { segments_udp: false } => Ok(Box::new(TapWire::open("tap0")?.without_udp_segmentation())),
            Self::Passt(socket) => WireSpec::Stream(socket.clone()).open(),
        }
    }

    /// Waits until the wire carries frames: the kernel takes up to a second to notice that somebody is at a TAP again
    /// (net/core/link_watch.c), and that is no speed of ours.
    pub(crate) fn settle(&self) -> Result<()> {
        if !matches!(self, Self::Tap { .. }) {
            return Ok(());
        }
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let shown = Command::new("ip").args(["-o", "link", "show", "tap0"]).output()?;
            if String::from_utf8_lossy(&shown.stdout).contains("state UP") {
                return Ok(());
            }
            ensure!(Instant::now() < until, "tap0 does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether another process stands between.
    pub(crate) fn is_relayed(&self) -> bool {
        matches!(self, Self::Passt(_))
    }

    /// The address of the sink, as the dump port sees it.
    pub(crate) fn sink(&self) -> Ipv4Addr {
        match self {
            Self::User => Ipv4Addr::LOCALHOST,
            Self::Tap { .. } => TAP_HOST,
            Self::Passt(_) => PASST_GATEWAY,
        }
    }

    /// Who the dump port is.
    pub(crate) fn network(&self) -> ClientNetwork {
        let user = ClientNetwork::for_user_wire("bench");
        let ip = match self {
            Self::User => return user,
            Self::Tap { .. } => TAP_CLIENT,
            Self::Passt(_) => PASST_HOST,
        };
        ClientNetwork {
            address: ClientAddress { ip, prefix_len: 24 },
            gateway: None,
            ..user
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Tap { segments_udp: true } => "tap",
            Self::Tap { segments_udp: false } => "tap, cut by the em",
            Self::Passt(_) => "stream to passt",
        })
    }
}

impl Passt {
    fn start() -> Result<Self> {
        let cache = std::env::var_os("COREFERRY_CACHE").map_or_else(|| PathBuf::from("target/cache"), PathBuf::from);
        let testbed = std::env::var_os("COREFERRY_TESTBED").map_or_else(|| cache.join("testbed"), PathBuf::from);
        let program = testbed.join("bin/passt");
        ensure!(program.is_file(), "no passt in the testbed (cargo xtask testbed)");
        let dir = tempfile::tempdir()?;
        // Started as root, passt becomes nobody, and must still be able to make its socket.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
        let socket = dir.path().join("passt.sock");
        let mut command = Command::new(program);
        command.args(["--foreground", "--quiet", "--socket"]).arg(&socket);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let until = Instant::now() + Duration::from_secs(20);
        while !socket.exists() {
            if let Some(status) = child.try_wait()? {
                bail!("passt ended: {status}");
            }
            ensure!(Instant::now() < until, "passt makes no socket");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self {
            child,
            socket,
            _dir: dir,
        })
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_networks() -> Result<()> {
    for line in [
        "link set lo up",
        "tuntap add tap0 mode tap",
        "link set tap0 mtu 9000 up",
        "addr add 10.9.0.1/24 dev tap0",
        "link add up0 mtu 9000 type veth peer name far0 mtu 9000",
        "link set far0 up",
        "link set up0 up",
        "addr add 10.10.0.2/24 dev up0",
        "route add default via 10.10.0.1",
    ] {
        let mut ip = Command::new("ip");
        let output = ip.args(line.split(' ')).output().context("ip(8) does not run")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {line}: {}", said.trim());
    }
    Ok(())
}
