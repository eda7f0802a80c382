//! The socket of `send`: the way to the receiver, and trains of packets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::Context as _;
use netdump::wire::CLIENT_PORT;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::IpMtu;
use server::trains::{self, TrainSender};

use crate::cli_failure::{Exit, Failure, OrExit as _};
use crate::output;

/// MTU of Ethernet, for a way of which nothing is known.
const MTU_ETHERNET: u16 = 1500;
/// Packets of a train at most (udp(7), UDP_MAX_SEGMENTS), and bytes.
const TRAIN_PACKETS_MAX: usize = 64;
const TRAIN_BYTES_MAX: usize = 65_507;

/// How the receiver is reached.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) receiver: SocketAddrV4,
    /// Largest IP packet (ip(7), IP_MTU).
    pub(super) mtu: u16,
    /// This host's address on that way.
    own: IpAddr,
}

impl Way {
    /// Asks the system for the way to `receiver`. Nothing is sent.
    pub(super) fn to(receiver: SocketAddrV4) -> Result<Self, Failure> {
        let ask = || {
            let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            probe.connect(receiver)?;
            // The loopback interface has one beyond 16 bits; the client's configuration bounds it.
            let mtu = getsockopt(&probe, IpMtu).map_or(MTU_ETHERNET, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX));
            io::Result::Ok((probe.local_addr()?.ip(), mtu))
        };
        let (own, mtu) = ask()
            .with_context(|| format!("there is no way to {receiver}"))
            .or_exit(Exit::Unreachable)?;
        Ok(Self { receiver, mtu, own })
    }

    /// A socket on this host's address, with the port to which stock receivers answer if it is free.
    pub(super) fn open(&self) -> Result<UdpSocket, Failure> {
        let own = self.own;
        let socket = UdpSocket::bind((own, CLIENT_PORT)).or_else(|_| {
            output::say(&format!(
                "warning: UDP port {CLIENT_PORT} on {own} is taken; sending from another one, which stock receivers do \
                 not answer"
            ));
            UdpSocket::bind((own, 0))
        });
        let socket = socket
            .with_context(|| format!("cannot open a UDP socket on {own}"))
            .or_exit(Exit::Failed)?;
        trains::accept_trains(&socket);
        Ok(socket)
    }
}

/// Packets that wait to leave by one call: all of one length, but the last may be shorter.
#[derive(Debug)]
pub(super) struct Train {
    sender: TrainSender,
    to: Option<SocketAddrV4>,
    buffer: Vec<u8>,
    /// Bytes of the packets.
    len: usize,
    packets: usize,
    packet_len: usize,
    /// A shorter one came: the train is over.
    is_closed: bool,
}

impl Train {
    /// An empty one for packets of at most `packet_len_max` bytes.
    pub(super) fn new(packet_len_max: usize) -> Self {
        Self {
            sender: TrainSender::new(),
            to: None,
            buffer: vec![0; TRAIN_BYTES_MAX + packet_len_max],
            len: 0,
            packets: 0,
            packet_len: 0,
            is_closed: false,
        }
    }

    /// Where the next packet is to be written, before [`Train::add`].
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.len..).unwrap_or_default()
    }

    /// Takes the packet of `len` bytes that was written into the room. What was there is sent if this one does not fit.
    pub(super) fn add(&mut self, socket: &UdpSocket, to: SocketAddrV4, len: usize) -> io::Result<()> {
        let fits = !self.is_closed
            && self.to == Some(to)
            && len <= self.packet_len
            && self.packets < TRAIN_PACKETS_MAX
            && self.len + len <= TRAIN_BYTES_MAX;
        if !fits {
            let at = self.len;
            let sent = self.send(socket);
            self.buffer.copy_within(at..at + len, 0);
            self.to = Some(to);
            self.packet_len = len;
            sent?;
        }
        self.is_closed = len < self.packet_len;
        self.len += len;
        self.packets += 1;
        Ok(())
    }

    /// Sends what is there.
    pub(super) fn send(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let bytes = self.buffer.get(..self.len).unwrap_or_default();
        let packet_len = u16::try_from(self.packet_len).unwrap_or(u16::MAX);
        let sent = if bytes.is_empty() {
            Ok(())
        } else {
            self.sender.send(socket, self.to, bytes, packet_len)
        };
        self.len = 0;
        self.packets = 0;
        self.is_closed = false;
        sent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn packets_of_any_lengths_and_ports_arrive_as_they_were_given_in_order() {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        let far = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut train = Train::new(9000);
        let mut expected = [Vec::new(), Vec::new()];
        let lens = [24, 1472, 1472, 1472, 100, 1472, 100, 100, 24, 9000, 9000, 1472].into_iter();
        let many = std::iter::repeat_n(4, 2 * TRAIN_PACKETS_MAX + 1);
        for (index, len) in lens.chain(many).enumerate() {
            let which = usize::from((6..9).contains(&index));
            let packet = vec![u8::try_from(index).unwrap(); len];
            train.room()[..len].copy_from_slice(&packet);
            let std::net::SocketAddr::V4(to) = far[which].local_addr().unwrap() else {
                panic!("an IPv4 socket")
            };
            train.add(&near, to, len).unwrap();
            expected[which].push(packet);
        }
        train.send(&near).unwrap();
        train.send(&near).unwrap();
        for (socket, expected) in far.iter().zip(expected) {
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            for packet in expected {
                let mut got = [0; 9001];
                let len = socket.recv(&mut got).unwrap();
                assert!(got[..len] == packet, "{} bytes instead of {}", len, packet.len());
            }
        }
    }
}
