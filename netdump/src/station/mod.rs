//! The smallest Ethernet host that can carry a dump: ARP, IPv4 and UDP for one client and one server.
//!
//! It finds the next hop by ARP (the server on the same network, else the gateway at once), answers ARP for its own
//! address, makes frames like those of a stock client (`debugnet_udp_output` and below in `sys/net/debugnet_inet.c`) and
//! takes only what a stock client would take: frames to its own address, without VLAN tag, IP options or fragments, from
//! the server, to its own UDP port, with right checksums.
//!
//! ```text
//! Resolving -- reply --> Ready
//!     | 3 requests, 1 s apart, unanswered
//!     v
//! Unreachable
//! ```

mod arp;
pub(crate) mod checksum;
mod config;
mod ethernet;
mod ipv4;
mod udp;

use core::net::Ipv4Addr;

pub use self::config::{StationConfig, StationError};
use self::{
    arp::{Arp, Operation},
    ethernet::{BROADCAST, Ethernet},
    ipv4::Ipv4,
    udp::Udp,
};
use crate::{limits, time::Instant};

/// Bytes of a frame before the UDP payload.
const HEADERS_LEN: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + udp::HEADER_LEN;

/// One host with one conversation.
#[derive(Clone, Debug)]
pub struct Station {
    config: StationConfig,
    next_hop: Ipv4Addr,
    role: Role,
    state: State,
    /// Who asked for our address last and was not answered yet.
    asked_by: Option<([u8; 6], Ipv4Addr)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `requests` went out; the next one, or the end, is due at `due`.
    Resolving {
        requests: u32,
        due: Instant,
    },
    Ready {
        mac: [u8; 6],
    },
    Unreachable,
}

impl Station {
    /// A station whose first ARP request is due at once.
    ///
    /// # Errors
    ///
    /// [`StationError`] if an address is not that of a host, the MTU is out of bounds, or the server is on another
    /// network and no gateway leads there.
    pub fn new(config: StationConfig, now: Instant) -> Result<Self, StationError> {
        let (next_hop, role) = config.next_hop()?;
        let state = State::Resolving { requests: 0, due: now };
        Ok(Self {
            config,
            next_hop,
            role,
            state,
            asked_by: None,
        })
    }

    /// Whether frames can be sent.
    #[must_use]
    pub const fn state(&self) -> StationState {
        match self.state {
            State::Resolving { .. } => StationState::Resolving,
            State::Ready { .. } => StationState::Ready,
            State::Unreachable => StationState::Unreachable {
                who: self.next_hop,
                role: self.role,
            },
        }
    }

    /// Bytes of the longest frame that the station makes, without frame check sequence.
    #[must_use]
    pub fn frame_len_max(&self) -> usize {
        ethernet::HEADER_LEN + usize::from(self.config.mtu)
    }

