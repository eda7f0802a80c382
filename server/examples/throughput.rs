//! How fast the receiver takes a dump over loopback, as a ratio to copying a file of the same bytes on the same disk.
//!
//! `cargo run --release -p server --example throughput [MIB] [DIR]`
#![allow(clippy::unwrap_used, reason = "a measurement: a failure is to end it")]

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netdump::{Client, ClientConfig, ClientEvent, Kind, wire};
use server::{Receiver, ReceiverConfig};
use vmcore::kernel_header::KernelDumpHeader;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mib: usize = arguments.next().map_or(512, |text| text.parse().unwrap());
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("coreferry-throughput-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let bytes = noise(mib << 20);
    for round in 0..3 {
        for mtu in [1500, 9000] {
            measure(&dir, &bytes, mtu, round);
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// One copy and one dump, each up to and with its last sync.
fn measure(dir: &Path, bytes: &[u8], mtu: u16, round: u32) {
    let (from, to) = (dir.join("from"), dir.join("to"));
    std::fs::write(&from, bytes).unwrap();
    let began = Instant::now();
    std::fs::copy(&from, &to).unwrap();
    std::fs::File::open(&to).unwrap().sync_all().unwrap();
    let copied = began.elapsed();
    std::fs::remove_file(&to).unwrap();
    std::fs::remove_file(&from).unwrap();

    let store = dir.join("store");
    let mut config = ReceiverConfig::new(&store);
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    let receiver = Receiver::start(config).unwrap();
    let began = Instant::now();
    let (stats, last_byte) = send(receiver.netdump_addr(), bytes, mtu);
    let received = began.elapsed();
    let cores = receiver.wait_for_cores(1, Duration::from_secs(10)).unwrap();
    assert_eq!(cores[0].state, api::CoreState::Complete, "{cores:?}");
    receiver.stop();
    std::fs::remove_dir_all(&store).unwrap();
    let mb_per_s = |time: Duration| bytes.len() as f64 / 1e6 / time.as_secs_f64();
    println!(
        "round {round} MTU {mtu}: copy {:.0} MB/s, receiver {:.0} MB/s, ratio {:.2}; FINISHED took {:.0?}; {} packets, \
         {} sent again",
        mb_per_s(copied),
        mb_per_s(received),
        copied.as_secs_f64() / received.as_secs_f64(),
        received - last_byte,
        stats.sent_packets,
        stats.retransmitted_packets,
    );
}

/// Sends a dump; gives the time to the acknowledgement of the last data byte too.
fn send(to: SocketAddrV4, bytes: &[u8], mtu: u16) -> (netdump::ClientStats, Duration) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = ClientConfig::stock(mtu);
    let epoch = Instant::now();
    let now = || netdump::Instant::from_nanos(u64::try_from(epoch.elapsed().as_nanos()).unwrap());
    let mut client = Client::new(config, "", vec![0; config.window_bytes], now()).unwrap();
    let mut datagram = vec![0; client.datagram_len_max()];
    let header = KernelDumpHeader {
        version: 4,
        dump_len_bytes: bytes.len() as u64,
        ..KernelDumpHeader::default()
    };
    let header = header.encode();
    let mut at = 0;
    let mut header_at = 0;
    let mut last_byte = None;
    let mut ack = [0; 64];
    loop {
        at += client.push(Kind::Vmcore, at as u64, &bytes[at..]);
        if at == bytes.len() && header_at < header.len() {
            header_at += client.push(Kind::KernelHeader, header_at as u64, &header[header_at..]);
            if header_at == header.len() {
                client.finish();
            }
        }
        while let Some(transmit) = client.poll_transmit(now(), &mut datagram) {
            let port = if transmit.port == wire::HERALD_PORT {
                to.port()
            } else {
                transmit.port
            };
            socket.send_to(&datagram[..transmit.len], (*to.ip(), port)).unwrap();
        }
        if last_byte.is_none() && client.stats().acked_bytes >= bytes.len() as u64 {
            last_byte = Some(epoch.elapsed());
        }
        let wait = client
            .poll_timeout()
            .map_or(Duration::from_millis(100), |deadline| deadline.since(now()));
        socket
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))
            .unwrap();
        if let Ok((len, SocketAddr::V4(from))) = socket.recv_from(&mut ack) {
            let port = if from.port() == to.port() {
                wire::HERALD_PORT
            } else {
                from.port()
            };
            client.handle_datagram(now(), port, &ack[..len]);
        }
        client.handle_timeout(now());
        match client.poll_event() {
            Some(ClientEvent::Finished) => return (client.stats(), last_byte.unwrap_or_default()),
            Some(ClientEvent::Failed(why)) => panic!("{why}"),
            Some(ClientEvent::Connected { .. }) | None => {}
        }
    }
}

/// Bytes that do not compress and are never zero pages.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..len.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}
