//! The session, message by message.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one range is what is meant")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use netdump::{
    Accepted, AckPolicy, Extents, FinishTicket, Header, Instant, Kind, Rejected, Seqno, Session, SessionEvent,
    SessionLimits, Ticket, TooManyExtents, WireError, server::SessionState, time::Duration,
};
use proptest::prelude::*;

const fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn message(kind: Kind, seqno: u32, offset: u64, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let header = Header {
        kind,
        seqno: Seqno(seqno),
        offset,
        len,
        aux2: 0xdead_beef,
    };
    [header.encode().as_slice(), payload].concat()
}

fn session_with(limits: SessionLimits, path: &[u8]) -> Session {
    let datagram = message(Kind::Herald, 1, 0, path);
    let (header, payload) = Header::parse(&datagram).unwrap();
    Session::new(limits, &header, payload, at(0))
}

fn session() -> Session {
    let mut session = session_with(at_once(), b"");
    assert_eq!(acks(&mut session), [1]);
    session
}

/// Limits of sessions that acknowledge each message by itself; pairing has tests of its own.
fn at_once() -> SessionLimits {
    SessionLimits {
        ack_policy: AckPolicy::Immediate,
        ..SessionLimits::default()
    }
}

fn acks(session: &mut Session) -> Vec<u32> {
    let mut out = [0; 10];
    let mut acks = Vec::new();
    loop {
        let len = session.poll_acks(&mut out);
        if len == 0 {
            return acks;
        }
        acks.extend(
            out[..len]
                .chunks(4)
                .map(|ack| u32::from_be_bytes(ack.try_into().unwrap())),
        );
    }
}

fn data_ticket(accepted: Result<Accepted<'_>, Rejected>) -> Ticket {
    match accepted {
        Ok(Accepted::Data { ticket, .. } | Accepted::KernelHeader { ticket, .. } | Accepted::Key { ticket, .. }) => {
            ticket
        }
        other => panic!("{other:?}"),
    }
}

fn finish_ticket(accepted: Result<Accepted<'_>, Rejected>) -> FinishTicket {
    match accepted {
        Ok(Accepted::Finished { ticket }) => ticket,
        other => panic!("{other:?}"),
    }
}

fn store(session: &mut Session, kind: Kind, seqno: u32, offset: u64, payload: &[u8]) {
    let ticket = data_ticket(session.handle_datagram(at(1), &message(kind, seqno, offset, payload)));
    session.received(ticket).unwrap();
}

#[test]
fn a_herald_is_acknowledged_at_once_and_again_until_data_comes() {
    let mut session = session();
    let herald = message(Kind::Herald, 1, 0, b"");
    assert_eq!(session.handle_datagram(at(1), &herald), Ok(Accepted::Herald));
    assert_eq!(
        (acks(&mut session), session.has_data(), session.state()),
        (vec![1], false, SessionState::Waiting)
    );
    store(&mut session, Kind::Vmcore, 2, 0, b"data");
    assert!(session.has_data());
    assert_eq!(session.handle_datagram(at(1), &herald), Err(Rejected::HeraldAfterData));
    assert_eq!(acks(&mut session), [2]);
}

#[test]
fn a_herald_in_pieces_is_put_together_in_any_order() {
    let mut session = session_with(SessionLimits::default(), &[b'a'; 524]);
    assert_eq!(
        session.handle_datagram(at(0), &message(Kind::Herald, 2, 524, b"b\0")),
        Ok(Accepted::Herald)
    );
    assert_eq!(session.herald_payload(), [[b'a'; 524].as_slice(), b"b\0"].concat());
    assert_eq!(acks(&mut session), [1, 2]);

    let late = message(Kind::Herald, 2, 3, b"lab\0");
    let (header, payload) = Header::parse(&late).unwrap();
    let mut session = Session::new(SessionLimits::default(), &header, payload, at(0));
    assert_eq!(session.herald_payload(), b"");
    session
        .handle_datagram(at(0), &message(Kind::Herald, 1, 0, b"my/"))
        .unwrap();
    assert_eq!(
        (session.herald_payload().to_vec(), acks(&mut session)),
        (b"my/lab\0".to_vec(), vec![2, 1])
    );
}

