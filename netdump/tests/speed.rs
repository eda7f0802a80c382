//! Packets a second through client and session without a network between them:
//! `cargo test --release -p netdump --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::time::Duration;

use netdump::{Accepted, Client, ClientConfig, ClientEvent, Header, Instant, Kind, Session, SessionLimits};

const PORT: u16 = 49152;

/// Sends `pages` pages, of which each run of `run` is followed by a hole as long, and returns the packets and how long
/// it took.
fn send(mtu: u16, pages: u64, run: u64) -> (u64, Duration) {
    let config = ClientConfig::stock(mtu);
    let now = Instant::ZERO;
    let mut client = Client::new(config, "", vec![0; config.window_bytes], now).unwrap();
    let mut session: Option<Session> = None;
    let data = vec![0x5a; 65536];
    let mut out = vec![0; client.datagram_len_max()];
    let start = std::time::Instant::now();
    let (mut page, mut done) = (0, 0_usize);
    loop {
        while client.capacity() > 0 && page < pages {
            let run_bytes = usize::try_from(run.min(16).min(pages - page)).unwrap() * 4096;
            let taken = client.push(
                Kind::Vmcore,
                (page + page / run * run) * 4096 + done as u64,
                &data[done..run_bytes],
            );
            done += taken;
            if done == run_bytes {
                page += run.min(16);
                done = 0;
            }
        }
        if page >= pages {
            client.finish();
        }
        while let Some(datagram) = client.poll_transmit(now, &mut out) {
            let datagram = &out[..datagram.len];
            let Some(session) = &mut session else {
                let (header, payload) = Header::parse(datagram).unwrap();
                session = Some(Session::new(SessionLimits::default(), &header, payload, now));
                continue;
            };
            match session.handle_datagram(now, datagram).unwrap() {
                Accepted::Data { ticket, .. } => session.received(ticket).unwrap(),
                Accepted::Finished { ticket } => session.durable(now, ticket),
                _ => {}
            }
        }
        let mut ack = [0; 4];
        while session.as_mut().unwrap().poll_ack(&mut ack).is_some() {
            client.handle_datagram(now, PORT, &ack);
        }
        client.handle_timeout(now);
        while let Some(event) = client.poll_event() {
            if event == ClientEvent::Finished {
                let covered = session.unwrap().received_extents().covered_bytes();
                assert_eq!(covered, client.stats().acked_bytes);
                return (client.stats().sent_packets, start.elapsed());
            }
        }
    }
}

#[test]
#[ignore = "measures; to be run in a release build"]
fn packets_a_second() {
    for (what, mtu, pages, run) in [
        ("runs of 16 pages, MTU 1500", 1500, 1 << 18, 16),
        ("runs of 16 pages, MTU 9000", 9000, 1 << 18, 16),
        ("every second page, MTU 1500", 1500, 1 << 18, 1),
    ] {
        let (packets, took) = send(mtu, pages, run);
        let seconds = took.as_secs_f64();
        let packets = f64::from(u32::try_from(packets).unwrap());
        let bytes = f64::from(u32::try_from(pages * 4096).unwrap());
        println!(
            "{what}: {:.2} million packets/s, {:.2} GB/s",
            packets / seconds / 1e6,
            bytes / seconds / 1e9
        );
    }
}
