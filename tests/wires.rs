//! Dumps over real wires: a TAP on a bridge, and passt(1) behind a unix socket, to `coreferry serve` on another network
//! behind a gateway. The networks are namespaces of the test's own; nothing of the host's network is touched.
//!
//! Needs root (network namespaces) and, for passt, the testbed that `cargo xtask testbed` makes (`COREFERRY_TESTBED`).
//! Without them a test says so and passes, except in CI, where it fails.

#[path = "wires/captured.rs"]
mod captured;
mod common;
#[path = "wires/network.rs"]
mod network;
#[path = "wires/passt.rs"]
mod passt;
#[path = "wires/source.rs"]
mod source;
#[path = "wires/testbed.rs"]
mod testbed;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Daemon, coreferry, cores_list, path_text, skip, wait_for};
use network::{AgentSide, Network};
use nic_emu::device::{FrameSink as _, Offload, TxFrame};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use source::FakeMachine;
use vmcore::CoreferryNote;
use vmm_agent::dump::{
    ClientAddress, ClientNetwork, CoreFile, DumpJob, DumpOutcome, Patience, Progress, Target, ferry_with,
};
use vmm_agent::net::{Capture, Instruments, TapWire, Wire, WireError, WireSpec};

/// The dump port's address; for passt also that of the host it runs on.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The gateway on that network.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The receiver, on the network behind the gateway.
const RECEIVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// Memory of the machine that is dumped, in bytes: some hundred windows.
const MEMORY_LEN: usize = 24 << 20;

/// Short, so that a test of a failure takes seconds.
const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(2),
    silence: Duration::from_secs(2),
    confirmation: Duration::from_secs(10),
};

/// Whether namespaces can be made; fails in CI if not.
fn root_or_skip() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("network namespaces need root");
    }
    root
}

fn note(vm: &str) -> CoreferryNote {
    CoreferryNote {
        dump_id: "01970000-0000-7000-8000-000000000001".to_owned(),
        vm: vm.to_owned(),
        trigger: "pvpanic".to_owned(),
        panic: Some("a test of the wires".to_owned()),
        ..CoreferryNote::default()
    }
}

fn client_network() -> ClientNetwork {
    ClientNetwork {
        address: ClientAddress {
            ip: CLIENT,
            prefix_len: 24,
        },
        gateway: Some(GATEWAY),
        ..ClientNetwork::for_user_wire("wires")
    }
}

/// Runs a dump inside the agent's namespace.
fn dump(network: &Network, machine: &FakeMachine, change: impl FnOnce(&mut DumpPlan)) -> DumpOutcome {
    let mut plan = DumpPlan {
        wire: WireSpec::Tap("tap0".to_owned()),
        client: client_network(),
        receiver: RECEIVER,
        spool: None,
        instruments: Instruments::default(),
        old_kernel: false,
    };
    change(&mut plan);
    let note = note("wires");
    let progress = Progress::new();
    let targets = [Target::from(plan.receiver)];
    let job = DumpJob {
        source: machine,
        note: &note,
        targets: &targets,
        open_wire: &|| plan.open(),
        network: plan.client,
        spool: plan.spool.clone(),
        deadline: None,
        progress: &progress,
    };
    network.run_as_agent(|| ferry_with(&job, PATIENCE))
}

/// What a test may change about a dump.
struct DumpPlan {
    wire: WireSpec,
    client: ClientNetwork,
    receiver: Ipv4Addr,
    spool: Option<std::path::PathBuf>,
    instruments: Instruments,
    /// A TAP is used as if its kernel could not cut UDP.
    old_kernel: bool,
}

impl DumpPlan {
    fn open(&self) -> Result<Box<dyn Wire>, WireError> {
        let wire: Box<dyn Wire> = match &self.wire {
            WireSpec::Tap(interface) if self.old_kernel => {
                Box::new(TapWire::open(interface)?.without_udp_segmentation())
            }
            wire => wire.open()?,
        };
        Ok(self.instruments.around(wire))
    }
}

