//! What the receiver says about the checksums of a frame (SDM chapter 3, receive packet checksum offloading; chapter 13,
//! RXCSUM). Only what was summed is claimed; for everything else the guest is told to look itself.

use super::filter::VLAN_LEN;
use super::offload::sum;
use crate::limits::ETHERNET_HEADER_LEN;
use crate::spec::descriptors::{rx_error, rx_status};
use crate::spec::registers::rxcsum;

/// Bits of a receive descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    pub(super) status: u8,
    pub(super) errors: u8,
}

impl Verdict {
    /// A checksum was summed, and was good or not.
    fn add(&mut self, status: u8, error: u8, is_good: bool) {
        self.status |= status;
        self.errors |= if is_good { 0 } else { error };
    }
}

/// What can be said about a frame; `tagged` frames have a VLAN tag, `control` is RXCSUM.
pub(super) fn checksums(frame: &[u8], tagged: bool, control: u32) -> Verdict {
    let mut verdict = Verdict::default();
    if control & (rxcsum::IPOFL | rxcsum::TUOFL) != 0 {
        // A frame that ends too early, or is of no protocol that the hardware knows, is left to software.
        let _ = look(&mut verdict, frame, tagged, control);
    }
    if verdict.status == 0 {
        verdict.status = rx_status::IXSM;
    }
    verdict
}

fn look(verdict: &mut Verdict, frame: &[u8], tagged: bool, control: u32) -> Option<()> {
    let header_len = ETHERNET_HEADER_LEN + if tagged { VLAN_LEN } else { 0 };
    let (ethernet, packet) = frame.split_at_checked(header_len)?;
    match *ethernet.last_chunk()? {
        ETHERTYPE_IPV4 => ipv4(verdict, packet, control),
        ETHERTYPE_IPV6 if control & rxcsum::IPV6OFL != 0 => ipv6(verdict, packet, control),
        _ => None,
    }
}

fn ipv4(verdict: &mut Verdict, packet: &[u8], control: u32) -> Option<()> {
    let first = *packet.first()?;
    let header = packet.get(..usize::from(first & 0xF) * 4)?;
    if first >> 4 != 4 || header.len() < IPV4_HEADER_LEN {
        return None;
    }
    if control & rxcsum::IPOFL != 0 {
        verdict.add(rx_status::IPCS, rx_error::IPE, sum(header) == SUM_GOOD);
    }
    let is_fragment = u16::from_be_bytes(field(header, 6)?) & 0x3FFF != 0;
    if control & rxcsum::TUOFL == 0 || is_fragment {
        return None;
    }
    let total_len = usize::from(u16::from_be_bytes(field(header, 2)?));
    let payload = packet.get(header.len()..total_len)?;
    let [protocol] = field(header, 9)?;
    l4(verdict, protocol, header.get(12..20)?, payload, true)
}

fn ipv6(verdict: &mut Verdict, packet: &[u8], control: u32) -> Option<()> {
    let (header, rest) = packet.split_at_checked(IPV6_HEADER_LEN)?;
    if header.first()? >> 4 != 6 || control & rxcsum::TUOFL == 0 {
        return None;
    }
    let payload = rest.get(..usize::from(u16::from_be_bytes(field(header, 4)?)))?;
    let [next] = field(header, 6)?;
    l4(verdict, next, header.get(8..)?, payload, false)
}

/// TCP or UDP between these addresses.
fn l4(verdict: &mut Verdict, protocol: u8, addresses: &[u8], payload: &[u8], zero_is_none: bool) -> Option<()> {
    let (bytes, claim) = match protocol {
        PROTOCOL_TCP => (payload.get(..).filter(|bytes| bytes.len() >= 20)?, rx_status::TCPCS),
        PROTOCOL_UDP => {
            let len = usize::from(u16::from_be_bytes(field(payload, 4)?));
            if zero_is_none && field(payload, 6)? == [0, 0] {
                return None;
            }
            // Drivers look for the one bit or the other.
            let bytes = payload.get(..len).filter(|bytes| bytes.len() >= 8)?;
            (bytes, rx_status::UDPCS | rx_status::TCPCS)
        }
        _ => return None,
    };
    let len = u16::try_from(bytes.len()).ok()?;
    let parts = [sum(addresses), u16::from(protocol), len, sum(bytes)];
    let total = parts.iter().fold(0_u16, |total, part| {
        let (sum, carry) = total.overflowing_add(*part);
        sum + u16::from(carry)
    });
    verdict.add(claim, rx_error::TCPE, total == SUM_GOOD);
    Some(())
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xDD];
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;

/// The sum of bytes that carry their own, right checksum (RFC 1071).
const SUM_GOOD: u16 = 0xFFFF;
