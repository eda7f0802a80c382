//! The whole way: a source through the dump port and the `user` wire to a small receiver on loopback.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netdump::{Header, Kind};
use vmcore::CoreferryNote;
use vmcore::kernel_header::{KernelDumpHeader, ParityVerdict};

use super::test_source::{TestSource, whole_file};
use super::*;
use crate::net::{StreamWire, Wire, WireError, WireSpec};

/// How the receiver misbehaves.
#[derive(Debug, Clone, Copy, Default)]
struct Manners {
    /// One of so many messages, and of so many acknowledgements, is lost.
    loses_one_in: Option<u64>,
    /// Says nothing any more after so many messages.
    silent_after: Option<u64>,
}

/// What a receiver got.
struct Received {
    file: Vec<u8>,
    kernel_header: Vec<u8>,
    messages: u64,
}

/// A receiver on a port of 127.0.0.1 that acknowledges every message at once, from a second port.
struct TestReceiver {
    address: SocketAddrV4,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<Received>>>,
}

impl TestReceiver {
    fn start(manners: Manners) -> Self {
        let herald_socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = herald_socket.local_addr().unwrap() else {
            unreachable!()
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || serve(&herald_socket, manners, &stopped));
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    fn target(&self) -> Target {
        self.address.into()
    }

    /// The finished dump, or nothing if none was finished.
    fn stop(mut self) -> Option<Received> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn serve(herald_socket: &UdpSocket, manners: Manners, stop: &AtomicBool) -> Option<Received> {
    let session = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    session.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    herald_socket.set_nonblocking(true).unwrap();
    let mut received = Received {
        file: Vec::new(),
        kernel_header: Vec::new(),
        messages: 0,
    };
    let mut finished = false;
    let mut buffer = vec![0; 65536];
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut loses = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        manners.loses_one_in.is_some_and(|n| random.is_multiple_of(n))
    };
    loop {
        let (len, from) = match herald_socket
            .recv_from(&mut buffer)
            .or_else(|_| session.recv_from(&mut buffer))
        {
            Ok(datagram) => datagram,
            Err(_) if stop.load(Ordering::Relaxed) => return finished.then_some(received),
            Err(_) => continue,
        };
        received.messages += 1;
        if loses() || manners.silent_after.is_some_and(|after| received.messages > after) {
            continue;
        }
        let (header, payload) = Header::parse(&buffer[..len]).unwrap();
        match header.kind {
            Kind::Vmcore => {
                let start = usize::try_from(header.offset).unwrap();
                let end = start + payload.len();
                if received.file.len() < end {
                    received.file.resize(end, 0);
                }
                received.file[start..end].copy_from_slice(payload);
            }
            Kind::KernelHeader => received.kernel_header = payload.to_vec(),
            Kind::Finished => finished = true,
            Kind::Herald | Kind::Key => {}
        }
        if !loses() {
            session.send_to(&netdump::wire::encode_ack(header.seqno), from).unwrap();
        }
    }
}

/// Seconds, where people wait longer.
const QUICK: Patience = Patience {
    answer: Duration::from_secs(1),
    silence: Duration::from_secs(1),
    confirmation: Duration::from_secs(1),
};

fn note() -> CoreferryNote {
    CoreferryNote {
        dump_id: "0197-test".to_owned(),
        vm: "web-3".to_owned(),
        trigger: "pvpanic".to_owned(),
        panic: Some("Fatal exception in interrupt".to_owned()),
        release: Some("6.1.0-test".to_owned()),
        ..CoreferryNote::default()
    }
}

/// Runs a dump, with the `user` wire unless `change` says otherwise.
fn dump<'a>(source: &'a TestSource, targets: &'a [Target], change: impl FnOnce(&mut DumpJob<'a>)) -> DumpOutcome {
    // What a job borrows must outlive what `change` puts in; a test may leak it.
    let note = Box::leak(Box::new(note()));
    let mut job = DumpJob {
        source,
        note,
        targets,
        open_wire: &|| WireSpec::User.open(),
        network: ClientNetwork::for_user_wire(&note.vm),
        spool: None,
        deadline: None,
        progress: Box::leak(Box::default()),
    };
    change(&mut job);
    ferry_with(&job, QUICK)
}

