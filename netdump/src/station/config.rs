use core::{fmt, net::Ipv4Addr};

use super::Role;
use crate::limits;

/// Addresses of a station and of the server it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StationConfig {
    /// The station's Ethernet address.
    pub mac: [u8; 6],
    /// The station's IPv4 address.
    pub client: Ipv4Addr,
    /// Length of the network prefix of `client`, at most 32.
    pub prefix_len: u8,
    /// Where packets for other networks go.
    pub gateway: Option<Ipv4Addr>,
    /// The receiver's IPv4 address.
    pub server: Ipv4Addr,
    /// The station's UDP port, 20024 ([`crate::wire::CLIENT_PORT`]) for stock receivers.
    pub client_port: u16,
    /// Largest IPv4 packet in bytes, 576 to 9000.
    pub mtu: u16,
}

impl StationConfig {
    /// Checks the addresses and says whose Ethernet address is needed: the server's on the same network, else the
    /// gateway's.
    pub(super) fn next_hop(&self) -> Result<(Ipv4Addr, Role), StationError> {
        let Self {
            mac,
            client,
            prefix_len,
            gateway,
            server,
            client_port,
            mtu,
        } = *self;
        let [first, ..] = mac;
        if first & 1 != 0 || mac == [0; 6] {
            return Err(StationError::Mac { mac });
        }
        if prefix_len > 32 {
            return Err(StationError::Prefix { prefix_len });
        }
        if !(limits::MTU_MIN..=limits::MTU_MAX).contains(&mtu) {
            return Err(StationError::Mtu { mtu });
        }
        if client_port == 0 {
            return Err(StationError::ClientPort);
        }
        for address in [Some(client), Some(server), gateway].into_iter().flatten() {
            if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
                return Err(StationError::NotAHost { address });
            }
        }
        if client == server || gateway == Some(client) {
            return Err(StationError::OwnAddress { address: client });
        }
        match gateway {
            _ if self.on_link(server) => Ok((server, Role::Server)),
            None => Err(StationError::NoGateway {
                server,
                client,
                prefix_len,
            }),
            Some(gateway) if self.on_link(gateway) => Ok((gateway, Role::Gateway)),
            Some(gateway) => Err(StationError::FarGateway {
                gateway,
                client,
                prefix_len,
            }),
        }
    }

    fn on_link(&self, address: Ipv4Addr) -> bool {
        let host_bits = 32 - u32::from(self.prefix_len.min(32));
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        (self.client.to_bits() ^ address.to_bits()) & mask == 0
    }
}

/// Why a station cannot be made so, or cannot send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StationError {
    /// The station's MAC is a group address or zero.
    Mac {
        /// What was asked for.
        mac: [u8; 6],
    },
    /// The prefix is longer than 32.
    Prefix {
        /// What was asked for.
        prefix_len: u8,
    },
    /// The MTU is out of bounds.
    Mtu {
        /// What was asked for.
        mtu: u16,
    },
    /// UDP port 0.
    ClientPort,
    /// An address that no single host can have.
    NotAHost {
        /// That address.
        address: Ipv4Addr,
    },
    /// Server or gateway has the station's own address.
    OwnAddress {
        /// That address.
        address: Ipv4Addr,
    },
    /// The server is on another network and no gateway is given.
    NoGateway {
        /// The server.
        server: Ipv4Addr,
        /// The station.
        client: Ipv4Addr,
        /// Its prefix.
        prefix_len: u8,
    },
    /// The gateway is on another network.
    FarGateway {
        /// The gateway.
        gateway: Ipv4Addr,
        /// The station.
        client: Ipv4Addr,
        /// Its prefix.
        prefix_len: u8,
    },
    /// Frames cannot be sent before the next hop's Ethernet address is known.
    NotReady,
    /// The payload exceeds the MTU, or the caller's buffer.
    TooLong {
        /// Bytes of the UDP payload.
        payload_len: usize,
        /// What fits.
        payload_len_max: usize,
    },
}

impl fmt::Display for StationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac {
                mac: [a, b, c, d, e, g],
            } => {
                write!(
                    f,
                    "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} is not the address of one station"
                )
            }
            Self::Prefix { prefix_len } => write!(f, "prefix length {prefix_len} exceeds 32"),
            Self::Mtu { mtu } => {
                write!(f, "MTU {mtu} is not within {} to {}", limits::MTU_MIN, limits::MTU_MAX)
            }
            Self::ClientPort => f.write_str("UDP port 0 cannot be sent from"),
            Self::NotAHost { address } => write!(f, "{address} is not the address of one host"),
            Self::OwnAddress { address } => write!(f, "{address} is the station's own address"),
            Self::NoGateway {
                server,
                client,
                prefix_len,
            } => {
                write!(
                    f,
                    "server {server} is outside of {client}/{prefix_len} and there is no gateway"
                )
            }
            Self::FarGateway {
                gateway,
                client,
                prefix_len,
            } => {
                write!(f, "gateway {gateway} is outside of {client}/{prefix_len}")
            }
            Self::NotReady => f.write_str("the next hop has not answered ARP yet"),
            Self::TooLong {
                payload_len,
                payload_len_max,
            } => {
                write!(f, "UDP payload of {payload_len} bytes, at most {payload_len_max} fit")
            }
        }
    }
}

impl core::error::Error for StationError {}
