//! Just enough of Ethernet, ARP, IPv4 and UDP for a wire that plays the rest of the network: reading what a client
//! sends and writing what it gets back. Whatever is malformed reads as `None`.

use std::net::{Ipv4Addr, SocketAddrV4};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The broadcast address.
pub const BROADCAST: Mac = [0xff; 6];

/// Bytes of the headers before a UDP payload: Ethernet 14, IPv4 without options 20, UDP 8.
pub const UDP_FRAME_HEADER_LEN: usize = 42;

/// Bytes of an ARP message for IPv4 over Ethernet (RFC 826).
const ARP_LEN: usize = 28;
/// EtherTypes (RFC 826, RFC 894).
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV4: u16 = 0x0800;
/// IP protocol number of UDP (RFC 768).
const PROTOCOL_UDP: u8 = 17;
/// Time to live of what we make, in hops: what hosts commonly use (RFC 1700).
const TTL: u8 = 64;

/// What a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The receiver's address.
    pub destination: Mac,
    /// The sender's address.
    pub source: Mac,
    /// What it carries.
    pub content: Content<'a>,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// Who has `target`?
    ArpRequest {
        /// Who asks (0.0.0.0 when it probes whether an address is free, RFC 5227).
        sender: Ipv4Addr,
        /// Whose Ethernet address is wanted.
        target: Ipv4Addr,
    },
    /// A whole UDP datagram in one packet.
    Udp {
        /// Where it comes from.
        from: SocketAddrV4,
        /// Where it goes.
        to: SocketAddrV4,
        /// Its data.
        payload: &'a [u8],
    },
    /// Anything else that is well formed as far as it was looked at.
    Other,
}

/// Reads a frame. A fragment, or a datagram whose checksum is wrong, reads as [`Content::Other`]; with
/// `checksum_offloaded` the UDP checksum is left to the wire and is not looked at.
pub fn parse(bytes: &[u8], checksum_offloaded: bool) -> Option<Frame<'_>> {
    let (destination, rest) = bytes.split_first_chunk::<6>()?;
    let (source, rest) = rest.split_first_chunk::<6>()?;
    let (ethertype, packet) = rest.split_first_chunk::<2>()?;
    let content = match u16::from_be_bytes(*ethertype) {
        ETHERTYPE_ARP => parse_arp(packet)?,
        ETHERTYPE_IPV4 => parse_ipv4(packet, checksum_offloaded)?,
        _ => Content::Other,
    };
    Some(Frame {
        destination: *destination,
        source: *source,
        content,
    })
}

fn parse_arp(packet: &[u8]) -> Option<Content<'static>> {
    let message = packet.first_chunk::<ARP_LEN>()?;
    // Hardware type Ethernet, protocol IPv4, lengths 6 and 4, operation request.
    if message[..8] != [0, 1, 8, 0, 6, 4, 0, 1] {
        return Some(Content::Other);
    }
    Some(Content::ArpRequest {
        sender: address_at(message, 14)?,
        target: address_at(message, 24)?,
    })
}

fn parse_ipv4(packet: &[u8], checksum_offloaded: bool) -> Option<Content<'_>> {
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    let header = packet.get(..header_len.max(20))?;
    let total_len = usize::from(word_at(header, 2)?);
    let is_v4 = packet.first()? >> 4 == 4 && header_len >= 20;
    // More fragments, or not the first one.
    let is_fragment = word_at(header, 6)? & 0x3fff != 0;
    if !is_v4 || is_fragment || checksum(header, 0) != 0 || *header.get(9)? != PROTOCOL_UDP {
        return Some(Content::Other);
    }
    let (from, to) = (address_at(header, 12)?, address_at(header, 16)?);
    let datagram = packet.get(header_len..total_len)?;
    let udp_len = usize::from(word_at(datagram, 4)?);
    let datagram = datagram.get(..udp_len)?;
    let payload = datagram.get(8..)?;
    let has_checksum = word_at(datagram, 6)? != 0;
    if has_checksum
        && !checksum_offloaded
        && checksum(datagram, pseudo_header_sum(from, to, word_at(datagram, 4)?)) != 0
    {
        return Some(Content::Other);
    }
    Some(Content::Udp {
        from: SocketAddrV4::new(from, word_at(datagram, 0)?),
        to: SocketAddrV4::new(to, word_at(datagram, 2)?),
        payload,
    })
}

/// Writes into `out` the answer to an ARP request: `owner_ip` is at `owner_mac` (RFC 826).
pub fn arp_reply(owner_mac: Mac, owner_ip: Ipv4Addr, asker_mac: Mac, asker_ip: Ipv4Addr, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&asker_mac);
    out.extend_from_slice(&owner_mac);
    out.extend_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    out.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    out.extend_from_slice(&owner_mac);
    out.extend_from_slice(&owner_ip.octets());
    out.extend_from_slice(&asker_mac);
    out.extend_from_slice(&asker_ip.octets());
}

