//! The station's frames against known ones, byte for byte, and against smoltcp's reading of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::net::Ipv4Addr;

use netdump::{
    Accepted, Client, ClientConfig, Header, Instant, Kind, Seqno, Session, SessionLimits, Station, StationConfig,
    StationError, StationState,
    station::Role,
    time::Duration,
    wire::{CLIENT_PORT, HERALD_PORT},
};
use proptest::prelude::*;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress,
        IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
    },
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 157);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 236);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x9d];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xec];

const ARP_REQUEST: &str =
    "ffffffffffff 02000000009d 0806 0001 0800 06 04 0001 02000000009d 0a00019d 000000000000 0a0001ec";
const ARP_REPLY: &str =
    "02000000009d 0200000000ec 0806 0001 0800 06 04 0002 0200000000ec 0a0001ec 02000000009d 0a00019d";
const HERALD: &str = "0200000000ec 02000000009d 0800 4500 0034 0000 4000 ff11 6430 0a00019d 0a0001ec 4e38 4e37 0020 4bb4 \
                      00000001 00000001 0000000000000000 00000000 00000000";
const ACK: &str = "02000000009d 0200000000ec 0800 4500 0020 0000 4000 4011 2345 0a0001ec 0a00019d c000 4e38 000c da13 \
                   00000001";
const FINISHED: &str = "0200000000ec 02000000009d 0800 4500 0034 0000 4000 ff11 6430 0a00019d 0a0001ec \
                        4e38 c000 0020 d9e8 00000002 00000002 0000000000000000 00000000 00000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn config() -> StationConfig {
    StationConfig {
        mac: CLIENT_MAC,
        client: CLIENT,
        prefix_len: 24,
        gateway: None,
        server: SERVER,
        client_port: CLIENT_PORT,
        mtu: 1500,
    }
}

fn ready(config: StationConfig) -> Station {
    let mut station = Station::new(config, Instant::ZERO).unwrap();
    assert_eq!(station.handle_frame(Instant::ZERO, &bytes(ARP_REPLY)), None);
    assert_eq!(station.state(), StationState::Ready);
    station
}

fn message(kind: Kind, seqno: u32) -> [u8; 24] {
    Header {
        kind,
        seqno: Seqno(seqno),
        offset: 0,
        len: 0,
        aux2: 0,
    }
    .encode()
}

