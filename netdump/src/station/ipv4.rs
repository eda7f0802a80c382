use core::net::Ipv4Addr;

use super::checksum::Checksum;

/// Bytes of an IPv4 header without options (RFC 791, section 3.1).
pub(super) const HEADER_LEN: usize = 20;

/// Where its total length and its checksum lie.
pub(super) const LENGTH_AT: usize = 2;
pub(super) const CHECKSUM_AT: usize = 10;

/// Protocol number of UDP (RFC 768).
pub(super) const UDP: u8 = 17;

/// Time to live, as stock clients set it (`debugnet_ip_output` in `sys/net/debugnet_inet.c`).
const TTL: u8 = 255;

/// Version 4, five words of header.
const VERSION_AND_LENGTH: u8 = 0x45;

/// "Don't fragment" among the flags.
const DONT_FRAGMENT: u16 = 0x4000;

/// "More fragments", and the fragment offset.
const FRAGMENTED: u16 = 0x3fff;

/// What the station needs of an IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ipv4 {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
}

impl Ipv4 {
    /// Splits a packet into header and payload, cutting off the padding of short frames. `None` if it has options, is a
    /// fragment, is cut off or fails its checksum.
    pub(super) fn parse(packet: &[u8]) -> Option<(Self, &[u8])> {
        let header = packet.first_chunk::<HEADER_LEN>()?;
        let [
            version_and_length,
            _,
            l0,
            l1,
            _,
            _,
            f0,
            f1,
            _,
            protocol,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ] = *header;
        let fragmented = u16::from_be_bytes([f0, f1]) & FRAGMENTED != 0;
        if version_and_length != VERSION_AND_LENGTH || fragmented || !Checksum::default().add(header).holds() {
            return None;
        }
        let payload = packet.get(HEADER_LEN..usize::from(u16::from_be_bytes([l0, l1])))?;
        let source = Ipv4Addr::new(s0, s1, s2, s3);
        let destination = Ipv4Addr::new(d0, d1, d2, d3);
        Some((
            Self {
                source,
                destination,
                protocol,
            },
            payload,
        ))
    }

    /// The header of a packet of `total_len` bytes: no options, DF, TTL 255, identification 0, as stock clients send it.
    pub(super) fn encode(&self, total_len: u16) -> [u8; HEADER_LEN] {
        let [l0, l1] = total_len.to_be_bytes();
        let [f0, f1] = DONT_FRAGMENT.to_be_bytes();
        let [s0, s1, s2, s3] = self.source.octets();
        let [d0, d1, d2, d3] = self.destination.octets();
        let with_sum = |c0, c1| {
            [
                VERSION_AND_LENGTH,
                0,
                l0,
                l1,
                0,
                0,
                f0,
                f1,
                TTL,
                self.protocol,
                c0,
                c1,
                s0,
                s1,
                s2,
                s3,
                d0,
                d1,
                d2,
                d3,
            ]
        };
        let [c0, c1] = Checksum::default().add(&with_sum(0, 0)).finish().to_be_bytes();
        with_sum(c0, c1)
    }
}