#[test]
fn a_path_that_is_too_long_costs_the_label_and_not_the_dump() {
    let mut session = session_with(SessionLimits::default(), &[b'p'; 1025]);
    assert_eq!(
        (session.herald_payload().to_vec(), acks(&mut session)),
        (vec![], vec![1])
    );
    let far = message(Kind::Herald, 2, u64::MAX, b"p");
    assert_eq!(session.handle_datagram(at(0), &far), Ok(Accepted::Herald));
    assert_eq!(acks(&mut session), [2]);
}

#[test]
fn data_is_acknowledged_when_storage_has_it() {
    let mut session = session();
    let datagram = message(Kind::Vmcore, 7, 4096, b"abcd");
    let Ok(Accepted::Data {
        offset,
        bytes,
        ticket,
        duplicate,
    }) = session.handle_datagram(at(1), &datagram)
    else {
        panic!("not data");
    };
    assert_eq!((offset, bytes, duplicate), (4096, b"abcd".as_slice(), false));
    assert!(acks(&mut session).is_empty() && session.received_extents().is_empty());
    session.received(ticket).unwrap();
    assert_eq!(
        (
            acks(&mut session),
            session.received_extents().iter().collect::<Vec<_>>()
        ),
        (vec![7], vec![4096..4100])
    );
}

#[test]
fn a_repeated_message_is_acknowledged_as_often_as_it_comes() {
    let mut session = session();
    for round in 0..3 {
        let datagram = message(Kind::Vmcore, 7, 0, b"abcd");
        let accepted = session.handle_datagram(at(1), &datagram);
        assert!(matches!(accepted, Ok(Accepted::Data { duplicate, .. }) if duplicate == (round > 0)));
        session.received(data_ticket(accepted)).unwrap();
        assert_eq!(acks(&mut session), [7]);
    }
    assert_eq!(
        (session.stats().duplicate_messages, session.stats().duplicate_bytes),
        (2, 8)
    );
    // Half of it is new: that is no duplicate.
    let datagram = message(Kind::Vmcore, 8, 2, b"cdef");
    let accepted = session.handle_datagram(at(1), &datagram);
    assert!(matches!(accepted, Ok(Accepted::Data { duplicate: false, .. })));
}

#[test]
fn header_and_key_come_in_pieces_and_in_any_order() {
    let mut session = session();
    store(&mut session, Kind::Key, 4, 1448, &[0; 1448]);
    store(&mut session, Kind::KernelHeader, 9, 500, &[0; 12]);
    store(&mut session, Kind::Vmcore, 5, 0, &[0; 8192]);
    store(&mut session, Kind::KernelHeader, 8, 0, &[0; 500]);
    store(&mut session, Kind::Key, 3, 0, &[0; 1448]);
    assert_eq!(acks(&mut session), [4, 9, 5, 8, 3]);
    assert_eq!(session.kernel_header_extents().iter().collect::<Vec<_>>(), [0..512]);
    assert_eq!(session.key_extents().iter().collect::<Vec<_>>(), [0..2896]);
    assert_eq!(
        (
            session.received_extents().covered_bytes(),
            session.stats().largest_data_len
        ),
        (8192, 8192)
    );
}