fn after_ms(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

#[test]
fn a_whole_conversation_is_byte_for_byte_that_of_a_stock_client() {
    let mut out = [0; 1514];
    let mut station = Station::new(config(), Instant::ZERO).unwrap();
    assert_eq!(
        station.encapsulate(HERALD_PORT, &[], &mut out),
        Err(StationError::NotReady)
    );
    let len = station.poll_frame(Instant::ZERO, &mut out).unwrap();
    assert_eq!(out[..len], bytes(ARP_REQUEST));
    assert_eq!(station.handle_frame(Instant::ZERO, &bytes(ARP_REPLY)), None);
    assert_eq!((station.state(), station.poll_timeout()), (StationState::Ready, None));
    let len = station
        .encapsulate(HERALD_PORT, &message(Kind::Herald, 1), &mut out)
        .unwrap();
    assert_eq!(out[..len], bytes(HERALD));
    let ack = bytes(ACK);
    let udp = station.handle_frame(Instant::ZERO, &ack).unwrap();
    assert_eq!((udp.source_port, udp.payload), (49152, [0, 0, 0, 1].as_slice()));
    let len = station
        .encapsulate(udp.source_port, &message(Kind::Finished, 2), &mut out)
        .unwrap();
    assert_eq!(out[..len], bytes(FINISHED));
}

#[test]
fn padding_of_short_frames_is_cut_off() {
    let mut padded = bytes(ACK);
    padded.resize(60, 0xee);
    assert_eq!(
        ready(config()).handle_frame(Instant::ZERO, &padded).unwrap().payload,
        [0, 0, 0, 1]
    );
    let mut padded = bytes(ARP_REPLY);
    padded.resize(60, 0xee);
    let mut station = Station::new(config(), Instant::ZERO).unwrap();
    station.handle_frame(Instant::ZERO, &padded);
    assert_eq!(station.state(), StationState::Ready);
}

#[test]
fn three_requests_a_second_apart_and_then_the_server_is_unreachable() {
    let mut station = Station::new(config(), Instant::ZERO).unwrap();
    let mut out = [0; 64];
    for second in 0..3 {
        let now = after_ms(second * 1000);
        assert_eq!(station.poll_timeout(), Some(now));
        station.handle_timeout(now);
        assert_eq!(station.poll_frame(now, &mut out), Some(42));
        assert_eq!(station.poll_frame(now, &mut out), None);
        assert_eq!(station.state(), StationState::Resolving);
    }
    station.handle_timeout(after_ms(2999));
    assert_eq!(station.state(), StationState::Resolving);
    station.handle_timeout(after_ms(3000));
    assert_eq!(
        station.state(),
        StationState::Unreachable {
            who: SERVER,
            role: Role::Server
        }
    );
    assert_eq!(station.poll_timeout(), None);
}

#[test]
fn headers_for_a_device_that_cuts_leave_what_it_completes_to_it() {
    let station = ready(config());
    let mut expected = bytes(HERALD);
    expected.truncate(42);
    for at in [16, 24, 38] {
        expected[at..at + 2].fill(0);
    }
    // 10.0.1.157, 10.0.1.236 and protocol 17, as ones' complement words.
    expected[40..42].copy_from_slice(&[0x17, 0x9a]);
    assert_eq!(station.datagram_headers(HERALD_PORT).unwrap()[..], expected);
    let unready = Station::new(config(), Instant::ZERO).unwrap();
    assert_eq!(unready.datagram_headers(HERALD_PORT), Err(StationError::NotReady));
}

#[test]
fn another_network_is_reached_through_the_gateway_at_once() {
    let gateway = Ipv4Addr::new(10, 0, 1, 1);
    let far = StationConfig {
        server: Ipv4Addr::new(192, 0, 2, 7),
        gateway: Some(gateway),
        ..config()
    };
    let mut station = Station::new(far, Instant::ZERO).unwrap();
    let mut out = [0; 1514];
    let len = station.poll_frame(Instant::ZERO, &mut out).unwrap();
    assert_eq!(out[..len][38..], gateway.octets());
    let reply = bytes(&ARP_REPLY.replace("0a0001ec", "0a000101"));
    station.handle_frame(Instant::ZERO, &reply);
    let len = station.encapsulate(HERALD_PORT, b"x", &mut out).unwrap();
    assert_eq!(
        (&out[..6], &out[30..34]),
        (SERVER_MAC.as_slice(), [192, 0, 2, 7].as_slice())
    );
    assert_eq!(len, 43);
    let unreachable = StationConfig { gateway: None, ..far };
    let expected = StationError::NoGateway {
        server: far.server,
        client: CLIENT,
        prefix_len: 24,
    };
    assert_eq!(Station::new(unreachable, Instant::ZERO).unwrap_err(), expected);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let broadcast = Ipv4Addr::BROADCAST;
    let wrong = [
        StationConfig {
            mac: [1, 0, 0, 0, 0, 1],
            ..config()
        },
        StationConfig {
            mac: [0; 6],
            ..config()
        },
        StationConfig {
            prefix_len: 33,
            ..config()
        },
        StationConfig { mtu: 575, ..config() },
        StationConfig { mtu: 9001, ..config() },
        StationConfig {
            client_port: 0,
            ..config()
        },
        StationConfig {
            server: broadcast,
            ..config()
        },
        StationConfig {
            server: CLIENT,
            ..config()
        },
        StationConfig {
            client: Ipv4Addr::UNSPECIFIED,
            ..config()
        },
        StationConfig {
            prefix_len: 32,
            ..config()
        },
        StationConfig {
            prefix_len: 32,
            gateway: Some(SERVER),
            ..config()
        },
    ];
    for config in wrong {
        assert!(Station::new(config, Instant::ZERO).is_err(), "{config:?}");
    }
    for prefix_len in 0..=24 {
        assert!(
            Station::new(StationConfig { prefix_len, ..config() }, Instant::ZERO).is_ok(),
            "/{prefix_len}"
        );
    }
}

#[test]
fn whoever_asks_for_our_address_is_answered_also_in_the_middle_of_a_dump() {
    let mut station = ready(config());
    let request =
        bytes("ffffffffffff 0200000000ec 0806 0001 0800 06 04 0001 0200000000ec 0a0001ec 000000000000 0a00019d");
    assert_eq!(station.handle_frame(Instant::ZERO, &request), None);
    let mut out = [0; 64];
    let len = station.poll_frame(Instant::ZERO, &mut out).unwrap();
    let frame = EthernetFrame::new_checked(&out[..len]).unwrap();
    assert_eq!(frame.dst_addr(), EthernetAddress(SERVER_MAC));
    let reply = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap();
    let expected = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(CLIENT_MAC),
        source_protocol_addr: CLIENT,
        target_hardware_addr: EthernetAddress(SERVER_MAC),
        target_protocol_addr: SERVER,
    };
    assert_eq!(reply, expected);
    assert_eq!(station.poll_frame(Instant::ZERO, &mut out), None);
    let for_another =
        bytes("ffffffffffff 0200000000ec 0806 0001 0800 06 04 0001 0200000000ec 0a0001ec 000000000000 0a000101");
    station.handle_frame(Instant::ZERO, &for_another);
    assert_eq!(station.poll_frame(Instant::ZERO, &mut out), None);
}

