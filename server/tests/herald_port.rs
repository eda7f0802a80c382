//! What the port that everybody knows must take and what it must drop, row by row; the rows of sessions are netdump's.
#![allow(clippy::unwrap_used, reason = "in helpers of tests, a failure is to end the test")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use api::CoreService as _;
use server::{Receiver, ReceiverConfig};

/// For how long silence is listened to. A later answer would be seen, too: the next one on the same socket has to be that to
/// the HERALD behind it.
const SILENCE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(20);

/// A message, its length field as given.
fn message(kind: u32, seqno: u32, offset: u64, len: u32, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    for word in [kind, seqno] {
        datagram.extend_from_slice(&word.to_be_bytes());
    }
    datagram.extend_from_slice(&offset.to_be_bytes());
    datagram.extend_from_slice(&len.to_be_bytes());
    datagram.extend_from_slice(&0_u32.to_be_bytes());
    datagram.extend_from_slice(payload);
    datagram
}

fn start() -> (tempfile::TempDir, Receiver) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = ReceiverConfig::new(dir.path());
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    let receiver = Receiver::start(config).unwrap();
    (dir, receiver)
}

/// A metric of the receiver.
fn metric(receiver: &Receiver, name: &str) -> u64 {
    let metrics = receiver.service().metrics();
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

/// Sends a datagram; the acknowledgement and where it came from, if one came.
fn exchange(socket: &UdpSocket, to: SocketAddr, datagram: &[u8], patience: Duration) -> Option<(u32, SocketAddr)> {
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send_to(datagram, to).unwrap();
    let mut answer = [0; 64];
    let (len, from) = socket.recv_from(&mut answer).ok()?;
    assert_eq!(len, 4, "an acknowledgement has four bytes");
    Some((u32::from_be_bytes([answer[0], answer[1], answer[2], answer[3]]), from))
}

#[test]
fn what_must_be_dropped_is_dropped_and_counted() {
    let (dir, receiver) = start();
    let to = SocketAddr::from(receiver.netdump_addr());
    let rows = [
        ("nothing at all", Vec::new()),
        ("one byte less than a header", message(1, 1, 0, 0, b"")[..23].to_vec()),
        ("a HERALD that promises more than came", message(1, 1, 0, 5, b"path")),
        ("a HERALD that hides what came", message(1, 1, 0, 3, b"path")),
        ("a HERALD of 2^32 - 1 bytes", message(1, 1, 0, u32::MAX, b"path")),
        ("a type that no version has", message(6, 1, 0, 0, b"")),
        ("type 0", message(0, 1, 0, 0, b"")),
        ("data without a session", message(3, 2, 0, 4, b"data")),
        (
            "a kernel dump header without a session",
            message(4, 2, 0, 512, &[0; 512]),
        ),
        ("a key without a session", message(5, 2, 0, 16, &[0; 16])),
        ("FINISHED without a session", message(2, 2, 0, 0, b"")),
    ];
    for (index, (name, datagram)) in rows.iter().enumerate() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(exchange(&socket, to, datagram, SILENCE), None, "{name} was answered");
        // What is sent behind it is answered: the row before it was seen, and nothing was.
        let (seqno, _) = exchange(&socket, to, &message(1, 77, 0, 0, b""), PATIENCE).expect("an answer to a HERALD");
        assert_eq!(seqno, 77, "{name} was answered late");
        assert_eq!(
            metric(&receiver, "coreferry_dropped_packets_total"),
            index as u64 + 1,
            "{name}"
        );
    }
    assert_eq!(metric(&receiver, "coreferry_sessions_total"), 0);
    assert_eq!(
        std::fs::read_dir(dir.path().join("spool")).unwrap().count(),
        0,
        "nothing was stored"
    );
}

#[test]
fn what_must_be_taken_is_taken() {
    let (_dir, receiver) = start();
    let to = SocketAddr::from(receiver.netdump_addr());
    let longest = [b"x".repeat(1023), vec![0]].concat();
    let rows = [
        ("a HERALD without a path", message(1, 1, 0, 0, b"")),
        (
            "a HERALD with number 0, as the test client has it",
            message(1, 0, 0, 0, b""),
        ),
        ("a HERALD with a path and its NUL", message(1, 1, 0, 5, b"path\0")),
        ("a HERALD with the longest path", message(1, 1, 0, 1024, &longest)),
    ];
    for (name, herald) in rows {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let seqno = u32::from_be_bytes([herald[4], herald[5], herald[6], herald[7]]);
        let (acked, first) =
            exchange(&socket, to, &herald, PATIENCE).unwrap_or_else(|| panic!("{name} is not answered"));
        assert_eq!(acked, seqno, "{name}");
        let again =
            exchange(&socket, to, &herald, PATIENCE).unwrap_or_else(|| panic!("{name}, again, is not answered"));
        assert_eq!(again, (seqno, first), "{name}, again, is the same session");
        let (acked, from) = exchange(&socket, first, &message(3, seqno + 1, 0, 4, b"data"), PATIENCE).expect(name);
        assert_eq!((acked, from), (seqno + 1, first), "{name}: its data");
    }
    assert_eq!(metric(&receiver, "coreferry_sessions_total"), 4);
    assert_eq!(metric(&receiver, "coreferry_dropped_packets_total"), 0);
}