/// `coreferry serve` in the receiver's namespace, open for the client's network.
fn start_receiver(network: &Network, dir: &Path, allow: &str) -> Daemon {
    let listen = SocketAddrV4::new(RECEIVER, 20023).to_string();
    let mut serve = coreferry();
    serve.args([
        "serve",
        "--dir",
        path_text(dir),
        "--listen",
        &listen,
        "--allow",
        allow,
        "--api",
        "127.0.0.1:0",
    ]);
    let daemon = Daemon::start(network.in_receiver(&serve));
    daemon.line_starting("ready ");
    daemon
}

/// The one core below `dir` is complete, comes from `client`, and is the machine's to the byte.
fn assert_core_is_whole(dir: &Path, machine: &FakeMachine, client: &str) {
    let cores = wait_for("a settled core", || {
        Some(cores_list(dir)).filter(|cores| cores.iter().any(|core| core["state"] != "receiving"))
    });
    assert_eq!(cores.len(), 1, "{cores:?}");
    assert_eq!(cores[0]["state"], "complete", "{cores:?}");
    assert_eq!(cores[0]["guest"], "wires");
    let from = cores[0]["client_addr"].as_str().unwrap_or_default();
    assert!(from.starts_with(client), "{from}");
    let vmcore = find_vmcore(&dir.join("cores")).expect("a vmcore file");
    let note = note("wires");
    let expected = machine.file_of(&CoreFile::plan(machine, &note).expect("a plan"));
    assert!(
        std::fs::read(vmcore).expect("readable") == expected,
        "the core differs from the machine"
    );
}

fn find_vmcore(dir: &Path) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    entries.into_iter().find_map(|path| match path.is_dir() {
        true => find_vmcore(&path),
        false => path.ends_with("vmcore").then_some(path),
    })
}

#[test]
fn a_dump_by_tap_reaches_a_receiver_behind_a_gateway() {
    if !root_or_skip() {
        return;
    }
    let network = Network::make("tap", AgentSide::TapOnBridge);
    let dir = tempfile::tempdir().expect("a directory");
    let _receiver = start_receiver(&network, dir.path(), "10.9.0.0/24");
    let machine = FakeMachine::of_len(MEMORY_LEN);
    let outcome = dump(&network, &machine, |_| ());
    assert!(
        matches!(&outcome, DumpOutcome::Received { failures, .. } if failures.is_empty()),
        "{outcome}"
    );
    assert_core_is_whole(dir.path(), &machine, "10.9.0.2:20024");
}

#[test]
fn tcpdump_reads_what_a_dump_by_tap_wrote_down() {
    if !root_or_skip() {
        return;
    }
    let Some(program) = captured::find() else {
        return skip("no tcpdump in the testbed (cargo xtask testbed)");
    };
    let network = Network::make("pcap", AgentSide::TapOnBridge);
    let dir = tempfile::tempdir().expect("a directory");
    let _receiver = start_receiver(&network, dir.path(), "10.9.0.0/24");
    let machine = FakeMachine::of_len(1 << 20);
    let file = dir.path().join("dump.pcapng");
    let outcome = dump(&network, &machine, |plan| {
        plan.instruments.capture = Some(Capture::create(&file, 128).expect("a capture"));
    });
    assert!(matches!(&outcome, DumpOutcome::Received { .. }), "{outcome}");
    captured::assert_is_a_dump(&program, &file);
}

#[test]
fn a_dump_survives_a_wire_that_loses_doubles_reorders_and_damages_frames() {
    if !root_or_skip() {
        return;
    }
    let network = Network::make("faults", AgentSide::TapOnBridge);
    let dir = tempfile::tempdir().expect("a directory");
    let _receiver = start_receiver(&network, dir.path(), "10.9.0.0/24");
    let machine = FakeMachine::of_len(MEMORY_LEN / 4);
    let plan = "seed=5,loss=0.5%,duplicate=1%,reorder=1%,corrupt=0.5%";
    let outcome = dump(&network, &machine, |dump| {
        dump.instruments.faults = Some(plan.parse().expect("a plan"));
    });
    let DumpOutcome::Received { stats, .. } = &outcome else {
        panic!("{outcome}");
    };
    assert!(stats.retransmitted_packets > 0, "{stats:?}");
    assert_core_is_whole(dir.path(), &machine, "10.9.0.2:20024");
}

