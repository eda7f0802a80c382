use std::net::UdpSocket;
use std::time::Instant;

use nic_emu::device::Offload;

use super::*;

const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 9];
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 20024);

fn wire() -> UserWire {
    UserWire::open(UserConfig::default()).unwrap()
}

fn receiver() -> (UdpSocket, SocketAddrV4) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn send_all(wire: &mut UserWire, client: SocketAddrV4, to: SocketAddrV4, payloads: &[Vec<u8>]) {
    let frames: Vec<_> = payloads
        .iter()
        .map(|payload| {
            let mut frame = Vec::new();
            assert!(frame::udp_frame(
                (CLIENT_MAC, WIRE_MAC),
                client,
                to,
                payload,
                &mut frame
            ));
            frame
        })
        .collect();
    let frames: Vec<_> = frames
        .iter()
        .map(|bytes| TxFrame {
            bytes,
            offload: Offload::default(),
        })
        .collect();
    wire.send(&frames);
}

fn receive_until(wire: &mut UserWire, mut done: impl FnMut(&UserWire, &[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    while !done(wire, &frames) {
        assert!(Instant::now() < end, "nothing more came: {frames:?} {wire:?}");
        wire.wait(Duration::from_millis(100)).unwrap();
        wire.receive(&mut |frame| frames.push(frame.to_vec())).unwrap();
    }
    frames
}

/// An ARP request as the station of the dump port sends it.
fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::arp_reply(CLIENT_MAC, sender, BROADCAST, target, &mut frame);
    frame[21] = 1; // operation: request
    frame
}

#[test]
fn every_address_but_the_clients_own_answers_arp() {
    let mut wire = wire();
    let client = *CLIENT.ip();
    for (sender, target, answered) in [
        (client, Ipv4Addr::new(10, 0, 2, 2), true),
        (client, Ipv4Addr::new(10, 0, 2, 200), true),
        (client, client, false),
        (Ipv4Addr::UNSPECIFIED, client, false),
    ] {
        let request = arp_request(sender, target);
        wire.send(&[TxFrame {
            bytes: &request,
            offload: Offload::default(),
        }]);
        let mut replies = Vec::new();
        wire.receive(&mut |frame| replies.push(frame.to_vec())).unwrap();
        assert_eq!(replies.len(), usize::from(answered), "{sender} asks for {target}");
        if let Some(reply) = replies.first() {
            assert_eq!(reply[..6], CLIENT_MAC);
            assert_eq!(reply[22..28], WIRE_MAC);
            assert_eq!(reply[28..32], target.octets());
        }
    }
}

#[test]
fn datagrams_arrive_whole_and_in_order_and_answers_from_any_port_come_back() {
    let mut wire = wire();
    let (receiver, to) = receiver();
    // Trains of equal length, a short last one, an empty one, and a longer one behind it.
    let lengths = [1448, 1448, 1448, 376, 0, 24, 1448, 4120];
    let payloads: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(i, len)| vec![i as u8; *len]).collect();
    send_all(&mut wire, CLIENT, to, &payloads);
    let mut buffer = [0; 9000];
    let mut client_address = None;
    for payload in &payloads {
        let (len, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..len], payload[..]);
        assert_eq!(*client_address.get_or_insert(from), from, "one flow has one address");
    }
    // The acknowledgement comes from another port, as a receiver's session socket does.
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    other.send_to(&[1, 2, 3, 4], client_address.unwrap()).unwrap();
    let frames = receive_until(&mut wire, |_, frames| !frames.is_empty());
    let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, other.local_addr().unwrap().port());
    let parsed = frame::parse(&frames[0], false).unwrap();
    assert_eq!(parsed.destination, CLIENT_MAC);
    assert_eq!(
        parsed.content,
        Content::Udp {
            from,
            to: CLIENT,
            payload: &[1, 2, 3, 4]
        }
    );
}

