//! Checksums and segmentation as functions on bytes (SDM chapter 3, TCP segmentation, checksum offloading). Nothing here
//! trusts an offset: what does not fit is left undone.

use super::effects::{Offloads, SegmentationKind};
use crate::bits::{index, len16, len32, low16, low32};
use crate::limits::{
    DATAGRAMS_UNCUT_MAX, ETHERNET_HEADER_LEN, FRAME_LEN_MAX, SEGMENTATION_HEADER_LEN_MAX, SEGMENTS_MAX,
};
use crate::spec::descriptors::{TxContext, popts};

/// Where a checksum is taken and put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checksum {
    /// First byte summed.
    pub(super) start: usize,
    /// Where the checksum goes.
    pub(super) at: usize,
    /// Last byte summed; 0 is the end of the frame.
    pub(super) last: usize,
    /// A result of 0 is written as all ones.
    pub(super) udp: bool,
}

impl Checksum {
    /// The IP header checksum of a context.
    pub(super) fn ip(context: &TxContext) -> Self {
        Self {
            start: usize::from(context.ip_start),
            at: usize::from(context.ip_offset),
            last: usize::from(context.ip_end),
            udp: false,
        }
    }

    /// The TCP or UDP checksum of a context.
    pub(super) fn l4(context: &TxContext) -> Self {
        Self {
            start: usize::from(context.l4_start),
            at: usize::from(context.l4_offset),
            last: usize::from(context.l4_end),
            udp: !context.tcp,
        }
    }

    /// Sums and stores. A checksum that lies outside the frame is not stored.
    pub(super) fn insert(&self, frame: &mut [u8]) {
        let stop = if self.last == 0 {
            frame.len()
        } else {
            frame.len().min(self.last + 1)
        };
        let Some(summed) = frame.get(self.start..stop).filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        let value = match !sum(summed) {
            0 if self.udp => 0xFFFF,
            value => value,
        };
        put16(frame, self.at, value);
    }
}

/// The ones-complement sum of big-endian 16-bit words, an odd last byte padded with zero (RFC 1071).
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = chunks.iter().map(|chunk| u64::from(u32::from_be_bytes(*chunk))).sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total += u64::from(u32::from_be_bytes(last));
    fold(total)
}

/// Adds the carries back in until 16 bits are left.
fn fold(mut total: u64) -> u16 {
    while total > 0xFFFF {
        total = (total & 0xFFFF) + (total >> 16);
    }
    low16(low32(total))
}

/// A packet to be cut, its offsets checked against its header once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    context: TxContext,
    options: u8,
    /// Bytes by which an inserted VLAN tag moves everything behind the addresses.
    shift: usize,
}

impl Plan {
    /// Checks a segmentation context; `None` means that no packet can be cut by it.
    pub(super) fn new(context: TxContext, options: u8) -> Option<Self> {
        let header = usize::from(context.header_len);
        let at = |offset: u8, len: usize| usize::from(offset) + len <= header;
        let ip_len = if context.ipv4 { 20 } else { 40 };
        let l4_len = if context.tcp { 14 } else { 8 };
        let ip_packet = (header + index(context.payload_len)).checked_sub(usize::from(context.ip_start))?;
        let sound = (ETHERNET_HEADER_LEN..=SEGMENTATION_HEADER_LEN_MAX).contains(&header)
            && context.mss > 0
            && at(context.ip_start, ip_len)
            && at(context.l4_start, l4_len)
            && (options & popts::IXSM == 0 || at(context.ip_offset, 2))
            && (options & popts::TXSM == 0 || at(context.l4_offset, 2))
            && ip_packet <= 0xFFFF;
        sound.then_some(Self {
            context,
            options,
            shift: 0,
        })
    }

    /// The same plan for a header into which a VLAN tag of `bytes` was put.
    pub(super) fn shifted(self, bytes: usize) -> Self {
        Self { shift: bytes, ..self }
    }

    /// Length of the header that each segment repeats.
    pub(super) fn header_len(&self) -> usize {
        usize::from(self.context.header_len) + self.shift
    }

    /// Payload of each segment but the last.
    pub(super) fn mss(&self) -> usize {
        usize::from(self.context.mss)
    }

    /// Into how many frames a payload is cut, if that is a number and a size that may leave.
    pub(super) fn segments(&self, payload_len: usize) -> Option<usize> {
        let count = payload_len.div_ceil(self.mss()).max(1);
        let longest = self.header_len() + payload_len.min(self.mss());
        (count <= SEGMENTS_MAX && longest <= FRAME_LEN_MAX).then_some(count)
    }

    /// What the sink would have to know to cut the packet into `count` segments itself, if it can.
    pub(super) fn for_sink(&self, offloads: Offloads, count: usize) -> Option<SegmentationKind> {
        let at = if self.context.tcp {
            TCP_CHECKSUM_AT
        } else {
            UDP_CHECKSUM_AT
        };
        let ordinary = self.options & popts::TXSM != 0
            && self.context.l4_end == 0
            && self.context.l4_offset.checked_sub(self.context.l4_start) == Some(at)
            // Behind a UDP header comes the payload; what else a driver counts as header would be cut, not repeated.
            && (self.context.tcp || self.context.header_len == self.context.l4_start.saturating_add(UDP_HEADER_LEN));
        let (kind, offered) = match (self.context.tcp, self.context.ipv4) {
            (true, true) => (SegmentationKind::Tcp4, offloads.tcp4),
            (true, false) => (SegmentationKind::Tcp6, offloads.tcp6),
            (false, true) => (SegmentationKind::Udp4, offloads.udp4),
            (false, false) => (SegmentationKind::Udp6, offloads.udp6),
        };
        let few = self.context.tcp || count <= DATAGRAMS_UNCUT_MAX;
        (count > 1 && ordinary && offered && few).then_some(kind)
    }