#[test]
fn a_dump_through_passt_reaches_a_receiver_behind_a_gateway() {
    if !root_or_skip() {
        return;
    }
    let Some(program) = passt::find() else {
        return skip("no passt in the testbed (cargo xtask testbed)");
    };
    let network = Network::make(
        "passt",
        AgentSide::Host {
            address: CLIENT,
            gateway: GATEWAY,
        },
    );
    let dir = tempfile::tempdir().expect("a directory");
    let _receiver = start_receiver(&network, dir.path(), "10.9.0.0/24");
    let passt = passt::Passt::start(&network, &program);
    let machine = FakeMachine::of_len(MEMORY_LEN);
    let outcome = dump(&network, &machine, |plan| {
        plan.wire = WireSpec::Stream(passt.socket().to_owned());
    });
    assert!(
        matches!(&outcome, DumpOutcome::Received { failures, .. } if failures.is_empty()),
        "{outcome}"
    );
    assert_core_is_whole(dir.path(), &machine, "10.9.0.2:20024");
}

#[test]
fn a_guest_that_panics_dumps_by_tap_to_a_receiver_behind_a_gateway() {
    if !root_or_skip() {
        return;
    }
    let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if let Err(why) = kvm {
        return skip(&format!("guests need /dev/kvm: {why}"));
    }
    let network = Network::make("run", AgentSide::TapOnBridge);
    let dir = tempfile::tempdir().expect("a directory");
    let kernel = dir.path().join("kernel.elf");
    std::fs::write(&kernel, guest_shim::DEMO_GUEST_ELF).expect("a kernel file");
    let cores = dir.path().join("cores");
    let capture = dir.path().join("wired.pcapng");
    let _receiver = start_receiver(&network, &cores, "10.9.0.2/32");
    let mut run = coreferry();
    run.env("XDG_RUNTIME_DIR", dir.path())
        .args([
            "run",
            "--name",
            "wired",
            "--mem-mib",
            "64",
            "--append",
            "touch_mib=2 delay_ticks=1 mode=panic",
        ])
        .args([
            "--dump-net",
            "tap=tap0",
            "--netdump",
            "192.0.2.7",
            "--netdump-client",
            "10.9.0.2/24",
        ])
        .args([
            "--netdump-gateway",
            "10.9.0.1",
            "--dump-mac",
            "02:00:00:00:00:9d",
            "--kernel",
            path_text(&kernel),
            "--pcap",
            path_text(&capture),
        ]);
    let mut guest = Daemon::start(network.in_agent(&run));
    let status = guest.exit_within(Duration::from_secs(60));
    assert_eq!(status.code(), Some(10), "{}", guest.stderr_text());
    let cores = cores_list(&cores);
    assert_eq!(cores.len(), 1, "{cores:?}");
    assert_eq!(
        (&cores[0]["state"], &cores[0]["guest"]),
        (&"complete".into(), &"wired".into()),
        "{cores:?}"
    );
    assert_eq!(cores[0]["client_addr"], "10.9.0.2:20024");
    match captured::find() {
        Some(program) => captured::assert_is_a_dump(&program, &capture),
        None => skip("no tcpdump in the testbed (cargo xtask testbed)"),
    }
}