#[test]
fn what_lies_beyond_the_limits_is_neither_taken_nor_acknowledged() {
    let limits = SessionLimits {
        file_len_max: 10_000,
        ..at_once()
    };
    let mut session = session_with(limits, b"");
    acks(&mut session);
    let beyond = [
        (Kind::Vmcore, 9_997, 10_000),
        (Kind::Vmcore, u64::MAX, 10_000),
        (Kind::Vmcore, u64::MAX - 3, 10_000),
        (Kind::Vmcore, 1 << 63, 10_000),
        (Kind::KernelHeader, 4093, 4096),
        (Kind::Key, 16_381, 16_384),
    ];
    for (kind, offset, limit) in beyond {
        let rejected = session
            .handle_datagram(at(1), &message(kind, 5, offset, b"abcd"))
            .unwrap_err();
        assert_eq!(
            rejected,
            Rejected::OutOfBounds {
                kind,
                offset,
                len: 4,
                limit
            }
        );
    }
    assert_eq!((acks(&mut session), session.stats().rejected), (vec![], 6));
    store(&mut session, Kind::Vmcore, 6, 9_996, b"abcd");
    assert_eq!(acks(&mut session), [6]);
}

#[test]
fn what_is_no_message_changes_nothing() {
    let mut session = session();
    let rejected = session.handle_datagram(at(50), &[0; 23]);
    assert_eq!(rejected, Err(Rejected::Wire(WireError::TooShort { len_bytes: 23 })));
    let mut unknown = message(Kind::Vmcore, 5, 0, b"");
    unknown[3] = 6;
    assert_eq!(
        session.handle_datagram(at(50), &unknown),
        Err(Rejected::Wire(WireError::UnknownKind { number: 6 }))
    );
    assert_eq!((acks(&mut session), session.poll_timeout()), (vec![], Some(at(60))));
}

#[test]
fn finished_is_acknowledged_when_everything_is_durable_and_then_for_fifteen_seconds() {
    let mut session = session();
    store(&mut session, Kind::Vmcore, 2, 0, b"data");
    let finished = message(Kind::Finished, 3, 0, b"");
    let ticket = finish_ticket(session.handle_datagram(at(2), &finished));
    assert_eq!(acks(&mut session), [2]);
    assert_eq!(
        (session.state(), session.poll_timeout()),
        (SessionState::Committing, None)
    );
    assert_eq!(session.handle_datagram(at(3), &finished), Ok(Accepted::Repeated));
    assert_eq!(acks(&mut session), []);
    session.durable(at(10), ticket);
    assert_eq!(
        (acks(&mut session), session.state()),
        (vec![3], SessionState::Lingering)
    );
    for second in [11, 20] {
        session.handle_timeout(at(second));
        assert_eq!(session.handle_datagram(at(second), &finished), Ok(Accepted::Repeated));
        assert_eq!(acks(&mut session), [3]);
    }
    assert_eq!(session.poll_timeout(), Some(at(25)));
    session.handle_timeout(at(25));
    assert_eq!(
        (session.poll_event(), session.poll_event()),
        (Some(SessionEvent::LingerOver), None)
    );
    assert_eq!(session.handle_datagram(at(25), &finished), Err(Rejected::Ended));
    assert_eq!((acks(&mut session), session.poll_timeout()), (vec![], None));
}

#[test]
fn after_finished_only_what_came_before_is_acknowledged() {
    let mut session = session();
    store(&mut session, Kind::Vmcore, 2, 0, b"data");
    let _ticket = finish_ticket(session.handle_datagram(at(2), &message(Kind::Finished, 3, 0, b"")));
    acks(&mut session);
    assert_eq!(
        session.handle_datagram(at(2), &message(Kind::Vmcore, 2, 0, b"data")),
        Ok(Accepted::Repeated)
    );
    let new = session
        .handle_datagram(at(2), &message(Kind::Vmcore, 2, 2, b"data"))
        .unwrap_err();
    assert_eq!(
        new,
        Rejected::AfterFinished {
            kind: Kind::Vmcore,
            offset: 2
        }
    );
    let herald = session
        .handle_datagram(at(2), &message(Kind::Herald, 1, 0, b""))
        .unwrap_err();
    assert_eq!(herald, Rejected::HeraldAfterData);
    assert_eq!(acks(&mut session), [2]);
}