    /// Where the checksum lies behind the start of the TCP or UDP header.
    pub(super) fn checksum_offset(&self) -> u16 {
        u16::from(self.context.l4_offset.saturating_sub(self.context.l4_start))
    }

    /// Where the TCP or UDP checksum of an uncut packet starts.
    pub(super) fn l4_start(&self) -> usize {
        usize::from(self.context.l4_start) + self.shift
    }

    /// Completes the header of an uncut packet for a sink: real lengths, and the whole pseudo-header in the seed.
    pub(super) fn prepare_for_sink(&self, packet: &mut [u8], payload_len: usize) {
        self.set_lengths(packet, payload_len);
        self.seed(packet, payload_len);
        if self.options & popts::IXSM != 0 {
            self.ip_checksum(packet);
        }
    }

    /// Completes segment `number`: `segment` holds the header as the driver made it and `payload_len` bytes.
    pub(super) fn complete(&self, segment: &mut [u8], number: usize, payload_len: usize, last: bool) {
        self.set_lengths(segment, payload_len);
        let (ip, l4) = (usize::from(self.context.ip_start) + self.shift, self.l4_start());
        if self.context.ipv4 {
            let id = get16(segment, ip + 4).wrapping_add(len16(number & 0xFFFF));
            put16(segment, ip + 4, id);
        }
        if self.context.tcp {
            let sequence = u32::from(get16(segment, l4 + 4)) << 16 | u32::from(get16(segment, l4 + 6));
            let sequence = sequence.wrapping_add(len32(number * self.mss()));
            if let Some(field) = segment.get_mut(l4 + 4..l4 + 8) {
                field.copy_from_slice(&sequence.to_be_bytes());
            }
            if let Some(flags) = segment.get_mut(l4 + 13)
                && !last
            {
                *flags &= !FIN_AND_PSH;
            }
        }
        if self.options & popts::TXSM != 0 {
            self.seed(segment, payload_len);
            self.shift_checksum(Checksum::l4(&self.context)).insert(segment);
        }
        if self.options & popts::IXSM != 0 {
            self.ip_checksum(segment);
        }
    }

    fn set_lengths(&self, segment: &mut [u8], payload_len: usize) {
        let ip = usize::from(self.context.ip_start) + self.shift;
        let ip_len = self.header_len() - ip + payload_len;
        if self.context.ipv4 {
            put16(segment, ip + 2, len16(ip_len));
        } else {
            put16(segment, ip + 4, len16(ip_len.saturating_sub(40)));
        }
        if !self.context.tcp {
            put16(segment, self.l4_start() + 4, len16(self.l4_len(payload_len)));
        }
    }

    /// The driver's seed is the pseudo-header's sum without the length: adds it.
    fn seed(&self, segment: &mut [u8], payload_len: usize) {
        let at = usize::from(self.context.l4_offset) + self.shift;
        let seeded = u64::from(get16(segment, at)) + u64::from(len32(self.l4_len(payload_len)));
        put16(segment, at, fold(seeded));
    }

    fn ip_checksum(&self, segment: &mut [u8]) {
        let checksum = self.shift_checksum(Checksum::ip(&self.context));
        put16(segment, checksum.at, 0);
        checksum.insert(segment);
    }

    fn l4_len(&self, payload_len: usize) -> usize {
        (self.header_len() + payload_len).saturating_sub(self.l4_start())
    }

    fn shift_checksum(&self, checksum: Checksum) -> Checksum {
        let last = if checksum.last == 0 {
            0
        } else {
            checksum.last + self.shift
        };
        Checksum {
            start: checksum.start + self.shift,
            at: checksum.at + self.shift,
            last,
            ..checksum
        }
    }
}

fn get16(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .map_or(0, u16::from_be_bytes)
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *field = value.to_be_bytes();
    }
}

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM_AT: u8 = 16;

/// Offset of the checksum in a UDP header, and the header's length (RFC 768).
const UDP_CHECKSUM_AT: u8 = 6;
const UDP_HEADER_LEN: u8 = 8;

/// Flags that only the last segment keeps (RFC 9293, 3.1).
const FIN_AND_PSH: u8 = 0x09;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_matches_the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]), 0xDDF2);
        assert_eq!(sum(&[0x12, 0x34, 0x56]), 0x6834);
        assert_eq!(sum(&[]), 0);
    }

    #[test]
    fn checksum_outside_the_frame_is_not_stored() {
        let mut frame = [7; 20];
        for (start, at) in [(0, 19), (0, 20), (0, 255), (20, 4), (255, 4)] {
            Checksum {
                start,
                at,
                last: 0,
                udp: false,
            }
            .insert(&mut frame);
        }
        assert_eq!(frame, [7; 20]);
    }

    #[test]
    fn udp_checksum_of_zero_becomes_ones() {
        let mut frame = [0xFF; 4];
        Checksum {
            start: 0,
            at: 2,
            last: 1,
            udp: true,
        }
        .insert(&mut frame);
        assert_eq!(frame, [0xFF; 4]);
        Checksum {
            start: 0,
            at: 2,
            last: 1,
            udp: false,
        }
        .insert(&mut frame);
        assert_eq!(frame, [0xFF, 0xFF, 0, 0]);
    }
}