#[test]
fn a_tap_that_is_deleted_during_the_dump_leaves_the_core_in_the_spool() {
    if !root_or_skip() {
        return;
    }
    let network = Network::make("gone", AgentSide::TapOnBridge);
    let dir = tempfile::tempdir().expect("a directory");
    let spool = dir.path().join("spool");
    // Nobody receives, so the dump is waiting for an answer when the interface goes.
    let machine = FakeMachine::of_len(1 << 20);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(700));
            network.delete_tap();
        });
        dump(&network, &machine, |plan| plan.spool = Some(spool.clone()))
    });
    let DumpOutcome::Spooled { path, failures } = &outcome else {
        panic!("{outcome}")
    };
    assert_eq!(failures[0].error.to_string(), "tap0 is gone: the interface was deleted");
    let note = note("wires");
    let expected = machine.file_of(&CoreFile::plan(&machine, &note).expect("a plan"));
    assert!(
        std::fs::read(path).expect("readable") == expected,
        "the spooled core differs"
    );
}

#[test]
fn a_guests_wire_to_a_tap_that_is_deleted_counts_what_is_lost_and_says_so() {
    if !root_or_skip() {
        return;
    }
    let network = Network::make("vanish", AgentSide::TapOnBridge);
    let mut wire = network.run_as_agent(|| TapWire::open("tap0").expect("a TAP").without_waiting());
    let frame = [0x5a; 1514];
    let frames = [TxFrame {
        bytes: &frame,
        offload: Offload::default(),
    }; 64];
    wire.send(&frames);
    assert_eq!(wire.dropped_frames(), 0);
    network.set_tap_up(false);
    wire.send(&frames);
    assert_eq!(wire.dropped_frames(), 64);
    assert_eq!(
        wire.hint().as_deref(),
        Some("tap0 is switched off: ip link set tap0 up")
    );
    network.set_tap_up(true);
    wire.send(&frames);
    assert_eq!(wire.dropped_frames(), 64, "it goes on when the interface is up again");
    network.delete_tap();
    for batches in 2..1000 {
        wire.send(&frames);
        assert_eq!(wire.dropped_frames(), batches * 64);
    }
    for _ in 0..2 {
        let error = wire.receive(&mut |_| ()).expect_err("a wire that is gone").to_string();
        assert_eq!(error, "tap0 is gone: the interface was deleted");
    }
}

#[test]
fn a_tap_that_is_switched_off_is_a_cable_that_was_pulled_out() {
    if !root_or_skip() {
        return;
    }
    let network = Network::make("cable", AgentSide::TapOnBridge);
    // Netlink and the interface are of the network in which they are asked for.
    network.run_as_agent(|| {
        let wire = TapWire::open("tap0").expect("a TAP");
        let mut link = wire.link().expect("a TAP's link can be watched");
        assert!(link.is_up());
        for up in [false, true] {
            network.set_tap_up(up);
            let news = link.news().try_clone_to_owned().expect("a descriptor");
            let mut fds = [PollFd::new(news.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(30_000_u16)), Ok(1), "there is news");
            assert_eq!(link.is_up(), up);
        }
        // One that is gone is the wire's to tell; one that was moved still carries frames.
        network.delete_tap();
        assert!(link.is_up());
    });
}

#[test]
fn a_dump_by_a_tap_of_a_kernel_without_udp_segmentation_arrives_too() {
    if !root_or_skip() {
        return;
    }
    let network = Network::make("nouso", AgentSide::TapOnBridge);
    let dir = tempfile::tempdir().expect("a directory");
    let _receiver = start_receiver(&network, dir.path(), "10.9.0.0/24");
    let machine = FakeMachine::of_len(MEMORY_LEN / 4);
    let outcome = dump(&network, &machine, |plan| plan.old_kernel = true);
    assert!(outcome.is_safe(), "{outcome}");
    assert_core_is_whole(dir.path(), &machine, "10.9.0.2:20024");
}