    /// Takes a frame from the wire. Returns the UDP payload if it is one from the server to this station; ARP is dealt
    /// with, everything else is ignored.
    pub fn handle_frame<'f>(&mut self, _now: Instant, frame: &'f [u8]) -> Option<UdpIn<'f>> {
        let (ethernet, packet) = Ethernet::parse(frame)?;
        let to_us = ethernet.destination == self.config.mac;
        match ethernet.ethertype {
            ethernet::ARP if to_us || ethernet.destination == BROADCAST => {
                self.handle_arp(&Arp::parse(packet)?);
                None
            }
            ethernet::IPV4 if to_us => self.handle_ipv4(packet),
            _ => None,
        }
    }

    /// Writes the next ARP frame to be sent now, if there is one; to be called until it returns `None`.
    pub fn poll_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        const LEN: usize = ethernet::HEADER_LEN + arp::LEN;
        let room = out.get_mut(..LEN)?;
        let (destination, arp) = if let Some((mac, address)) = self.asked_by.take() {
            (mac, self.arp(Operation::Reply, mac, address))
        } else {
            let State::Resolving { requests, due } = &mut self.state else {
                return None;
            };
            if *requests >= limits::ARP_TRIES || now < *due {
                return None;
            }
            *requests += 1;
            *due = now + limits::ARP_RETRY_AFTER;
            (BROADCAST, self.arp(Operation::Request, [0; 6], self.next_hop))
        };
        let ethernet = Ethernet {
            destination,
            source: self.config.mac,
            ethertype: ethernet::ARP,
        };
        let (head, body) = room.split_at_mut(ethernet::HEADER_LEN);
        head.copy_from_slice(&ethernet.encode());
        body.copy_from_slice(&arp.encode());
        Some(LEN)
    }

    /// Writes a whole frame that carries `payload` to the server's UDP port `dest_port`, and returns its length. Frames
    /// below 60 bytes are left to the device to pad.
    ///
    /// # Errors
    ///
    /// [`StationError::NotReady`] before the next hop is known, [`StationError::TooLong`] if the payload does not fit
    /// the MTU or `out`.
    pub fn encapsulate(&self, dest_port: u16, payload: &[u8], out: &mut [u8]) -> Result<usize, StationError> {
        let State::Ready { mac } = self.state else {
            return Err(StationError::NotReady);
        };
        let payload_len_max = self.frame_len_max().min(out.len()).saturating_sub(HEADERS_LEN);
        let too_long = StationError::TooLong {
            payload_len: payload.len(),
            payload_len_max,
        };
        let udp_len = u16::try_from(udp::HEADER_LEN + payload.len()).map_err(|_| too_long)?;
        let packet_len = u16::try_from(ipv4::HEADER_LEN)
            .ok()
            .and_then(|header| header.checked_add(udp_len));
        let packet_len = packet_len.ok_or(too_long)?;
        let frame_len = HEADERS_LEN + payload.len();
        let frame = out
            .get_mut(..frame_len)
            .filter(|_| payload.len() <= payload_len_max)
            .ok_or(too_long)?;

        let ethernet = Ethernet {
            destination: mac,
            source: self.config.mac,
            ethertype: ethernet::IPV4,
        };
        let ip = Ipv4 {
            source: self.config.client,
            destination: self.config.server,
            protocol: ipv4::UDP,
        };
        let udp = Udp {
            source_port: self.config.client_port,
            destination_port: dest_port,
        };
        let (ethernet_room, rest) = frame.split_at_mut(ethernet::HEADER_LEN);
        let (ip_room, rest) = rest.split_at_mut(ipv4::HEADER_LEN);
        let (udp_room, payload_room) = rest.split_at_mut(udp::HEADER_LEN);
        ethernet_room.copy_from_slice(&ethernet.encode());
        ip_room.copy_from_slice(&ip.encode(packet_len));
        udp_room.copy_from_slice(&udp.encode(&ip, udp_len, payload));
        payload_room.copy_from_slice(payload);
        Ok(frame_len)
    }

    /// The headers of datagrams to the server's UDP port for a device that cuts a burst of them by itself: the lengths and
    /// IPv4's checksum are zero, UDP's checksum holds the sum of its pseudo-header without the length.
    ///
    /// # Errors
    ///
    /// [`StationError::NotReady`] before the next hop is known.
    pub fn datagram_headers(&self, dest_port: u16) -> Result<[u8; HEADERS_LEN], StationError> {
        let mut headers = [0; HEADERS_LEN];
        self.encapsulate(dest_port, &[], &mut headers)?;
        let ip = Ipv4 {
            source: self.config.client,
            destination: self.config.server,
            protocol: ipv4::UDP,
        };
        let at_udp = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
        let seed = udp::seed(&ip).to_be_bytes();
        let zeroed = [
            (ethernet::HEADER_LEN + ipv4::LENGTH_AT, [0, 0]),
            (ethernet::HEADER_LEN + ipv4::CHECKSUM_AT, [0, 0]),
            (at_udp + udp::LENGTH_AT, [0, 0]),
            (at_udp + udp::CHECKSUM_AT, seed),
        ];
        for (at, value) in zeroed {
            if let Some(field) = headers.get_mut(at..at + 2) {
                field.copy_from_slice(&value);
            }
        }
        Ok(headers)
    }

    /// When [`Station::handle_timeout`] and [`Station::poll_frame`] are to be called; `None` when nothing is awaited.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Resolving { due, .. } => Some(due),
            State::Ready { .. } | State::Unreachable => None,
        }
    }

    /// Gives up on the next hop once the last request has been unanswered for a second.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Resolving { requests, due } = self.state
            && requests >= limits::ARP_TRIES
            && now >= due
        {
            self.state = State::Unreachable;
        }
    }

    /// The next hop's Ethernet address is set by its first reply and never again, as in stock clients: what a later
    /// reply says, true or forged, must not divert half of a dump.
    fn handle_arp(&mut self, arp: &Arp) {
        match arp.operation {
            Operation::Request if arp.target == self.config.client => {
                self.asked_by = is_unicast(arp.sender_mac).then_some((arp.sender_mac, arp.sender));
            }
            Operation::Reply if arp.sender == self.next_hop && is_unicast(arp.sender_mac) => {
                if matches!(self.state, State::Resolving { .. }) {
                    self.state = State::Ready { mac: arp.sender_mac };
                }
            }
            Operation::Request | Operation::Reply => {}
        }
    }

    fn handle_ipv4<'f>(&self, packet: &'f [u8]) -> Option<UdpIn<'f>> {
        let (ip, datagram) = Ipv4::parse(packet)?;
        let ours = ip.protocol == ipv4::UDP && ip.source == self.config.server && ip.destination == self.config.client;
        let (udp, payload) = Udp::parse(&ip, datagram).filter(|_| ours)?;
        (udp.destination_port == self.config.client_port).then_some(UdpIn {
            source_port: udp.source_port,
            payload,
        })
    }

    const fn arp(&self, operation: Operation, target_mac: [u8; 6], target: Ipv4Addr) -> Arp {
        Arp {
            operation,
            sender_mac: self.config.mac,
            sender: self.config.client,
            target_mac,
            target,
        }
    }
}

/// Whether the address can be that of one station.
fn is_unicast(mac: [u8; 6]) -> bool {
    let [first, ..] = mac;
    first & 1 == 0 && mac != [0; 6]
}

/// How far a station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StationState {
    /// The next hop has not answered yet.
    Resolving,
    /// Frames can be sent.
    Ready,
    /// The next hop did not answer.
    Unreachable {
        /// Its address.
        who: Ipv4Addr,
        /// What it is.
        role: Role,
    },
}

/// What the next hop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server itself, on the same network.
    Server,
    /// The gateway to the server's network.
    Gateway,
}

/// A UDP datagram from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpIn<'f> {
    /// The server's UDP port.
    pub source_port: u16,
    /// What it carried.
    pub payload: &'f [u8],
}