#[test]
fn a_ticket_that_storage_gives_back_late_counts_until_the_dump_is_durable() {
    let mut session = session();
    let early = data_ticket(session.handle_datagram(at(1), &message(Kind::Vmcore, 2, 0, b"data")));
    let late = data_ticket(session.handle_datagram(at(1), &message(Kind::Vmcore, 3, 4, b"data")));
    let finish = finish_ticket(session.handle_datagram(at(2), &message(Kind::Finished, 4, 0, b"")));
    session.received(early).unwrap();
    session.durable(at(3), finish);
    session.received(late).unwrap();
    assert_eq!(
        (acks(&mut session), session.received_extents().covered_bytes()),
        (vec![2, 4], 4)
    );
}

#[test]
fn a_refused_session_is_mute() {
    let mut session = session();
    let ticket = data_ticket(session.handle_datagram(at(1), &message(Kind::Vmcore, 2, 0, b"data")));
    store(&mut session, Kind::Vmcore, 3, 4, b"data");
    session.refuse();
    session.received(ticket).unwrap();
    assert_eq!(
        session.handle_datagram(at(1), &message(Kind::Vmcore, 2, 0, b"data")),
        Err(Rejected::Ended)
    );
    assert_eq!(
        (acks(&mut session), session.state(), session.poll_timeout()),
        (vec![], SessionState::Ended, None)
    );
}

#[test]
fn a_silent_sender_is_dead_after_sixty_seconds() {
    let mut session = session();
    assert_eq!(session.poll_timeout(), Some(at(60)));
    session
        .handle_datagram(at(20), &message(Kind::Vmcore, 2, 0, b"data"))
        .unwrap();
    session.handle_timeout(at(79));
    assert_eq!((session.poll_event(), session.poll_timeout()), (None, Some(at(80))));
    session.handle_timeout(at(80));
    assert_eq!(
        (session.poll_event(), session.state()),
        (Some(SessionEvent::Silent), SessionState::Ended)
    );
    let mut only_heralds = session_with(SessionLimits::default(), b"");
    only_heralds
        .handle_datagram(at(50), &message(Kind::Herald, 1, 0, b""))
        .unwrap();
    assert_eq!(only_heralds.poll_timeout(), Some(at(60)));
    let limits = SessionLimits {
        silent_after: Duration::from_secs(30),
        ..at_once()
    };
    assert_eq!(session_with(limits, b"").poll_timeout(), Some(at(30)));
}

#[test]
fn coverage_that_falls_to_pieces_is_refused_and_never_claimed() {
    let limits = SessionLimits {
        extents_max: 2,
        ..at_once()
    };
    let mut session = session_with(limits, b"");
    store(&mut session, Kind::Vmcore, 2, 0, b"data");
    // Two tickets at the bound: the second one finds the place taken.
    let first = data_ticket(session.handle_datagram(at(1), &message(Kind::Vmcore, 3, 100, b"data")));
    let second = data_ticket(session.handle_datagram(at(1), &message(Kind::Vmcore, 4, 200, b"data")));
    session.received(first).unwrap();
    assert_eq!(
        session.received(second),
        Err(TooManyExtents {
            range: 200..204,
            extents_max: 2
        })
    );
    let rejected = session
        .handle_datagram(at(1), &message(Kind::Vmcore, 5, 300, b"data"))
        .unwrap_err();
    assert_eq!(
        rejected,
        Rejected::TooFragmented {
            kind: Kind::Vmcore,
            offset: 300,
            extents_max: 2
        }
    );
    assert_eq!(acks(&mut session), [1, 2, 3]);
    store(&mut session, Kind::Vmcore, 6, 4, &[0; 96]);
    store(&mut session, Kind::Vmcore, 7, 300, b"data");
    assert_eq!(
        session.received_extents().iter().collect::<Vec<_>>(),
        [0..104, 300..304]
    );
}

#[test]
fn acknowledgements_nobody_sends_take_no_more_room_than_allowed() {
    let limits = SessionLimits {
        acks_max: 3,
        ..at_once()
    };
    let mut session = session_with(limits, b"");
    for seqno in 2..10 {
        store(&mut session, Kind::Vmcore, seqno, 0, b"data");
    }
    assert_eq!((session.stats().dropped_acks, acks(&mut session)), (6, vec![1, 2, 3]));
    store(&mut session, Kind::Vmcore, 9, 0, b"data");
    assert_eq!(acks(&mut session), [9]);
}

