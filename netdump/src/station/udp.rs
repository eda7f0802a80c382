use super::{
    checksum::Checksum,
    ipv4::{self, Ipv4},
};

/// Bytes of a UDP header (RFC 768).
pub(super) const HEADER_LEN: usize = 8;

/// Where its length and its checksum lie.
pub(super) const LENGTH_AT: usize = 4;
pub(super) const CHECKSUM_AT: usize = 6;

/// The ports of a UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Udp {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
}

impl Udp {
    /// Splits a datagram into header and payload. `None` if its length is not that of the IPv4 payload or its checksum
    /// fails; a checksum of zero is none.
    pub(super) fn parse<'d>(ip: &Ipv4, datagram: &'d [u8]) -> Option<(Self, &'d [u8])> {
        let (header, payload) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let [s0, s1, d0, d1, l0, l1, c0, c1] = *header;
        let len = u16::from_be_bytes([l0, l1]);
        if usize::from(len) != datagram.len() {
            return None;
        }
        if [c0, c1] != [0, 0] && !pseudo_header(ip, len).add(datagram).holds() {
            return None;
        }
        let source_port = u16::from_be_bytes([s0, s1]);
        Some((
            Self {
                source_port,
                destination_port: u16::from_be_bytes([d0, d1]),
            },
            payload,
        ))
    }

    /// The header of a datagram of `len` bytes, header included. A checksum that comes out as zero is sent as ones.
    pub(super) fn encode(&self, ip: &Ipv4, len: u16, payload: &[u8]) -> [u8; HEADER_LEN] {
        let [s0, s1] = self.source_port.to_be_bytes();
        let [d0, d1] = self.destination_port.to_be_bytes();
        let [l0, l1] = len.to_be_bytes();
        let sum = pseudo_header(ip, len)
            .add(&[s0, s1, d0, d1, l0, l1, 0, 0])
            .add(payload)
            .finish();
        let [c0, c1] = if sum == 0 { [0xff, 0xff] } else { sum.to_be_bytes() };
        [s0, s1, d0, d1, l0, l1, c0, c1]
    }
}

/// The sum of the pseudo-header without the length.
pub(super) fn seed(ip: &Ipv4) -> u16 {
    !pseudo_header(ip, 0).finish()
}

fn pseudo_header(ip: &Ipv4, len: u16) -> Checksum {
    Checksum::default()
        .add(&ip.source.octets())
        .add(&ip.destination.octets())
        .add_word(u16::from(ipv4::UDP))
        .add_word(len)
}