fn assert_received(source: &TestSource, received: &Received) {
    let core = CoreFile::plan(source, &note()).unwrap();
    assert_eq!(received.file.len() as u64, core.len_bytes());
    assert!(received.file == whole_file(&core), "the file differs");
    let (header, parity) = KernelDumpHeader::parse(&received.kernel_header).unwrap();
    assert_eq!(parity, ParityVerdict::Pass);
    assert_eq!(header.dump_len_bytes, core.len_bytes());
    assert_eq!(header.hostname, "web-3");
    assert_eq!(header.panic_string, "Fatal exception in interrupt");
    assert_eq!(header.version_string, "6.1.0-test");
}

#[test]
fn the_core_arrives_identical_at_every_mtu() {
    let source = TestSource::with_holes();
    for mtu in [None, Some(576), Some(1500), Some(4148), Some(9000)] {
        let receiver = TestReceiver::start(Manners::default());
        let targets = [receiver.target()];
        let outcome = dump(&source, &targets, |job| job.network.mtu = mtu);
        let DumpOutcome::Received { target, failures, .. } = outcome else {
            panic!("MTU {mtu:?}: {outcome}")
        };
        assert_eq!(target, receiver.target());
        assert!(failures.is_empty());
        assert_received(&source, &receiver.stop().unwrap());
    }
}

#[test]
fn the_core_arrives_identical_over_a_lossy_way() {
    let source = TestSource::with_holes();
    let receiver = TestReceiver::start(Manners {
        loses_one_in: Some(20),
        ..Manners::default()
    });
    let progress = Progress::new();
    let targets = [receiver.target()];
    let outcome = dump(&source, &targets, |job| job.progress = &progress);
    assert!(outcome.is_safe(), "{outcome}");
    let received = receiver.stop().unwrap();
    assert_received(&source, &received);
    let seen = progress.snapshot();
    assert_eq!(seen.phase, Phase::Over);
    assert_eq!(
        (seen.bytes_done, seen.bytes_total),
        (received.file.len() as u64, received.file.len() as u64)
    );
    assert!(seen.retransmits > 0, "{seen:?}");
    assert_eq!(seen.bytes_sent, seen.bytes_acked);
    assert!(seen.bytes_sent < seen.bytes_total, "holes were sent: {seen:?}");
}

#[test]
fn without_a_receiver_the_same_file_is_spooled_sparse() {
    let source = TestSource::with_holes();
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let outcome = dump(&source, &[], |job| job.spool = Some(spool.clone()));
    let DumpOutcome::Spooled { path, failures } = &outcome else {
        panic!("{outcome}")
    };
    assert!(failures.is_empty());
    assert_eq!(path, &spool.join("web-3-0197-test.vmcore"));
    let core = CoreFile::plan(&source, &note()).unwrap();
    assert!(std::fs::read(path).unwrap() == whole_file(&core));
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o600);
    assert!(
        metadata.blocks() * 512 < metadata.len(),
        "{} blocks of {} bytes",
        metadata.blocks(),
        metadata.len()
    );
    assert_eq!(
        std::fs::read_dir(&spool).unwrap().count(),
        1,
        "nothing but the core is left"
    );
    assert!(
        outcome
            .to_string()
            .starts_with(&format!("the core is in {}", path.display())),
        "{outcome}"
    );
}

#[test]
fn receivers_are_tried_in_order_and_each_failure_is_told() {
    let source = TestSource::with_holes();
    let receiver = TestReceiver::start(Manners::default());
    // On the client's own network nobody is: the first one cannot even be resolved on a wire that answers nothing.
    let dead_port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let dead = Target::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, dead_port));
    let start = Instant::now();
    let targets = [dead.clone(), receiver.target()];
    let outcome = dump(&source, &targets, |_| ());
    let DumpOutcome::Received { target, failures, .. } = &outcome else {
        panic!("{outcome}")
    };
    assert_eq!(target, &receiver.target());
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].target, dead);
    let text = failures[0].error.to_string();
    assert_eq!(
        text,
        format!("receiver {dead} did not answer within 1 s: nothing listens on {dead}")
    );
    assert!((1..3).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_received(&source, &receiver.stop().unwrap());
}

