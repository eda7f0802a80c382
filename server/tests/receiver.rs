//! The receiver as a library, driven over loopback sockets by a sender made of nothing but bytes.
#![allow(clippy::unwrap_used, reason = "in helpers of tests, a failure is to end the test")]

mod sender;

use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use api::{CoreService as _, CoreState, CoreSummary};
use sender::Sender;
use server::{Receiver, ReceiverConfig};
use vmcore::kernel_header::KernelDumpHeader;

const PATIENCE: Duration = Duration::from_secs(10);

/// A receiver on a free port with short times.
fn start(dir: &Path) -> Receiver {
    let mut config = ReceiverConfig::new(dir);
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    config.rules.silent_after = Duration::from_millis(600);
    config.rules.silent_after_ours = Duration::from_millis(600);
    config.rules.linger = Duration::from_millis(1500);
    Receiver::start(config).unwrap()
}

/// A kernel dump header that announces `len` bytes.
fn header(len: u64) -> [u8; 512] {
    let header = KernelDumpHeader {
        architecture: "amd64".to_owned(),
        version: 4,
        architecture_version: 2,
        dump_len_bytes: len,
        dump_extent_bytes: len,
        block_len_bytes: 4096,
        hostname: "web-17".to_owned(),
        version_string: "FreeBSD 14.3-RELEASE\n".to_owned(),
        panic_string: "page fault\x1b[2J".to_owned(),
        ..KernelDumpHeader::default()
    };
    header.encode()
}

/// Bytes that differ everywhere.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Sends a dense dump; the packets whose index `lost` picks are never sent.
fn send_dense(to: SocketAddrV4, bytes: &[u8], lost: impl Fn(usize) -> bool) -> Sender {
    let mut sender = Sender::connect(to, b"");
    for (index, packet) in bytes.chunks(1448).enumerate() {
        if !lost(index) {
            sender.data(index as u64 * 1448, packet);
        }
    }
    sender.kernel_header(&header(bytes.len() as u64));
    sender.finish();
    sender
}

/// The only stored core.
fn only(receiver: &Receiver) -> CoreSummary {
    let mut cores = receiver.wait_for_cores(1, PATIENCE).expect("a core within the time");
    assert_eq!(cores.len(), 1);
    cores.remove(0)
}

#[test]
fn a_dense_dump_is_stored_byte_by_byte_and_complete() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let bytes = pattern(3_000_000);
    send_dense(receiver.netdump_addr(), &bytes, |_| false);
    let core = only(&receiver);
    assert_eq!(core.state, CoreState::Complete);
    assert_eq!(core.guest, "web-17");
    assert_eq!(core.panic.as_deref(), Some("page fault\\u{1b}[2J"));
    assert_eq!(core.kernel.as_deref(), Some("FreeBSD 14.3-RELEASE"));
    assert!(core.client_addr.starts_with("127.0.0.1:"));
    assert_eq!((core.file_len_bytes, core.stored_bytes), (3_000_000, 3_000_000));
    let stored = receiver.cores().vmcore(&core.id).unwrap();
    assert_eq!(std::fs::read(&stored.path).unwrap(), bytes);
    let verified = receiver.cores().verify(&core.id).unwrap();
    assert!(verified.ok, "{verified:?}");
    assert_eq!(verified.verified_bytes, 3_000_000);
    let core_dir = stored.path.parent().unwrap();
    for name in ["vmcore", "info.txt", "kdh.bin", "manifest.json"] {
        assert!(core_dir.join(name).is_file(), "{name}");
    }
    assert_eq!(std::fs::read_dir(core_dir).unwrap().count(), 4);
    assert_eq!(std::fs::read_dir(dir.path().join("spool")).unwrap().count(), 0);
    assert_eq!(std::fs::read(core_dir.join("kdh.bin")).unwrap(), header(3_000_000));
}

