//! Datagrams that leave as one packet, which the device's segmentation cuts again (SDM chapter 3, TCP segmentation, with
//! TUCMD.TCP clear): one pair of descriptors carries a whole window.

use super::{Bus, FRAME_LEN_MAX, Polled, QueueError, TX_BYTES_AT};
use crate::bits::{len16, len32};
use crate::limits::{DATAGRAMS_UNCUT_MAX, ETHERNET_HEADER_LEN};
use crate::spec::descriptors::{TxContext, TxDescriptor, command, popts};

/// Ethernet 14, IPv4 without options 20, UDP 8.
pub const DATAGRAM_HEADERS_LEN: usize = 42;

/// Headers of UDP datagrams as segmentation wants them: the lengths of IPv4 and UDP and the checksum of IPv4 are zero, and
/// the checksum of UDP holds the sum of its pseudo-header without the length. The device completes them.
pub type DatagramHeaders = [u8; DATAGRAM_HEADERS_LEN];

/// Datagrams that lie in the byte ring and have no descriptors yet.
#[derive(Debug)]
pub(super) struct Burst {
    headers: DatagramHeaders,
    /// Where the headers lie in the byte ring, and where the last payload ends.
    at: u32,
    end: u32,
    /// Payload of every datagram but the last, which may be shorter.
    segment_len: usize,
    segments: usize,
    /// The last datagram is a short one: no other can follow it.
    closed: bool,
}

impl Polled {
    /// Puts a UDP datagram into the ring; the device sees it at the next [`kick`](Polled::kick). Datagrams with the same
    /// headers and of one length that follow each other leave as one packet that the device cuts.
    ///
    /// # Errors
    /// [`QueueError`].
    pub fn queue_datagram(
        &mut self,
        bus: &mut impl Bus,
        headers: &DatagramHeaders,
        payload: &[u8],
    ) -> Result<(), QueueError> {
        let len_bytes = DATAGRAM_HEADERS_LEN + payload.len();
        if len_bytes > FRAME_LEN_MAX {
            return Err(QueueError::BadLength { len_bytes });
        }
        if self.extend_burst(bus, headers, payload) {
            return Ok(());
        }
        self.close_burst(bus);
        let at = self.place(bus, len_bytes, BURST_DESCRIPTORS)?;
        bus.write_memory(self.tx_byte(at), headers);
        let payload_at = at + len32(DATAGRAM_HEADERS_LEN);
        bus.write_memory(self.tx_byte(payload_at), payload);
        self.burst = Some(Burst {
            headers: *headers,
            at,
            end: payload_at + len32(payload.len()),
            segment_len: payload.len(),
            segments: 1,
            closed: payload.is_empty(),
        });
        Ok(())
    }

    /// Appends a datagram to the open burst, if it may follow there.
    fn extend_burst(&mut self, bus: &mut impl Bus, headers: &DatagramHeaders, payload: &[u8]) -> bool {
        let len = len32(payload.len());
        let Some(burst) = self.burst.as_mut().filter(|burst| burst.takes(headers, payload.len())) else {
            return false;
        };
        if !self.tx.can_grow(burst.at, burst.end, len) {
            return false;
        }
        let at = self.gpa + TX_BYTES_AT + u64::from(burst.end);
        burst.end += len;
        burst.segments += 1;
        burst.closed = payload.len() < burst.segment_len;
        bus.write_memory(at, payload);
        true
    }

    /// Writes the descriptors of the open burst, if there is one.
    pub(super) fn close_burst(&mut self, bus: &mut impl Bus) {
        let Some(burst) = self.burst.take() else { return };
        let context = burst.context();
        let mut first = context.encode();
        first.lower |= command::RS;
        bus.write_memory(self.tx_descriptor(self.tx.next), &first.encode());
        self.tx.take(burst.at);
        let second = TxDescriptor {
            address: self.tx_byte(burst.at),
            lower: (burst.end - burst.at)
                | DATA
                | command::DEXT
                | command::EOP
                | command::IFCS
                | command::TSE
                | command::RS,
            upper: u32::from(popts::IXSM | popts::TXSM) << 8,
        };
        bus.write_memory(self.tx_descriptor(self.tx.next), &second.encode());
        self.tx.take(burst.end);
    }

    fn tx_byte(&self, at: u32) -> u64 {
        self.gpa + TX_BYTES_AT + u64::from(at)
    }
}

impl Burst {
    fn takes(&self, headers: &DatagramHeaders, len: usize) -> bool {
        let packet_len = (self.end - self.at) + len32(len) - len32(ETHERNET_HEADER_LEN);
        !self.closed
            && (1..=self.segment_len).contains(&len)
            && self.segments < DATAGRAMS_UNCUT_MAX
            && packet_len <= u32::from(u16::MAX)
            && self.headers == *headers
    }

    fn context(&self) -> TxContext {
        TxContext {
            ip_start: IP_AT,
            ip_offset: IP_AT + 10,
            ip_end: u16::from(UDP_AT - 1),
            l4_start: UDP_AT,
            l4_offset: UDP_AT + 6,
            l4_end: 0,
            payload_len: self.end - self.at - len32(DATAGRAM_HEADERS_LEN),
            header_len: UDP_AT + 8,
            mss: len16(self.segment_len.max(1)),
            tcp: false,
            ipv4: true,
            segmentation: true,
        }
    }
}

/// A context and its data.
const BURST_DESCRIPTORS: usize = 2;

/// The type of a data descriptor.
const DATA: u32 = 1 << command::DTYP_SHIFT;

/// Where the headers of IPv4 and UDP begin.
const IP_AT: u8 = 14;
const UDP_AT: u8 = 34;
