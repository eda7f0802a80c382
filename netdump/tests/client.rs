//! The client, message by message.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use netdump::{
    Client, ClientConfig, ClientError, ClientEvent, Header, Instant, Kind, Seqno,
    client::ClientConfigError,
    time::Duration,
    wire::{self, HEADER_LEN, HERALD_PORT},
};
use proptest::prelude::*;

const PORT: u16 = 49152;

const fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn client(config: ClientConfig, path: &str) -> Client<Vec<u8>> {
    Client::new(config, path, vec![0; config.window_bytes], at(0)).unwrap()
}

fn connected(config: ClientConfig) -> Client<Vec<u8>> {
    let mut client = client(config, "");
    assert_eq!(transmit(&mut client, at(0)).len(), 1);
    ack(&mut client, at(1), 1);
    assert_eq!(client.poll_event(), Some(ClientEvent::Connected { port: PORT }));
    client
}

fn ack(client: &mut Client<Vec<u8>>, now: Instant, seqno: u32) {
    client.handle_datagram(now, PORT, &wire::encode_ack(Seqno(seqno)));
}

/// Everything that goes out now: port, header, payload.
fn transmit(client: &mut Client<Vec<u8>>, now: Instant) -> Vec<(u16, Header, Vec<u8>)> {
    let mut out = vec![0; client.datagram_len_max()];
    let mut sent = Vec::new();
    while let Some(datagram) = client.poll_transmit(now, &mut out) {
        let (header, payload) = Header::parse(&out[..datagram.len]).unwrap();
        sent.push((datagram.port, header, payload.to_vec()));
    }
    sent
}

fn seqnos(sent: &[(u16, Header, Vec<u8>)]) -> Vec<u32> {
    sent.iter().map(|(_, header, _)| header.seqno.0).collect()
}