#[test]
fn whatever_is_wrong_with_the_network_is_named_within_its_time() {
    if !root_or_skip() {
        return;
    }
    let network = Network::make("wrong", AgentSide::TapOnBridge);
    let dir = tempfile::tempdir().expect("a directory");
    let machine = FakeMachine::of_len(1 << 20);

    // A gateway that is not there: three ARP requests, one second apart.
    let began = Instant::now();
    let outcome = dump(&network, &machine, |plan| {
        plan.client.gateway = Some(Ipv4Addr::new(10, 9, 0, 99));
    });
    assert!((3..6).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let text = outcome.to_string();
    assert!(
        text.contains("gateway 10.9.0.99 does not answer ARP on tap0: is --netdump-gateway right"),
        "{text}"
    );

    // A receiver on the client's own network that is not there.
    let outcome = dump(&network, &machine, |plan| plan.receiver = Ipv4Addr::new(10, 9, 0, 7));
    let text = outcome.to_string();
    assert!(
        text.contains("receiver 10.9.0.7 does not answer ARP on tap0: is it up, and on the same network"),
        "{text}"
    );

    // A receiver that does not allow this network is as silent as none.
    let _receiver = start_receiver(&network, dir.path(), "10.8.0.0/24");
    let outcome = dump(&network, &machine, |_| ());
    let text = outcome.to_string();
    let expected = "receiver 192.0.2.7:20023 did not answer within 2 s: \
                    is `coreferry serve` running there and --allow'ing this network?";
    assert!(text.contains(expected), "{text}");
    assert_eq!(cores_list(dir.path()), Vec::<serde_json::Value>::new());

    // The interface is switched off, in use, or absent.
    network.set_tap_up(false);
    let text = dump(&network, &machine, |_| ()).to_string();
    assert!(
        text.contains("tap0: the interface is switched off: ip link set tap0 up"),
        "{text}"
    );
    network.set_tap_up(true);
    let text = network.run_as_agent(|| {
        let spec = WireSpec::Tap("tap0".to_owned());
        let _first = spec.open().expect("the first attaches");
        spec.open().err().map(|error| error.to_string()).unwrap_or_default()
    });
    assert!(text.starts_with("tap0: another process is attached to it"), "{text}");
    let text = dump(&network, &machine, |plan| plan.wire = WireSpec::Tap("tap7".to_owned())).to_string();
    assert!(
        text.contains("tap7: no such interface in this network namespace; make it first: ip tuntap add"),
        "{text}"
    );
}

#[test]
fn a_narrow_link_on_the_way_is_named_and_a_smaller_mtu_passes_it() {
    if !root_or_skip() {
        return;
    }
    let network = Network::make("narrow", AgentSide::TapOnBridge);
    network.narrow(1300);
    let dir = tempfile::tempdir().expect("a directory");
    let receiver = start_receiver(&network, dir.path(), "10.9.0.0/24");
    let machine = FakeMachine::of_len(MEMORY_LEN);
    let text = dump(&network, &machine, |_| ()).to_string();
    assert!(
        text.contains("receiver 192.0.2.7:20023 fell silent for 2 s with "),
        "{text}"
    );
    assert!(
        text.contains("or do packets of 1500 bytes not fit the way (--dump-mtu)?"),
        "{text}"
    );
    drop(receiver);

    let dir = tempfile::tempdir().expect("a directory");
    let _receiver = start_receiver(&network, dir.path(), "10.9.0.0/24");
    let outcome = dump(&network, &machine, |plan| plan.client.mtu = Some(1300));
    assert!(outcome.is_safe(), "{outcome}");
    assert_core_is_whole(dir.path(), &machine, "10.9.0.2:20024");
}

#[test]
fn a_spool_that_runs_full_is_named_and_left_clean() {
    if !root_or_skip() {
        return;
    }
    let network = Network::make("full", AgentSide::TapOnBridge);
    let small = network::SmallDisk::mount(4 << 20);
    let machine = FakeMachine::of_len(MEMORY_LEN);
    let outcome = dump(&network, &machine, |plan| {
        plan.wire = WireSpec::Tap("tap7".to_owned());
        plan.spool = Some(small.path().join("spool"));
    });
    assert!(!outcome.is_safe());
    let text = outcome.to_string();
    assert!(text.starts_with("the core is lost: cannot write "), "{text}");
    assert!(
        text.contains("No space left on device") && text.contains("what was written is removed again"),
        "{text}"
    );
    let left = std::fs::read_dir(small.path().join("spool")).expect("readable").count();
    assert_eq!(left, 0);
}