#[test]
fn an_old_header_behind_the_data_counts_neither_as_lost_nor_as_dump() {
    let mut session = session();
    store(&mut session, Kind::KernelHeader, 2, 0, &[1; 512]);
    store(&mut session, Kind::Vmcore, 3, 0, &[2; 8192]);
    store(&mut session, Kind::Vmcore, 4, 8192, &[1; 512]);
    assert_eq!(session.received_extents().lost(8192, &Extents::new(1)).count(), 0);
    assert_eq!(session.received_extents().end(), 8704);
}

#[test]
fn the_test_client_that_counts_from_zero_is_served() {
    let datagram = message(Kind::Herald, 0, 0, b"");
    let (header, payload) = Header::parse(&datagram).unwrap();
    let mut session = Session::new(SessionLimits::default(), &header, payload, at(0));
    store(&mut session, Kind::Vmcore, 1, 0, &[0; 1000]);
    let ticket = finish_ticket(session.handle_datagram(at(2), &message(Kind::Finished, 0, 0, b"")));
    session.durable(at(2), ticket);
    assert_eq!(acks(&mut session), [0, 1, 0]);
}

proptest! {
    /// Arbitrary messages in arbitrary order: nothing panics, coverage is what storage took, acknowledgements are those
    /// that were due.
    #[test]
    fn coverage_is_what_storage_took(
        messages in prop::collection::vec((1u32..=6, any::<u32>(), 0u64..600, 0usize..80, any::<bool>()), 0..120),
    ) {
        let limits = SessionLimits { extents_max: 12, file_len_max: 640, ..SessionLimits::default() };
        let mut session = session_with(limits, b"");
        acks(&mut session);
        let mut model = [false; 640];
        for (kind, seqno, offset, len, stored) in messages {
            let mut datagram = message(Kind::Vmcore, seqno, offset, &vec![0; len]);
            datagram[3] = u8::try_from(kind).unwrap();
            let mut expected = vec![];
            match session.handle_datagram(at(1), &datagram) {
                Ok(Accepted::Data { ticket, offset, bytes, .. }) if stored => {
                    if session.received(ticket).is_ok() {
                        expected.push(seqno);
                        let start = usize::try_from(offset).unwrap();
                        model[start..start + bytes.len()].fill(true);
                    }
                }
                Ok(Accepted::KernelHeader { ticket, .. } | Accepted::Key { ticket, .. }) => {
                    if session.received(ticket).is_ok() {
                        expected.push(seqno);
                    }
                }
                Ok(Accepted::Herald | Accepted::Repeated) => expected = acks(&mut session),
                Ok(Accepted::Data { .. } | Accepted::Finished { .. }) | Err(_) => {}
            }
            if !expected.is_empty() && session.stats().acks > 1 {
                expected.truncate(1);
            }
            let came = acks(&mut session);
            prop_assert!(came.is_empty() || came == expected, "{:?} is not {:?}", came, expected);
        }
        for (at, set) in (0u64..).zip(model) {
            prop_assert_eq!(session.received_extents().contains(&(at..at + 1)), set);
        }
        prop_assert!(session.received_extents().len() <= 12);
    }

    #[test]
    fn no_datagram_panics(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40)) {
        let mut session = session();
        for mut datagram in datagrams {
            if let Some(kind) = datagram.get_mut(..4) {
                let low = kind[3] % 7;
                kind.copy_from_slice(&[0, 0, 0, low]);
            }
            if let Some(len) = datagram.len().checked_sub(24) {
                datagram[16..20].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
            }
            if let Ok(Accepted::Data { ticket, .. }) = session.handle_datagram(at(1), &datagram) {
                let _ = session.received(ticket);
            }
            session.handle_timeout(at(2));
        }
    }
}