#[test]
fn a_stock_configuration_fits_every_mtu() {
    let payloads = [
        (576, 524),
        (1076, 1024),
        (1500, 1448),
        (4148, 4096),
        (9000, 4096),
        (68, 524),
        (u16::MAX, 4096),
    ];
    for (mtu, payload_len_max) in payloads {
        let config = ClientConfig::stock(mtu);
        assert_eq!(config.payload_len_max, payload_len_max, "MTU {mtu}");
        let mut client = connected(config);
        let data = vec![9; 100_000];
        let pushed = client.push(Kind::Vmcore, 0, &data);
        let sent = transmit(&mut client, at(1));
        assert!(
            pushed <= 65536 && sent.len() <= 64,
            "MTU {mtu}: {pushed} bytes in {} packets",
            sent.len()
        );
        assert!(
            pushed + payload_len_max > 65536 || sent.len() == 64,
            "MTU {mtu}: {pushed} bytes"
        );
        assert!(
            sent.iter()
                .all(|(port, header, _)| *port == PORT && header.kind == Kind::Vmcore)
        );
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let stock = ClientConfig::stock(1500);
    let try_new = |config, path: &str, buffer_len| {
        Client::new(config, path, vec![0; buffer_len], at(0))
            .map(|_| ())
            .unwrap_err()
    };
    for payload_len_max in [0, 4097] {
        let config = ClientConfig {
            payload_len_max,
            ..stock
        };
        assert_eq!(
            try_new(config, "", 65536),
            ClientConfigError::Payload { payload_len_max }
        );
    }
    for window_packets in [0, 65] {
        let config = ClientConfig {
            window_packets,
            ..stock
        };
        assert_eq!(
            try_new(config, "", 65536),
            ClientConfigError::WindowPackets { window_packets }
        );
    }
    for window_bytes in [1447, 65537] {
        let config = ClientConfig { window_bytes, ..stock };
        assert_eq!(
            try_new(config, "", 70_000),
            ClientConfigError::WindowBytes {
                window_bytes,
                payload_len_max: 1448
            }
        );
    }
    let short = ClientConfigError::Buffer {
        buffer_len: 65535,
        window_bytes: 65536,
    };
    assert_eq!(try_new(stock, "", 65535), short);
    let config = ClientConfig {
        rto_min: Duration::from_secs(9),
        ..stock
    };
    assert_eq!(try_new(config, "", 65536), ClientConfigError::Timeouts);
    let path = ClientConfigError::Path {
        len_bytes: 1024,
        path_len_max: 1023,
    };
    assert_eq!(try_new(stock, &"p".repeat(1024), 65536), path);
    let path = ClientConfigError::Path {
        len_bytes: 3,
        path_len_max: 1023,
    };
    assert_eq!(try_new(stock, "a\0b", 65536), path);
    let path = ClientConfigError::Path {
        len_bytes: 524,
        path_len_max: 523,
    };
    assert_eq!(try_new(ClientConfig::stock(576), &"p".repeat(524), 65536), path);
}

#[test]
fn the_herald_goes_to_its_port_again_and_again_until_somebody_answers() {
    let mut client = client(ClientConfig::stock(1500), "rack1");
    assert_eq!((client.capacity(), client.push(Kind::Vmcore, 0, b"early")), (0, 0));
    let expected = Header {
        kind: Kind::Herald,
        seqno: Seqno(1),
        offset: 0,
        len: 6,
        aux2: wire::WINDOW_MARK,
    };
    let first = transmit(&mut client, at(0));
    assert_eq!(first, [(HERALD_PORT, expected, b"rack1\0".to_vec())]);
    let mut heralds = 1;
    while let Some(deadline) = client.poll_timeout().filter(|deadline| *deadline < at(14_999)) {
        client.handle_timeout(deadline);
        let again = transmit(&mut client, deadline);
        assert!(again.is_empty() || again == first, "{again:?}");
        heralds += again.len();
    }
    assert!((15..25).contains(&heralds), "{heralds} heralds");
    client.handle_timeout(at(15_000));
    let error = ClientError::NoAnswer {
        waited: Duration::from_secs(15),
    };
    assert_eq!(client.poll_event(), Some(ClientEvent::Failed(error)));
    assert_eq!(
        (
            client.poll_event(),
            client.poll_timeout(),
            transmit(&mut client, at(15_000)).len()
        ),
        (None, None, 0)
    );
    assert!(client.is_over());
}

#[test]
fn only_four_bytes_from_the_learned_port_about_something_sent_count() {
    let mut client = client(ClientConfig::stock(1500), "");
    client.handle_datagram(at(0), PORT, &[0, 0, 0, 1]);
    assert_eq!(client.poll_event(), None, "the HERALD was not sent yet");
    transmit(&mut client, at(0));
    for wrong in [
        &[0, 0, 0, 1, 0][..],
        &[0, 0, 1],
        &[],
        &[0, 0, 0, 0],
        &[0, 0, 0, 2],
        &[0xff; 4],
    ] {
        client.handle_datagram(at(0), PORT, wrong);
    }
    assert_eq!((client.poll_event(), client.stats().ignored_datagrams), (None, 7));
    ack(&mut client, at(0), 1);
    assert_eq!(client.poll_event(), Some(ClientEvent::Connected { port: PORT }));
    client.push(Kind::Vmcore, 0, &[1; 100]);
    transmit(&mut client, at(0));
    client.handle_datagram(at(0), PORT + 1, &[0, 0, 0, 2]);
    assert!(!client.is_idle());
    ack(&mut client, at(0), 1);
    assert!(!client.is_idle());
    ack(&mut client, at(0), 2);
    assert!(client.is_idle());
    assert_eq!((client.stats().repeated_acks, client.stats().ignored_datagrams), (1, 8));
}

#[test]
fn finished_goes_out_after_the_last_acknowledgement_and_not_before() {
    let mut client = connected(ClientConfig::stock(1500));
    client.push(Kind::Vmcore, 0, &[1; 4096]);
    client.push(Kind::KernelHeader, 0, &[2; 512]);
    client.finish();
    assert_eq!((client.capacity(), client.push(Kind::Vmcore, 9, &[1])), (0, 0));
    assert_eq!(seqnos(&transmit(&mut client, at(1))), [2, 3, 4, 5]);
    for seqno in [4, 2, 5] {
        ack(&mut client, at(2), seqno);
        assert!(transmit(&mut client, at(2)).is_empty());
    }
    ack(&mut client, at(2), 3);
    let finished = Header {
        kind: Kind::Finished,
        seqno: Seqno(6),
        offset: 0,
        len: 0,
        aux2: 0,
    };
    assert_eq!(transmit(&mut client, at(2)), [(PORT, finished, vec![])]);
    assert_eq!((client.poll_event(), client.is_over()), (None, false));
    ack(&mut client, at(900), 6);
    assert_eq!(
        (client.poll_event(), client.is_over()),
        (Some(ClientEvent::Finished), true)
    );
    let stats = client.stats();
    assert_eq!(
        (stats.pushed_bytes, stats.acked_bytes, stats.acked_packets),
        (4608, 4608, 6)
    );
}

#[test]
fn a_dump_that_was_finished_before_anybody_answered_ends_all_the_same() {
    let mut client = client(ClientConfig::stock(1500), "");
    client.finish();
    assert_eq!(seqnos(&transmit(&mut client, at(0))), [1]);
    ack(&mut client, at(1), 1);
    assert_eq!(seqnos(&transmit(&mut client, at(1))), [2]);
    ack(&mut client, at(2), 2);
    assert_eq!(client.poll_event(), Some(ClientEvent::Connected { port: PORT }));
    assert_eq!(client.poll_event(), Some(ClientEvent::Finished));
}

#[test]
fn the_acknowledgement_of_the_third_packet_behind_shows_a_loss_at_once() {
    let mut client = connected(ClientConfig::stock(1500));
    client.push(Kind::Vmcore, 1 << 40, &[1; 14480]);
    let sent = transmit(&mut client, at(1));
    assert_eq!(sent.len(), 10);
    for seqno in [3, 4] {
        ack(&mut client, at(2), seqno);
        assert!(transmit(&mut client, at(2)).is_empty());
    }
    ack(&mut client, at(2), 5);
    assert_eq!(transmit(&mut client, at(2)), [sent[0].clone()]);
    // Only that one, and only once.
    ack(&mut client, at(2), 6);
    assert!(transmit(&mut client, at(2)).is_empty());
    assert_eq!(client.stats().overtaken_packets, 1);
}

#[test]
fn a_loss_that_was_none_makes_the_client_wait_for_more_evidence() {
    let mut client = connected(ClientConfig::stock(1500));
    client.push(Kind::Vmcore, 0, &[1; 28960]);
    transmit(&mut client, at(1));
    for seqno in [3, 4, 5] {
        ack(&mut client, at(2), seqno);
    }
    assert_eq!(seqnos(&transmit(&mut client, at(2))), [2]);
    ack(&mut client, at(2), 2);
    ack(&mut client, at(3), 2);
    for seqno in [7, 8, 9, 10, 11] {
        ack(&mut client, at(3), seqno);
        assert!(transmit(&mut client, at(3)).is_empty(), "after {seqno}");
    }
    ack(&mut client, at(3), 12);
    assert_eq!(seqnos(&transmit(&mut client, at(3))), [6]);
}

#[test]
fn silence_in_the_middle_of_a_dump_ends_it_after_twelve_seconds() {
    let mut client = connected(ClientConfig::stock(1500));
    client.push(Kind::Vmcore, 4096, &[1; 2896]);
    // An idle client waits for its caller for as long as that takes.
    let start = 60_000;
    transmit(&mut client, at(start));
    ack(&mut client, at(start + 1), 3);
    let mut transmissions = 0;
    let mut now = at(start);
    while let Some(deadline) = client.poll_timeout() {
        assert!(deadline >= now);
        now = deadline;
        client.handle_timeout(now);
        let sent = transmit(&mut client, now);
        assert!(
            sent.iter()
                .all(|(_, header, _)| header.seqno == Seqno(2) && header.offset == 4096)
        );
        transmissions += sent.len();
    }
    assert!((12..20).contains(&transmissions), "{transmissions} transmissions");
    assert_eq!(now, at(start + 12_001));
    let waited = Duration::from_secs(12);
    let error = ClientError::Silent {
        waited,
        unacknowledged_packets: 1,
        oldest_offset: 4096,
    };
    assert_eq!(client.poll_event(), Some(ClientEvent::Failed(error)));
}

#[test]
fn finished_may_take_longer_and_its_failure_has_a_name() {
    let mut client = connected(ClientConfig::stock(1500));
    client.finish();
    transmit(&mut client, at(10));
    let mut now = at(10);
    while let Some(deadline) = client.poll_timeout() {
        now = deadline;
        client.handle_timeout(now);
        transmit(&mut client, now);
    }
    assert_eq!(now, at(30_010));
    let error = ClientError::Unfinished {
        waited: Duration::from_secs(30),
    };
    assert_eq!(client.poll_event(), Some(ClientEvent::Failed(error)));
    assert_eq!(
        error.to_string(),
        "all data acknowledged, but not FINISHED within 30.0s"
    );
}

#[test]
fn a_buffer_that_is_too_short_loses_nothing() {
    let mut client = connected(ClientConfig::stock(1500));
    client.push(Kind::Vmcore, 0, &[1; 1448]);
    assert_eq!(client.poll_transmit(at(1), &mut [0; 100]), None);
    assert_eq!(seqnos(&transmit(&mut client, at(1))), [2]);
}

#[test]
fn control_messages_cannot_be_pushed() {
    let mut client = connected(ClientConfig::stock(1500));
    assert_eq!(
        client.push(Kind::Herald, 0, &[1]) + client.push(Kind::Finished, 0, &[1]),
        0
    );
    assert!(client.is_idle());
}

proptest! {
    /// Whatever is acknowledged in whatever order: the window holds, what is sent again is what was sent before, and
    /// everything arrives.
    #[test]
    fn the_window_holds_and_retransmissions_repeat(
        steps in prop::collection::vec((0u8..4, any::<u32>(), 1usize..9000), 1..60),
        mtu in prop::sample::select(vec![576u16, 1076, 1500, 4148, 9000]),
    ) {
        let mut client = connected(ClientConfig::stock(mtu));
        let mut messages = std::collections::BTreeMap::new();
        let mut unacknowledged = std::collections::BTreeSet::new();
        let (mut now, mut offset) = (2, 0);
        for (step, choice, len) in steps {
            match step {
                0 => {
                    let bytes: Vec<u8> = (offset..).take(len).map(|at: u64| at.to_le_bytes()[0]).collect();
                    offset += client.push(Kind::Vmcore, offset, &bytes) as u64;
                }
                1 | 2 if !unacknowledged.is_empty() => {
                    let index = usize::try_from(choice).unwrap() % unacknowledged.len();
                    let seqno = *unacknowledged.iter().nth(index).unwrap();
                    ack(&mut client, at(now), seqno);
                    unacknowledged.remove(&seqno);
                }
                _ => {
                    now += u64::from(choice % 100);
                    client.handle_timeout(at(now));
                }
            }
            for (_, header, payload) in transmit(&mut client, at(now)) {
                let Header { seqno, offset, .. } = header;
                let expected: Vec<u8> = (offset..).take(payload.len()).map(|at| at.to_le_bytes()[0]).collect();
                prop_assert_eq!(&payload, &expected);
                let message = (offset, payload.len());
                prop_assert_eq!(*messages.entry(seqno.0).or_insert(message), message);
                unacknowledged.insert(seqno.0);
            }
            let bytes: usize = unacknowledged.iter().map(|seqno| messages[seqno].1).sum();
            prop_assert!(unacknowledged.len() <= 64 && bytes <= 65536);
            prop_assert!(u64::from(client.in_flight()) <= 64);
        }
        for seqno in unacknowledged.clone() {
            ack(&mut client, at(now), seqno);
        }
        while !transmit(&mut client, at(now)).is_empty() {}
        let sent: usize = messages.values().map(|(_, len)| len).sum();
        prop_assert!(sent as u64 <= offset);
    }

    #[test]
    fn no_datagram_panics(datagrams in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..8)), 0..40)) {
        let mut client = connected(ClientConfig::stock(1500));
        client.push(Kind::Vmcore, u64::MAX - 10, &[1; 60_000]);
        transmit(&mut client, at(1));
        for (port, datagram) in datagrams {
            client.handle_datagram(at(2), port, &datagram);
            transmit(&mut client, at(2));
        }
    }
}

#[test]
fn a_datagram_is_its_header_and_its_data() {
    assert_eq!(ClientConfig::stock(1500).datagram_len_max(), HEADER_LEN + 1448);
}