#[test]
fn a_lost_packet_is_acknowledged_as_finished_but_listed_as_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    send_dense(receiver.netdump_addr(), &pattern(1_000_000), |index| index == 33);
    let core = only(&receiver);
    assert_eq!(core.state, CoreState::Incomplete);
    let holes: Vec<(u64, u64)> = core.holes.iter().map(|hole| (hole.offset, hole.length)).collect();
    assert_eq!(holes, [(33 * 1448, 1448)]);
    assert!(!receiver.cores().verify(&core.id).unwrap().ok);
}

#[test]
fn without_a_header_the_core_is_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let mut sender = Sender::connect(receiver.netdump_addr(), b"lab/web\0");
    sender.data(0, &[1; 1000]);
    sender.finish();
    let core = only(&receiver);
    assert_eq!(core.state, CoreState::Incomplete);
    assert_eq!(core.guest, "lab/web");
    assert!(core.holes.is_empty());
}

#[test]
fn a_silent_sender_leaves_an_incomplete_core() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    sender.data(0, &pattern(1448));
    sender.data(2896, &pattern(1448));
    let listed = receiver.cores().all();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, CoreState::Receiving);
    assert_eq!(listed[0].stored_bytes, 2896);
    let core = only(&receiver);
    assert_eq!(core.state, CoreState::Incomplete);
    assert_eq!(core.holes.len(), 1);
    assert_eq!(core.id, listed[0].id);
    let metrics = receiver.service().metrics();
    let counted = |row: &str| metrics.lines().any(|line| line == row);
    assert!(
        counted("coreferry_session_failures_total{reason=\"timeout\"} 1"),
        "{metrics}"
    );
    assert!(counted("coreferry_crashes_total{guest_os=\"other\"} 1"), "{metrics}");
}

#[test]
fn a_repeated_herald_is_answered_from_the_same_port_and_a_newcomer_runs_beside() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let to = receiver.netdump_addr();
    let mut first = Sender::connect(to, b"");
    let port = first.port();
    assert_eq!(first.herald_again(to, b""), port);
    first.data(0, &pattern(1448));
    // The same address and port, a dump already under way: another session, and the first one lives on.
    let second_port = first.herald_again(to, b"");
    assert_ne!(second_port, port, "the listening port is in use by this very peer");
    first.data(1448, &pattern(1448));
    first.kernel_header(&header(2896));
    first.finish();
    let core = only(&receiver);
    assert_eq!(core.state, CoreState::Complete);
    assert_eq!(core.stored_bytes, 2896);
}

#[test]
fn finished_is_answered_again_while_it_lingers() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let mut sender = send_dense(receiver.netdump_addr(), &pattern(10_000), |_| false);
    sender.finish();
    sender.data(0, &pattern(1448));
    sender.finish();
    assert_eq!(only(&receiver).state, CoreState::Complete);
}

#[test]
fn any_order_and_repetition_gives_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let bytes = pattern(2_500_000);
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    sender.kernel_header(&header(bytes.len() as u64));
    let packets: Vec<(usize, &[u8])> = bytes.chunks(1024).enumerate().collect();
    for (index, packet) in packets.iter().rev() {
        sender.data(*index as u64 * 1024, packet);
        if index % 7 == 0 {
            sender.data(*index as u64 * 1024, packet);
        }
    }
    sender.finish();
    let core = only(&receiver);
    assert_eq!(core.state, CoreState::Complete);
    let stored = receiver.cores().vmcore(&core.id).unwrap();
    assert_eq!(std::fs::read(stored.path).unwrap(), bytes);
    assert!(receiver.cores().verify(&core.id).unwrap().ok);
}

#[test]
fn a_repeat_that_differs_is_acknowledged_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    sender.data(0, &[1; 4096]);
    sender.data(0, &[2; 4096]);
    sender.data(1024, &[3; 1024]);
    sender.kernel_header(&header(4096));
    sender.finish();
    let core = only(&receiver);
    assert_eq!(core.state, CoreState::Complete);
    let stored = receiver.cores().vmcore(&core.id).unwrap();
    assert_eq!(std::fs::read(stored.path).unwrap(), [1; 4096]);
}

