use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use nic_emu::device::Offload;

use super::*;
use crate::net::StreamWire;

/// Type and body of every block of a file.
fn blocks(path: &Path) -> Vec<(u32, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let len = word(at + 4) as usize;
        found.push((word(at), bytes[at + 8..at + len - 4].to_vec()));
        at += len;
    }
    found
}

/// Kept bytes of every packet, and whether it went out.
fn packets(path: &Path) -> Vec<(u8, bool, Vec<u8>)> {
    let packet = |(_, body): (u32, Vec<u8>)| {
        let kept = usize::try_from(u32::from_le_bytes(body[12..16].try_into().unwrap())).unwrap();
        let flags = body[20 + kept.next_multiple_of(4) + 4];
        (body[0], flags == 2, body[20..20 + kept].to_vec())
    };
    blocks(path)
        .into_iter()
        .filter(|(kind, _)| *kind == 6)
        .map(packet)
        .collect()
}

/// How many frames of each interface the file says that it lacks.
fn missed(path: &Path) -> Vec<u64> {
    let count = |(_, body): (u32, Vec<u8>)| u64::from_le_bytes(body[16..24].try_into().unwrap());
    blocks(path)
        .into_iter()
        .filter(|(kind, _)| *kind == 5)
        .map(count)
        .collect()
}

fn wire() -> (Box<dyn Wire>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (
        Box::new(StreamWire::from_socket(ours, "stream=test".to_owned()).unwrap()),
        theirs,
    )
}

fn send(wire: &mut dyn Wire, bytes: &[u8]) {
    let offload = Offload::default();
    wire.send(&[TxFrame { bytes, offload }]);
}

#[test]
fn what_crosses_two_wires_both_ways_is_in_one_file_for_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcapng");
    let capture = Capture::create(&path, 16).unwrap();
    let ((first, mut peer), (second, _other)) = (wire(), wire());
    let mut first = capture.around(first, "dump");
    let mut second = capture.around(second, "net0");
    send(&mut *first, &[1; 60]);
    send(&mut *second, &[2; 10]);
    let mut sent = [0; 64];
    peer.read_exact(&mut sent).unwrap();
    assert_eq!(sent[4..], [1; 60], "the frame itself is whole");
    peer.write_all(&[0, 0, 0, 3, 7, 7, 7]).unwrap();
    let mut came = Vec::new();
    assert_eq!(first.receive(&mut |frame| came = frame.to_vec()).unwrap(), 1);
    assert_eq!(came, [7, 7, 7]);
    drop((first, second));
    // Opened again, as a dump does for its next receiver.
    let mut again = capture.around(wire().0, "dump");
    send(&mut *again, &[3; 5]);
    drop((again, capture));
    let expected = [
        (0, true, vec![1; 16]),
        (1, true, vec![2; 10]),
        (0, false, vec![7; 3]),
        (0, true, vec![3; 5]),
    ];
    assert_eq!(packets(&path), expected);
    assert_eq!(missed(&path), [0, 0]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_never_grows_beyond_its_bound_and_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcapng");
    let capture = Capture::create_bounded(&path, 100, 10_000).unwrap();
    let (inner, mut peer) = wire();
    let mut wire = capture.around(inner, "dump");
    let mut sent = [0; 64];
    for _ in 0..500 {
        send(&mut *wire, &[1; 60]);
        peer.read_exact(&mut sent).unwrap();
    }
    drop((wire, capture));
    let kept = packets(&path).len() as u64;
    assert!(kept > 50, "{kept}");
    assert_eq!(missed(&path), [500 - kept]);
    assert!(std::fs::metadata(&path).unwrap().len() < 10_500);
}

#[test]
fn a_wire_never_waits_for_a_file_that_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut open = OpenOptions::new();
    let reader = open.read(true).write(true).open(&path).unwrap();
    let capture = Capture::create(&path, 1 << 16).unwrap();
    let interface = capture.interface("net0").unwrap();
    let frame = vec![5; 50_000];
    // Nobody reads: a pipe takes 64 KiB, the queue its bound, and the rest is counted.
    let count = CAPTURE_QUEUE_LEN_MAX / frame.len() * 3;
    capture.record(interface, Direction::Outbound, std::iter::repeat_n(&frame[..], count));
    let queue = lock(&capture.0.shared.queue);
    assert!(queue.bytes.len() < CAPTURE_QUEUE_LEN_MAX + frame.len() + 100);
    let lacks = queue.interfaces[0].missed;
    drop(queue);
    assert!(lacks > 50, "{lacks} of {count}");
    // Reading it to the end lets the writer finish.
    let drain = std::thread::spawn(move || {
        let mut reader = reader;
        let mut buffer = vec![0; 1 << 16];
        let mut tail = Vec::new();
        loop {
            let len = reader.read(&mut buffer).unwrap();
            tail.extend_from_slice(&buffer[..len]);
            tail.drain(..tail.len().saturating_sub(100));
            if tail.windows(8).any(|bytes| bytes == lacks.to_le_bytes()) {
                return;
            }
        }
    });
    drop(capture);
    drain.join().unwrap();
}

#[test]
fn a_file_that_cannot_be_made_says_what_to_do() {
    let error = Capture::create(Path::new("/nonexistent/a.pcapng"), 64)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot write a capture to /nonexistent/a.pcapng: "),
        "{error}"
    );
}