#[test]
fn the_first_answer_wins_and_a_later_one_diverts_nothing() {
    let mut station = ready(config());
    station.handle_frame(
        Instant::ZERO,
        &bytes(&ARP_REPLY.replace("0200000000ec", "02000000beef")),
    );
    let mut out = [0; 128];
    let len = station
        .encapsulate(HERALD_PORT, &message(Kind::Herald, 1), &mut out)
        .unwrap();
    assert_eq!(out[..len], bytes(HERALD));
}

#[test]
fn a_payload_beyond_the_mtu_or_the_buffer_is_refused() {
    let station = ready(config());
    let mut out = vec![0; 2000];
    assert_eq!(
        station.encapsulate(1, &[0; 1472], &mut out),
        Ok(station.frame_len_max())
    );
    let too_long = StationError::TooLong {
        payload_len: 1473,
        payload_len_max: 1472,
    };
    assert_eq!(station.encapsulate(1, &[0; 1473], &mut out), Err(too_long));
    assert!(station.encapsulate(1, &[0; 70_000], &mut out).is_err());
    assert!(station.encapsulate(1, &[0; 20], &mut out[..61]).is_err());
    assert!(station.encapsulate(1, &[0; 20], &mut out[..62]).is_ok());
    assert!(station.encapsulate(1, &[0; 1], &mut out[..3]).is_err());
}

/// What a frame of the server may have wrong.
#[derive(Clone, Copy, Debug)]
struct Frame {
    to: [u8; 6],
    ethertype: u16,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    port: u16,
    protocol: IpProtocol,
}

const RIGHT: Frame = Frame {
    to: CLIENT_MAC,
    ethertype: 0x0800,
    source: SERVER,
    destination: CLIENT,
    port: CLIENT_PORT,
    protocol: IpProtocol::Udp,
};

/// A frame as smoltcp makes it.
fn frame(wanted: Frame, payload: &[u8]) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let udp = UdpRepr {
        src_port: 49152,
        dst_port: wanted.port,
    };
    let ip = Ipv4Repr {
        src_addr: wanted.source,
        dst_addr: wanted.destination,
        next_header: wanted.protocol,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 14 + ip.buffer_len() + ip.payload_len];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    EthernetRepr {
        src_addr: EthernetAddress(SERVER_MAC),
        dst_addr: EthernetAddress(wanted.to),
        ethertype: EthernetProtocol::from(wanted.ethertype),
    }
    .emit(&mut ethernet);
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet, &checksums);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    let (from, to) = (IpAddress::Ipv4(wanted.source), IpAddress::Ipv4(wanted.destination));
    udp.emit(
        &mut datagram,
        &from,
        &to,
        payload.len(),
        |room| room.copy_from_slice(payload),
        &checksums,
    );
    frame
}

