//! What a receiver must take and what it must drop, row by row, as bytes. The messages are written out by hand (`struct
//! ndmsg_hdr`, `sys/netinet/netdump/netdump.h`), so that an error in the crate's own encoder shows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use netdump::{Accepted, Header, Instant, Session, SessionLimits};

const HERALD: u32 = 1;
const FINISHED: u32 = 2;
const VMCORE: u32 = 3;
const KDH: u32 = 4;
const KEY: u32 = 5;

/// A message with a header that says `said` payload bytes.
fn raw(kind: u32, seqno: u32, offset: u64, said: u32, aux2: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(seqno.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(said.to_be_bytes());
    bytes.extend(aux2.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn message(kind: u32, seqno: u32, offset: u64, len: usize) -> Vec<u8> {
    raw(kind, seqno, offset, u32::try_from(len).unwrap(), 0, &vec![7; len])
}

/// A session that begins with `herald`; its storage is instant. Gives it after `messages`, and the acknowledgements that each
/// datagram got, the herald's first.
fn play(herald: &[u8], messages: &[Vec<u8>]) -> (Session, Vec<Vec<u32>>) {
    let (header, payload) = Header::parse(herald).expect("the first herald of a row is one");
    let mut session = Session::new(SessionLimits::default(), &header, payload, Instant::ZERO);
    let mut acks = vec![taken(&mut session)];
    for datagram in messages {
        match session.handle_datagram(Instant::ZERO, datagram) {
            Ok(
                Accepted::Data { ticket, .. } | Accepted::KernelHeader { ticket, .. } | Accepted::Key { ticket, .. },
            ) => session.received(ticket).unwrap(),
            Ok(Accepted::Finished { ticket }) => session.durable(Instant::ZERO, ticket),
            Ok(Accepted::Herald | Accepted::Repeated) | Err(_) => {}
        }
        acks.push(taken(&mut session));
    }
    (session, acks)
}

fn taken(session: &mut Session) -> Vec<u32> {
    let mut acks = Vec::new();
    let mut ack = [0; 4];
    while session.poll_ack(&mut ack).is_some() {
        acks.push(u32::from_be_bytes(ack));
    }
    acks
}

fn plain_herald() -> Vec<u8> {
    message(HERALD, 1, 0, 0)
}

#[test]
fn must_drop() {
    let beyond = netdump::limits::FILE_LEN_MAX;
    let rows: &[(&str, Vec<u8>)] = &[
        ("nothing at all", Vec::new()),
        ("one byte less than a header", message(VMCORE, 2, 0, 0)[..23].to_vec()),
        (
            "a length that promises more than came",
            raw(VMCORE, 5, 0, 0x5a8, 0, &[0; 100]),
        ),
        ("a length that hides what came", raw(VMCORE, 5, 0, 99, 0, &[0; 100])),
        ("a length of 2^32 - 1", raw(VMCORE, 5, 0, u32::MAX, 0, &[0; 100])),
        ("type 0", message(0, 2, 0, 8)),
        ("type 6, which no version has", message(6, 2, 0, 8)),
        ("type 2^32 - 1", message(u32::MAX, 2, 0, 8)),
        (
            "data with its end beyond the limit",
            message(VMCORE, 2, beyond - 99, 100),
        ),
        (
            "data with its end beyond 2^63 - 1",
            message(VMCORE, 2, i64::MAX as u64, 100),
        ),
        ("data with its end beyond 2^64 - 1", message(VMCORE, 2, u64::MAX, 100)),
        ("a kernel dump header beyond its room", message(KDH, 2, 4096, 1)),
        ("a key beyond its room", message(KEY, 2, 16 * 1024, 1)),
        (
            "a negative offset in a kernel dump header",
            message(KDH, 2, u64::MAX - 511, 512),
        ),
    ];
    for (row, datagram) in rows {
        let (session, acks) = play(&plain_herald(), std::slice::from_ref(datagram));
        assert_eq!(acks, [vec![1], vec![]], "{row}: it must not be acknowledged");
        assert!(
            !session.has_data() && session.received_extents().is_empty(),
            "{row}: it must change nothing"
        );
        // The session lives on.
        let next = message(VMCORE, 2, 0, 2048);
        let (_, acks) = play(&plain_herald(), &[datagram.clone(), next]);
        assert_eq!(acks[2], [2], "{row}: the next message counts");
    }
}

#[test]
fn must_drop_in_the_middle_of_a_dump() {
    let data = || message(VMCORE, 2, 0, 2048);
    let rows: &[(&str, Vec<Vec<u8>>, usize)] = &[
        (
            "a HERALD, which opens a session beside this one",
            vec![data(), plain_herald()],
            1,
        ),
        (
            "new data after FINISHED",
            vec![data(), message(FINISHED, 3, 0, 0), message(VMCORE, 4, 9000, 100)],
            2,
        ),
        (
            "a new kernel dump header after FINISHED",
            vec![data(), message(FINISHED, 3, 0, 0), message(KDH, 4, 0, 512)],
            2,
        ),
    ];
    for (row, messages, dropped) in rows {
        let (session, acks) = play(&plain_herald(), messages);
        assert_eq!(acks[dropped + 1], [], "{row}: it must not be acknowledged");
        assert_eq!(
            session.received_extents().covered_bytes(),
            2048,
            "{row}: it must change nothing"
        );
    }
}

/// Herald, the messages behind it, and what each of these is acknowledged with.
type Row = (&'static str, Vec<u8>, Vec<Vec<u8>>, Vec<Vec<u32>>);

#[test]
fn must_accept() {
    let parts = |kind, first: u32, lens: &[usize]| -> Vec<Vec<u8>> {
        let mut offset = 0;
        let mut messages = Vec::new();
        for (seqno, len) in (first..).zip(lens) {
            messages.push(message(kind, seqno, offset, *len));
            offset += *len as u64;
        }
        messages
    };
    let path = b"lab/rack1\0";
    let rows: Vec<Row> = vec![
        ("a HERALD without a path", plain_herald(), vec![], vec![]),
        (
            "a HERALD with a path and its NUL",
            raw(HERALD, 1, 0, 10, 0, path),
            vec![],
            vec![],
        ),
        (
            "a HERALD with the longest path",
            message(HERALD, 1, 0, 1024),
            vec![],
            vec![],
        ),
        (
            "a HERALD with number 0, as the test client has it",
            message(HERALD, 0, 0, 0),
            vec![],
            vec![],
        ),
        (
            "a HERALD with junk in its last word, as old clients have it",
            raw(HERALD, 1, 0, 0, 0xdead_beef, &[]),
            vec![],
            vec![],
        ),
        (
            "a HERALD in two parts at a small MTU",
            message(HERALD, 1, 0, 524),
            vec![message(HERALD, 2, 524, 200)],
            vec![vec![2]],
        ),
        (
            "a HERALD that comes again before data",
            plain_herald(),
            vec![plain_herald()],
            vec![vec![1]],
        ),
        (
            "the first data packet at MTU 1500",
            plain_herald(),
            vec![message(VMCORE, 2, 0, 1448)],
            vec![vec![]],
        ),
        (
            "a first page in three packets, which end a burst",
            plain_herald(),
            parts(VMCORE, 2, &[1448, 1448, 1200]),
            vec![vec![], vec![], vec![2, 3, 4]],
        ),
        (
            "data beyond 4 GiB",
            plain_herald(),
            vec![message(VMCORE, 0x0030_0000, 0x1_2345_6000, 2048)],
            vec![vec![0x0030_0000]],
        ),
        (
            "data of a jumbo frame",
            plain_herald(),
            vec![message(VMCORE, 2, 0, 8948)],
            vec![vec![2]],
        ),
        (
            "data of the largest datagram",
            plain_herald(),
            vec![message(VMCORE, 2, 0, 65_507 - 24)],
            vec![vec![2]],
        ),
        (
            "data without bytes",
            message(HERALD, 0, 0, 0),
            vec![message(VMCORE, 2, 100, 0)],
            vec![vec![2]],
        ),
        (
            "data with junk in its last word",
            message(HERALD, 0, 0, 0),
            vec![raw(VMCORE, 2, 0, 4, 0xdead_beef, &[1; 4])],
            vec![vec![2]],
        ),
        (
            "data that came before",
            message(HERALD, 0, 0, 0),
            vec![message(VMCORE, 2, 0, 100), message(VMCORE, 2, 0, 100)],
            vec![vec![2], vec![2]],
        ),
        (
            "data in descending order",
            message(HERALD, 0, 0, 0),
            vec![message(VMCORE, 3, 100, 100), message(VMCORE, 2, 0, 100)],
            vec![vec![3], vec![2]],
        ),
        (
            "numbers that wrap around",
            message(HERALD, 0, 0, 0),
            vec![message(VMCORE, u32::MAX, 0, 100), message(VMCORE, 0, 100, 100)],
            vec![vec![u32::MAX], vec![0]],
        ),
        (
            "a key in three parts, before the data",
            plain_herald(),
            parts(KEY, 2, &[1448, 1448, 1200]),
            vec![vec![2], vec![3], vec![4]],
        ),
        (
            "a kernel dump header before any data, as of 2005",
            plain_herald(),
            vec![message(KDH, 2, 0, 512)],
            vec![vec![2]],
        ),
        (
            "a kernel dump header in two parts",
            plain_herald(),
            parts(KDH, 2, &[500, 12]),
            vec![vec![2], vec![3]],
        ),
        (
            "a kernel dump header again",
            plain_herald(),
            vec![message(KDH, 2, 0, 512), message(KDH, 2, 0, 512)],
            vec![vec![2], vec![2]],
        ),
        (
            "a key behind the header, as FreeBSD 12 has it",
            plain_herald(),
            vec![message(KDH, 2, 0, 512), message(KEY, 3, 0, 1448)],
            vec![vec![2], vec![3]],
        ),
        (
            "FINISHED without anything before it",
            plain_herald(),
            vec![message(FINISHED, 2, 0, 0)],
            vec![vec![2]],
        ),
        (
            "FINISHED with number 0, as the test client has it",
            message(HERALD, 0, 0, 0),
            vec![message(VMCORE, 1, 0, 1000), message(FINISHED, 0, 0, 0)],
            vec![vec![1], vec![0]],
        ),
        (
            "FINISHED that comes again",
            plain_herald(),
            vec![message(FINISHED, 2, 0, 0), message(FINISHED, 2, 0, 0)],
            vec![vec![2], vec![2]],
        ),
        (
            "data that came before, after FINISHED",
            message(HERALD, 0, 0, 0),
            vec![
                message(VMCORE, 1, 0, 100),
                message(FINISHED, 2, 0, 0),
                message(VMCORE, 1, 0, 100),
            ],
            vec![vec![1], vec![2], vec![1]],
        ),
    ];
    for (row, herald, messages, expected) in rows {
        let (_, acks) = play(&herald, &messages);
        let number = u32::from_be_bytes(herald[4..8].try_into().unwrap());
        assert_eq!(acks[0], [number], "{row}: its HERALD");
        assert_eq!(acks[1..], expected[..], "{row}");
    }
}

#[test]
fn what_is_accepted_is_what_was_sent() {
    let (session, _) = play(
        &raw(HERALD, 1, 0, 10, 0, b"lab/rack1\0"),
        &[message(KEY, 2, 0, 1448), message(VMCORE, 3, 4096, 2048)],
    );
    assert_eq!(session.herald_payload(), b"lab/rack1\0");
    assert_eq!(session.received_extents().iter().next(), Some(4096..6144));
    assert_eq!(session.key_extents().covered_bytes(), 1448);
    assert!(session.kernel_header_extents().is_empty());
}

#[test]
fn an_ack_is_four_bytes_and_nothing_else_is_one() {
    assert_eq!(netdump::wire::encode_ack(netdump::Seqno(1)), [0, 0, 0, 1]);
    for len in (0..8).filter(|len| *len != 4) {
        assert!(netdump::wire::parse_ack(&vec![0; len]).is_err(), "{len} bytes");
    }
}