/// Writes into `out` a frame with one UDP datagram; `false` when the payload does not fit one IP packet.
pub fn udp_frame(macs: (Mac, Mac), from: SocketAddrV4, to: SocketAddrV4, payload: &[u8], out: &mut Vec<u8>) -> bool {
    let (Ok(udp_len), Ok(total_len)) = (u16::try_from(payload.len() + 8), u16::try_from(payload.len() + 28)) else {
        return false;
    };
    let (source, destination) = macs;
    out.clear();
    out.extend_from_slice(&destination);
    out.extend_from_slice(&source);
    out.extend_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
    let mut header = [0u8; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[6] = 0x40; // do not fragment
    header[8] = TTL;
    header[9] = PROTOCOL_UDP;
    header[12..16].copy_from_slice(&from.ip().octets());
    header[16..20].copy_from_slice(&to.ip().octets());
    let sum = checksum(&header, 0);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend_from_slice(&header);
    let udp_start = out.len();
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    out.extend_from_slice(&udp_len.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    let sum = checksum(&out[udp_start..], pseudo_header_sum(*from.ip(), *to.ip(), udp_len));
    // A sum of zero is sent as all ones; zero means that there is none (RFC 768).
    let sum = if sum == 0 { 0xffff } else { sum };
    out[udp_start + 6..udp_start + 8].copy_from_slice(&sum.to_be_bytes());
    true
}

/// The Internet checksum (RFC 1071) of `bytes` on top of `start`: the value to store, and 0 over bytes that contain it.
fn checksum(bytes: &[u8], start: u64) -> u16 {
    // 32-bit words in a 64-bit sum cannot overflow below 16 GiB, and the compiler makes vectors of them.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum = start
        + words
            .iter()
            .map(|word| u64::from(u32::from_be_bytes(*word)))
            .sum::<u64>();
    let mut last = [0u8; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_be_bytes(last));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// What the addresses, the protocol and the length add to a UDP checksum (RFC 768).
fn pseudo_header_sum(from: Ipv4Addr, to: Ipv4Addr, udp_len: u16) -> u64 {
    u64::from(u32::from(from)) + u64::from(u32::from(to)) + u64::from(PROTOCOL_UDP) + u64::from(udp_len)
}

fn word_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk::<2>()?))
}

fn address_at(bytes: &[u8], offset: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*bytes.get(offset..)?.first_chunk::<4>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];

    proptest! {
        #[test]
        fn a_datagram_survives_the_way_there_and_back(
            payload in prop::collection::vec(any::<u8>(), 0..5000),
            from: (u32, u16),
            to: (u32, u16),
        ) {
            let from = SocketAddrV4::new(from.0.into(), from.1);
            let to = SocketAddrV4::new(to.0.into(), to.1);
            let mut frame = Vec::new();
            prop_assert!(udp_frame((A, B), from, to, &payload, &mut frame));
            let parsed = parse(&frame, false).unwrap();
            prop_assert_eq!((parsed.source, parsed.destination), (A, B));
            prop_assert_eq!(parsed.content, Content::Udp { from, to, payload: &payload });
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, false);
        }

        #[test]
        fn one_wrong_bit_behind_the_ethernet_header_is_seen(bit in 0usize..(28 + 64) * 8) {
            let mut frame = Vec::new();
            let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 20024);
            let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 20023);
            prop_assert!(udp_frame((A, B), from, to, &[0x5a; 64], &mut frame));
            frame[14 + bit / 8] ^= 1 << (bit % 8);
            // Without its checksum field (bytes 26 and 27 behind the Ethernet header) a datagram counts as unchecked.
            let whole = matches!(parse(&frame, false), Some(Frame { content: Content::Udp { .. }, .. }));
            prop_assert!(!whole || (26 * 8..28 * 8).contains(&bit), "bit {bit}");
        }
    }

    #[test]
    fn an_answer_to_arp_names_the_owner() {
        let mut out = Vec::new();
        arp_reply(A, Ipv4Addr::new(10, 0, 2, 2), B, Ipv4Addr::new(10, 0, 2, 15), &mut out);
        assert_eq!(out.len(), 42);
        assert_eq!(&out[..12], [B, A].concat());
        assert_eq!(&out[20..22], [0, 2], "operation: reply");
        assert_eq!(&out[22..28], A);
        assert_eq!(&out[28..32], [10, 0, 2, 2]);
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // The example of RFC 1071 section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), !0xddf2);
        assert_eq!(checksum(&[0x00, 0x01, 0xf2], 0), !0xf201);
    }
}