#[test]
fn a_receiver_that_falls_silent_is_given_up_and_the_spool_has_the_core() {
    let source = TestSource::with_holes();
    let dir = tempfile::tempdir().unwrap();
    let receiver = TestReceiver::start(Manners {
        silent_after: Some(100),
        ..Manners::default()
    });
    let start = Instant::now();
    let targets = [receiver.target()];
    let outcome = dump(&source, &targets, |job| job.spool = Some(dir.path().to_owned()));
    assert!((1..4).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let DumpOutcome::Spooled { path, failures } = &outcome else {
        panic!("{outcome}")
    };
    let text = failures[0].error.to_string();
    assert!(
        text.starts_with(&format!("receiver {} fell silent for 1 s with ", receiver.address)),
        "{text}"
    );
    assert!(std::fs::read(path).unwrap() == whole_file(&CoreFile::plan(&source, &note()).unwrap()));
    assert!(receiver.stop().is_none());
}

/// The other ends of wires, kept open.
type Peers = Arc<Mutex<Vec<UnixStream>>>;

/// A wire whose other end reads nothing and says nothing.
fn dead_wire() -> (impl Fn() -> Result<Box<dyn Wire>, WireError> + Sync, Peers) {
    let peers = Peers::default();
    let kept = Arc::clone(&peers);
    let open = move || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        kept.lock().unwrap().push(theirs);
        Ok(Box::new(StreamWire::from_socket(ours, "tap0".to_owned())?) as Box<dyn Wire>)
    };
    (open, peers)
}