#[test]
fn the_first_page_of_a_second_dump_is_put_into_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let mut bytes = pattern(40_960);
    bytes[..22].copy_from_slice(b"minidump FreeBSD/amd64");
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    // The page goes to where the first dump ended; this dump is longer, so that its own data comes there later.
    for (index, part) in bytes[..4096].chunks(1448).enumerate() {
        sender.data(32_768 + index as u64 * 1448, part);
    }
    for (index, part) in bytes[4096..].chunks(1448).enumerate() {
        sender.data(4096 + index as u64 * 1448, part);
    }
    sender.kernel_header(&header(40_960));
    sender.finish();
    let core = only(&receiver);
    assert_eq!(core.state, CoreState::Complete, "{core:?}");
    assert_eq!(core.format, "minidump");
    let stored = receiver.cores().vmcore(&core.id).unwrap();
    assert!(std::fs::read(stored.path).unwrap() == bytes);
    assert!(receiver.cores().verify(&core.id).unwrap().ok);
}

#[test]
fn an_encrypted_dump_keeps_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    let key = pattern(4096);
    for (index, part) in key.chunks(1448).enumerate() {
        sender.key(index as u64 * 1448, part);
    }
    sender.data(0, &[7; 4096]);
    sender.kernel_header(&header(4096));
    sender.finish();
    let core = only(&receiver);
    let stored = receiver.cores().vmcore(&core.id).unwrap();
    assert_eq!(std::fs::read(stored.path.with_file_name("key.bin")).unwrap(), key);
}

#[test]
fn heralds_alone_leave_nothing_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    sender.finish();
    assert_eq!(std::fs::read_dir(dir.path().join("spool")).unwrap().count(), 0);
    assert!(receiver.cores().all().is_empty());
}

#[test]
fn an_answer_that_nobody_hears_begins_no_session() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let mut herald = [0; 24];
    (herald[3], herald[7]) = (1, 1);
    for host in 1..30 {
        // From the port of stock clients, and gone before the answer comes: an ICMP message says so.
        let forged = std::net::UdpSocket::bind((std::net::Ipv4Addr::new(127, 77, 0, host), 20024)).unwrap();
        forged.send_to(&herald, receiver.netdump_addr()).unwrap();
    }
    send_dense(receiver.netdump_addr(), &pattern(10_000), |_| false);
    assert_eq!(only(&receiver).state, CoreState::Complete);
    let metrics = receiver.service().metrics();
    assert!(metrics.contains("\ncoreferry_sessions_total 1\n"), "{metrics}");
}

#[test]
fn stopping_keeps_what_came() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    sender.data(0, &pattern(1448));
    let cores = receiver.cores();
    receiver.stop();
    let all = cores.all();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].state, CoreState::Incomplete);
}

#[test]
fn a_session_that_was_left_over_becomes_a_core_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = pattern(100_000);
    let receiver = start(dir.path());
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    sender.data(0, &bytes[..60_000]);
    receiver.stop();
    let left = dir.path().join("spool").read_dir().unwrap().count();
    assert_eq!(left, 1, "the session is left to the next receiver");
    let receiver = start(dir.path());
    let core = only(&receiver);
    assert_eq!(core.state, CoreState::Incomplete);
    assert_eq!(core.stored_bytes, 60_000);
    let stored = receiver.cores().vmcore(&core.id).unwrap();
    assert_eq!(std::fs::read(stored.path).unwrap(), &bytes[..60_000]);
    assert!(receiver.cores().verify(&core.id).unwrap().verified_bytes == 60_000);
}

#[test]
fn a_changed_byte_is_found() {
    use std::os::unix::fs::FileExt as _;
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path());
    send_dense(receiver.netdump_addr(), &pattern(3_000_000), |_| false);
    let core = only(&receiver);
    let stored = receiver.cores().vmcore(&core.id).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(stored.path).unwrap();
    file.write_all_at(&[0], 2_000_000).unwrap();
    let verified = receiver.cores().verify(&core.id).unwrap();
    assert_eq!(verified.state, CoreState::Corrupt);
    assert!(!verified.ok);
}