#[test]
fn only_what_the_server_sends_to_our_port_is_taken() {
    let mut station = ready(config());
    let right = frame(RIGHT, b"1234");
    assert_eq!(station.handle_frame(Instant::ZERO, &right).unwrap().payload, b"1234");
    let other = Ipv4Addr::new(10, 0, 1, 9);
    let wrong = [
        Frame { to: [0xff; 6], ..RIGHT },
        Frame {
            to: SERVER_MAC,
            ..RIGHT
        },
        Frame {
            ethertype: 0x8100,
            ..RIGHT
        },
        Frame {
            ethertype: 0x86dd,
            ..RIGHT
        },
        Frame { source: other, ..RIGHT },
        Frame {
            destination: other,
            ..RIGHT
        },
        Frame {
            port: CLIENT_PORT + 1,
            ..RIGHT
        },
        Frame {
            protocol: IpProtocol::Tcp,
            ..RIGHT
        },
    ];
    for wanted in wrong {
        assert_eq!(
            station.handle_frame(Instant::ZERO, &frame(wanted, b"1234")),
            None,
            "{wanted:?}"
        );
    }
}

/// Changes bytes of the IPv4 header and makes its checksum right again.
fn with_ip(mut frame: Vec<u8>, change: impl Fn(&mut Ipv4Packet<&mut [u8]>)) -> Vec<u8> {
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    change(&mut packet);
    packet.fill_checksum();
    frame
}

#[test]
fn fragments_and_wrong_lengths_are_not_taken() {
    let mut station = ready(config());
    let right = frame(RIGHT, b"12345678");
    assert!(
        station
            .handle_frame(Instant::ZERO, &with_ip(right.clone(), |_| ()))
            .is_some()
    );
    let wrong = [
        with_ip(right.clone(), |ip| ip.set_more_frags(true)),
        with_ip(right.clone(), |ip| ip.set_frag_offset(8)),
        with_ip(right.clone(), |ip| ip.set_version(6)),
        with_ip(right.clone(), |ip| ip.set_total_len(37)),
        with_ip(right.clone(), |ip| ip.set_total_len(35)),
        with_ip(right.clone(), |ip| ip.set_total_len(27)),
        with_ip(right.clone(), |ip| ip.set_total_len(19)),
    ];
    for (index, frame) in wrong.iter().enumerate() {
        assert_eq!(station.handle_frame(Instant::ZERO, frame), None, "number {index}");
    }
    let mut with_option = right.clone();
    with_option.splice(34..34, [1, 1, 1, 0]);
    with_option[14] = 0x46;
    let with_option = with_ip(with_option, |ip| ip.set_total_len(40));
    assert_eq!(station.handle_frame(Instant::ZERO, &with_option), None);
    let mut no_checksum = right.clone();
    no_checksum[40..42].fill(0);
    assert!(station.handle_frame(Instant::ZERO, &no_checksum).is_some());
}