#[test]
fn the_clients_port_is_used_when_free_and_another_when_not() {
    let (_receiver, to) = receiver();
    // Some free port plays 20024, which other tests of this machine may want.
    let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = probe.local_addr().unwrap().port();
    let client = SocketAddrV4::new(*CLIENT.ip(), port);
    let mut taken = wire();
    send_all(&mut taken, client, to, &[vec![1]]);
    assert_ne!(taken.bound_addresses()[0].port(), port);
    drop(probe);
    let mut free = wire();
    send_all(&mut free, client, to, &[vec![1]]);
    assert_eq!(free.bound_addresses(), [SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)]);
}

#[test]
fn a_guest_takes_no_port_that_others_of_this_host_may_need() {
    let (guest, dump_port) = (UserConfig::guest(), UserConfig::default());
    for port in [53, 123, 1023, 20023, 20024] {
        assert_eq!((guest.host_port(port), dump_port.host_port(port)), (0, port));
    }
    for port in [1024, 20022, 20025, 40_000] {
        assert_eq!(guest.host_port(port), port);
    }
    let config = UserConfig {
        allow_loopback: true,
        ..guest
    };
    let mut wire = UserWire::open(config).unwrap();
    let (receiver, to) = receiver();
    send_all(&mut wire, CLIENT, to, &[vec![1]]);
    let (_, from) = receiver.recv_from(&mut [0; 10]).unwrap();
    assert_ne!(from.port(), CLIENT.port());
    // Answers come to the guest's own port all the same.
    receiver.send_to(&[5], from).unwrap();
    let frames = receive_until(&mut wire, |_, frames| !frames.is_empty());
    let parsed = frame::parse(&frames[0], false).unwrap();
    assert_eq!(
        parsed.content,
        Content::Udp {
            from: to,
            to: CLIENT,
            payload: &[5]
        }
    );
}

#[test]
fn a_port_without_a_listener_is_named_until_it_answers() {
    let mut wire = wire();
    let (receiver, to) = receiver();
    drop(receiver);
    send_all(&mut wire, CLIENT, to, &[vec![1; 24]]);
    receive_until(&mut wire, |wire, _| wire.hint().is_some());
    assert_eq!(wire.hint().unwrap(), format!("nothing listens on {to}"));
    // The error is gone from the socket: waiting does not spin, and the next datagram leaves.
    let start = Instant::now();
    wire.wait(Duration::from_millis(50)).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
    let receiver = UdpSocket::bind(to).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    send_all(&mut wire, CLIENT, to, &[vec![7; 24]]);
    let (len, from) = receiver.recv_from(&mut [0; 100]).unwrap();
    assert_eq!(len, 24);
    receiver.send_to(&[0; 4], from).unwrap();
    receive_until(&mut wire, |_, frames| !frames.is_empty());
    assert_eq!(wire.hint(), None);
}

#[test]
fn the_hosts_loopback_can_be_closed_to_a_guest() {
    let mut wire = UserWire::open(UserConfig::guest()).unwrap();
    let (receiver, to) = receiver();
    receiver.set_nonblocking(true).unwrap();
    send_all(&mut wire, CLIENT, to, &[vec![1]]);
    assert!(receiver.recv_from(&mut [0; 10]).is_err());
    assert_eq!(wire.hint().unwrap(), "this wire does not reach 127.0.0.1 of the host");
    assert!(wire.bound_addresses().is_empty());
}

#[test]
fn many_ports_of_a_client_cost_a_bounded_number_of_sockets() {
    let mut wire = wire();
    let (_receiver, to) = receiver();
    for port in 30_000..30_000 + USER_FLOWS_MAX as u16 + 20 {
        send_all(&mut wire, SocketAddrV4::new(*CLIENT.ip(), port), to, &[vec![1]]);
    }
    assert_eq!(wire.bound_addresses().len(), USER_FLOWS_MAX);
    assert_eq!(
        wire.flows.last().unwrap().client.port(),
        30_000 + USER_FLOWS_MAX as u16 + 19
    );
}

#[test]
fn a_page_a_packet_is_chosen_where_the_route_carries_it() {
    assert_eq!(wire().mtu_towards(Ipv4Addr::LOCALHOST), MTU_ONE_PAGE);
}