#[test]
fn a_silent_gateway_is_named_after_three_seconds() {
    let source = TestSource::with_holes();
    let (open, _peers) = dead_wire();
    let start = Instant::now();
    let targets = [Ipv4Addr::new(192, 0, 2, 7).into()];
    let outcome = dump(&source, &targets, |job| job.open_wire = &open);
    assert!((3..5).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let text = outcome.to_string();
    assert_eq!(
        text,
        "the core is lost: no --spool directory to keep it in; gateway 10.0.2.2 does not answer ARP on tap0: \
         is --netdump-gateway right, and is the network behind this wire up?"
    );
    assert!(!outcome.is_safe());
}

#[test]
fn addresses_that_make_no_network_are_told_before_anything_is_sent() {
    let source = TestSource::with_holes();
    let (open, peers) = dead_wire();
    let targets = [Ipv4Addr::new(192, 0, 2, 7).into()];
    let outcome = dump(&source, &targets, |job| {
        job.open_wire = &open;
        job.network.gateway = None;
    });
    let text = outcome.to_string();
    assert!(
        text.contains("the dump port's addresses do not fit: ") && text.contains("192.0.2.7"),
        "{text}"
    );
    peers.lock().unwrap()[0].set_nonblocking(true).unwrap();
    assert!(std::io::Read::read(&mut &peers.lock().unwrap()[0], &mut [0; 1]).map_or(true, |len| len == 0));
}

#[test]
fn a_lost_wire_is_opened_again_for_the_next_receiver_and_the_spool_comes_last() {
    let source = TestSource::with_holes();
    let dir = tempfile::tempdir().unwrap();
    let opened = AtomicUsize::new(0);
    let open = || {
        opened.fetch_add(1, Ordering::Relaxed);
        let (ours, _closed) = UnixStream::pair().unwrap();
        Ok(Box::new(StreamWire::from_socket(ours, "stream=x".to_owned())?) as Box<dyn Wire>)
    };
    let targets = [Ipv4Addr::new(192, 0, 2, 7).into(), Ipv4Addr::new(192, 0, 2, 8).into()];
    let start = Instant::now();
    let outcome = dump(&source, &targets, |job| {
        job.open_wire = &open;
        job.spool = Some(dir.path().to_owned());
    });
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(opened.load(Ordering::Relaxed), 2);
    let DumpOutcome::Spooled { failures, .. } = &outcome else {
        panic!("{outcome}")
    };
    for failure in failures {
        assert!(
            failure.error.to_string().starts_with("stream=x is gone: "),
            "{}",
            failure.error
        );
    }
}

#[test]
fn a_wire_that_cannot_be_opened_costs_the_receivers_and_not_the_core() {
    let source = TestSource::with_holes();
    let dir = tempfile::tempdir().unwrap();
    let spec = WireSpec::Tap("cf-none".to_owned());
    let open = spec.opener();
    let targets = [Ipv4Addr::new(192, 0, 2, 7).into()];
    let outcome = dump(&source, &targets, |job| {
        job.open_wire = &open;
        job.spool = Some(dir.path().to_owned());
    });
    let DumpOutcome::Spooled { failures, .. } = &outcome else {
        panic!("{outcome}")
    };
    assert!(
        failures[0].error.to_string().starts_with("cf-none: no such interface"),
        "{}",
        failures[0].error
    );
}

#[test]
fn a_dump_ends_soon_after_it_is_cancelled_and_leaves_no_file() {
    let source = TestSource::with_holes();
    let dir = tempfile::tempdir().unwrap();
    let (open, _peers) = dead_wire();
    let progress = Progress::new();
    let start = Instant::now();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            progress.cancel();
        });
        let targets = [Ipv4Addr::new(192, 0, 2, 7).into()];
        dump(&source, &targets, |job| {
            job.open_wire = &open;
            job.spool = Some(dir.path().to_owned());
            job.progress = &progress;
        })
    });
    assert!(matches!(outcome, DumpOutcome::Cancelled), "{outcome}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_deadline_ends_the_whole_attempt() {
    let source = TestSource::with_holes();
    let dir = tempfile::tempdir().unwrap();
    let (open, _peers) = dead_wire();
    let start = Instant::now();
    let targets = [Ipv4Addr::new(192, 0, 2, 7).into()];
    let outcome = dump(&source, &targets, |job| {
        job.open_wire = &open;
        job.spool = Some(dir.path().to_owned());
        job.deadline = Some(start + Duration::from_millis(300));
    });
    assert!(outcome.is_deadline_passed(), "{outcome}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(outcome.to_string(), "the core is lost: the dump's deadline has passed");
}

#[test]
fn a_spool_that_cannot_hold_the_core_is_named_and_left_clean() {
    let source = TestSource::with_holes();
    // Writes to /dev/full's directory fail for want of a directory; a file that is too large for the limit follows in
    // the end-to-end tests, where a small file system can be mounted.
    let dir = tempfile::tempdir().unwrap();
    let not_a_directory = dir.path().join("file");
    std::fs::write(&not_a_directory, "x").unwrap();
    let outcome = dump(&source, &[], |job| job.spool = Some(not_a_directory.join("spool")));
    let DumpOutcome::Lost {
        spool: SpoolFailure::Failed(_),
        ..
    } = &outcome
    else {
        panic!("{outcome}")
    };
    let text = outcome.to_string();
    assert!(
        text.starts_with("the core is lost: cannot make the directory "),
        "{text}"
    );
}

#[test]
fn a_core_whose_sending_panics_goes_to_the_spool() {
    let source = TestSource::with_holes();
    let dir = tempfile::tempdir().unwrap();
    let target: Target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9).into();
    let (note, progress) = (CoreferryNote::default(), Progress::new());
    let job = |spool: Option<&std::path::Path>| DumpJob {
        source: &source,
        note: &note,
        targets: std::slice::from_ref(&target),
        open_wire: &|| panic!("a bug on purpose, for the test of what follows"),
        network: ClientNetwork::for_user_wire("test"),
        spool: spool.map(std::path::Path::to_owned),
        deadline: None,
        progress: &progress,
    };
    let outcome = ferry(&job(Some(dir.path())));
    let DumpOutcome::Spooled { path, .. } = outcome else {
        panic!("{outcome}");
    };
    let core = CoreFile::plan(&source, &note).unwrap();
    assert!(std::fs::read(path).unwrap() == whole_file(&core));
    let outcome = ferry(&job(None));
    assert!(
        !outcome.is_safe() && outcome.to_string().contains("bug of coreferry"),
        "{outcome}"
    );
}