proptest! {
    #[test]
    fn smoltcp_reads_what_the_station_sends(payload in prop::collection::vec(any::<u8>(), 0..1473), port in 1u16..) {
        let station = ready(config());
        let mut out = vec![0; station.frame_len_max()];
        let len = station.encapsulate(port, &payload, &mut out).unwrap();
        let frame = EthernetFrame::new_checked(&out[..len]).unwrap();
        prop_assert_eq!(frame.dst_addr(), EthernetAddress(SERVER_MAC));
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        prop_assert!(packet.verify_checksum() && packet.dont_frag() && !packet.more_frags());
        prop_assert_eq!((packet.hop_limit(), packet.ident(), packet.header_len()), (255, 0, 20));
        prop_assert_eq!((packet.src_addr(), packet.dst_addr()), (CLIENT, SERVER));
        let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
        prop_assert!(datagram.checksum() != 0);
        prop_assert!(datagram.verify_checksum(&IpAddress::Ipv4(CLIENT), &IpAddress::Ipv4(SERVER)));
        prop_assert_eq!((datagram.src_port(), datagram.dst_port()), (CLIENT_PORT, port));
        prop_assert_eq!(datagram.payload(), payload.as_slice());
    }

    #[test]
    fn the_station_reads_what_smoltcp_sends(payload in prop::collection::vec(any::<u8>(), 0..1473)) {
        let frame = frame(RIGHT, &payload);
        let mut station = ready(config());
        let udp = station.handle_frame(Instant::ZERO, &frame).unwrap();
        prop_assert_eq!((udp.source_port, udp.payload), (49152, payload.as_slice()));
    }

    #[test]
    fn a_flipped_bit_behind_the_ethernet_header_is_always_noticed(at in 14usize..50, bit in 0u32..8) {
        let right = frame(RIGHT, b"12345678");
        let mut wrong = right.clone();
        wrong[at] ^= 1 << bit;
        // A checksum that becomes zero would mean none; one bit cannot do that here.
        prop_assert!(wrong[40..42] != [0, 0]);
        prop_assert_eq!(ready(config()).handle_frame(Instant::ZERO, &wrong), None);
    }

    #[test]
    fn no_frame_panics(start in 0usize..3, cut in 0usize..80, noise: Vec<u8>) {
        let mut frame = [bytes(ARP_REPLY), frame(RIGHT, &noise), noise.clone()][start].clone();
        frame.truncate(cut);
        let mut station = Station::new(config(), Instant::ZERO).unwrap();
        let _ = station.handle_frame(Instant::ZERO, &frame);
        let mut out = vec![0; noise.len()];
        let _ = station.poll_frame(Instant::ZERO, &mut out);
    }
}

/// A dump from client to session with nothing between them but Ethernet frames; the receiver's side is smoltcp's reading
/// and writing of them.
#[test]
fn a_dump_arrives_through_frames() {
    let client_config = ClientConfig::stock(1500);
    let mut client = Client::new(client_config, "", vec![0; client_config.window_bytes], Instant::ZERO).unwrap();
    let mut station = ready(config());
    let mut session: Option<Session> = None;
    let mut file = vec![0; 1 << 20];
    let memory: Vec<u8> = (0..1u32 << 20)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
        .collect();
    let (mut payload, mut out, mut pushed) = ([0; 1472], [0; 1514], 0);
    while !client.is_over() {
        pushed += client.push(Kind::Vmcore, pushed as u64, &memory[pushed..]);
        if pushed == memory.len() {
            client.finish();
        }
        while let Some(datagram) = client.poll_transmit(Instant::ZERO, &mut payload) {
            let len = station
                .encapsulate(datagram.port, &payload[..datagram.len], &mut out)
                .unwrap();
            let ethernet = EthernetFrame::new_checked(&out[..len]).unwrap();
            let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            let udp = UdpPacket::new_checked(ip.payload()).unwrap();
            assert_eq!(udp.dst_port(), if session.is_some() { 49152 } else { HERALD_PORT });
            match &mut session {
                None => {
                    let (header, path) = Header::parse(udp.payload()).unwrap();
                    session = Some(Session::new(SessionLimits::default(), &header, path, Instant::ZERO));
                }
                Some(session) => match session.handle_datagram(Instant::ZERO, udp.payload()).unwrap() {
                    Accepted::Data {
                        offset, bytes, ticket, ..
                    } => {
                        let offset = usize::try_from(offset).unwrap();
                        file[offset..offset + bytes.len()].copy_from_slice(bytes);
                        session.received(ticket).unwrap();
                    }
                    Accepted::Finished { ticket } => session.durable(Instant::ZERO, ticket),
                    other => panic!("{other:?}"),
                },
            }
        }
        let mut ack = [0; 4];
        while session.as_mut().unwrap().poll_ack(&mut ack).is_some() {
            let frame = frame(RIGHT, &ack);
            let udp = station.handle_frame(Instant::ZERO, &frame).unwrap();
            client.handle_datagram(Instant::ZERO, udp.source_port, udp.payload);
        }
    }
    assert!(file == memory);
}
