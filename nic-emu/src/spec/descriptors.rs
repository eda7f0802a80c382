//! Transmit and receive descriptors: 16 bytes, little-endian (SDM chapter 3).

use crate::bits::low16;

/// Length of every descriptor in bytes.
pub const DESCRIPTOR_LEN: usize = 16;

/// Command bits of a transmit descriptor, in its third doubleword.
pub mod command {
    /// End of packet.
    pub const EOP: u32 = 1 << 24;
    /// Insert the Ethernet CRC.
    pub const IFCS: u32 = 1 << 25;
    /// Legacy: insert a checksum at CSO. In data descriptors this bit is [`TSE`].
    pub const IC: u32 = 1 << 26;
    /// Data and context: segmentation.
    pub const TSE: u32 = 1 << 26;
    /// Report status.
    pub const RS: u32 = 1 << 27;
    /// Report packet sent; treated as [`RS`].
    pub const RPS: u32 = 1 << 28;
    /// Extended: a context or data descriptor.
    pub const DEXT: u32 = 1 << 29;
    /// Insert a VLAN tag.
    pub const VLE: u32 = 1 << 30;
    /// Delay the interrupt.
    pub const IDE: u32 = 1 << 31;
    /// Extended: the type field, 0 context, 1 data.
    pub const DTYP_SHIFT: u32 = 20;
    /// Context: TCP rather than UDP.
    pub const TUCMD_TCP: u32 = 1 << 24;
    /// Context: IPv4 rather than IPv6.
    pub const TUCMD_IP: u32 = 1 << 25;
}

/// Descriptor done; bit 0 of the status in both directions.
pub const STATUS_DD: u8 = 1 << 0;

/// Option bits of a data descriptor.
pub mod popts {
    /// Insert the IP checksum.
    pub const IXSM: u8 = 1 << 0;
    /// Insert the TCP or UDP checksum.
    pub const TXSM: u8 = 1 << 1;
}

/// Status bits of a receive descriptor.
pub mod rx_status {
    /// Done.
    pub const DD: u8 = 1 << 0;
    /// End of packet.
    pub const EOP: u8 = 1 << 1;
    /// Ignore the checksum bits.
    pub const IXSM: u8 = 1 << 2;
    /// A VLAN tag was stripped into the special field.
    pub const VP: u8 = 1 << 3;
    /// The UDP checksum was summed.
    pub const UDPCS: u8 = 1 << 4;
    /// The TCP or UDP checksum was summed.
    pub const TCPCS: u8 = 1 << 5;
    /// The IPv4 header's checksum was summed.
    pub const IPCS: u8 = 1 << 6;
    /// Passed an inexact filter.
    pub const PIF: u8 = 1 << 7;
}

/// Error bits of a receive descriptor.
pub mod rx_error {
    /// The TCP or UDP checksum is wrong.
    pub const TCPE: u8 = 1 << 5;
    /// The IPv4 header's checksum is wrong.
    pub const IPE: u8 = 1 << 6;
}

/// A transmit descriptor as read from memory, not yet told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxDescriptor {
    /// Buffer address, or the first two doublewords of a context.
    pub address: u64,
    /// Length, type and command.
    pub lower: u32,
    /// Status, options, special.
    pub upper: u32,
}

/// What kind of transmit descriptor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxKind {
    /// Legacy data.
    Legacy,
    /// Offload parameters.
    Context,
    /// Data under a context.
    Data,
    /// An undefined type; hardware behaviour is not defined either.
    Unknown,
}

impl TxDescriptor {
    /// Decodes a descriptor.
    pub fn decode(bytes: &[u8; DESCRIPTOR_LEN]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, u0, u1, u2, u3] = *bytes;
        Self {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            lower: u32::from_le_bytes([l0, l1, l2, l3]),
            upper: u32::from_le_bytes([u0, u1, u2, u3]),
        }
    }

    /// Encodes it.
    pub fn encode(&self) -> [u8; DESCRIPTOR_LEN] {
        let high = u64::from(self.lower) | u64::from(self.upper) << 32;
        (u128::from(self.address) | u128::from(high) << 64).to_le_bytes()
    }

    /// A legacy descriptor over one buffer, `len_bytes` long, with the given command bits.
    pub fn legacy(address: u64, len_bytes: u16, commands: u32) -> Self {
        Self {
            address,
            lower: u32::from(len_bytes) | commands,
            upper: 0,
        }
    }

    /// Tells its kind.
    pub fn kind(&self) -> TxKind {
        match (
            self.lower & command::DEXT != 0,
            (self.lower >> command::DTYP_SHIFT) & 0xF,
        ) {
            (false, _) => TxKind::Legacy,
            (true, 0) => TxKind::Context,
            (true, 1) => TxKind::Data,
            (true, _) => TxKind::Unknown,
        }
    }

    /// Is this command bit set?
    pub fn has(&self, bit: u32) -> bool {
        self.lower & bit != 0
    }

    /// Bytes in the buffer: 16 bits in legacy, 20 bits in data descriptors.
    pub fn len_bytes(&self) -> u32 {
        match self.kind() {
            TxKind::Legacy => self.lower & 0xFFFF,
            _ => self.lower & 0x000F_FFFF,
        }
    }

    /// Legacy: where the checksum starts.
    pub fn css(&self) -> u8 {
        self.upper.to_le_bytes()[1]
    }

    /// Legacy: where the checksum goes.
    pub fn cso(&self) -> u8 {
        self.lower.to_le_bytes()[2]
    }

    /// Data: the options, see [`popts`].
    pub fn popts(&self) -> u8 {
        self.upper.to_le_bytes()[1]
    }

    /// The VLAN tag to insert.
    pub fn special(&self) -> u16 {
        low16(self.upper >> 16)
    }
}

/// The offload parameters of a context descriptor. Offsets count bytes from the start of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxContext {
    /// IP checksum: first byte summed.
    pub ip_start: u8,
    /// IP checksum: where it goes.
    pub ip_offset: u8,
    /// IP checksum: last byte summed; 0 is the end of the frame.
    pub ip_end: u16,
    /// TCP or UDP checksum: first byte summed.
    pub l4_start: u8,
    /// TCP or UDP checksum: where it goes.
    pub l4_offset: u8,
    /// TCP or UDP checksum: last byte summed; 0 is the end of the frame.
    pub l4_end: u16,
    /// Segmentation: bytes after the header, 20 bits.
    pub payload_len: u32,
    /// Segmentation: bytes of the header.
    pub header_len: u8,
    /// Segmentation: payload bytes per frame.
    pub mss: u16,
    /// TCP rather than UDP.
    pub tcp: bool,
    /// IPv4 rather than IPv6.
    pub ipv4: bool,
    /// The context is for segmentation.
    pub segmentation: bool,
}

impl TxContext {
    /// Decodes a context descriptor.
    pub fn decode(descriptor: &TxDescriptor) -> Self {
        let [
            ip_start,
            ip_offset,
            ip_end_low,
            ip_end_high,
            l4_start,
            l4_offset,
            l4_end_low,
            l4_end_high,
        ] = descriptor.address.to_le_bytes();
        Self {
            ip_start,
            ip_offset,
            ip_end: u16::from_le_bytes([ip_end_low, ip_end_high]),
            l4_start,
            l4_offset,
            l4_end: u16::from_le_bytes([l4_end_low, l4_end_high]),
            payload_len: descriptor.lower & 0x000F_FFFF,
            header_len: descriptor.upper.to_le_bytes()[1],
            mss: low16(descriptor.upper >> 16),
            tcp: descriptor.has(command::TUCMD_TCP),
            ipv4: descriptor.has(command::TUCMD_IP),
            segmentation: descriptor.has(command::TSE),
        }
    }

    /// Encodes it as a context descriptor, without RS.
    pub fn encode(&self) -> TxDescriptor {
        let [a, b] = self.ip_end.to_le_bytes();
        let [c, d] = self.l4_end.to_le_bytes();
        let address = u64::from_le_bytes([self.ip_start, self.ip_offset, a, b, self.l4_start, self.l4_offset, c, d]);
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let lower = (self.payload_len & 0x000F_FFFF)
            | command::DEXT
            | flag(self.tcp, command::TUCMD_TCP)
            | flag(self.ipv4, command::TUCMD_IP)
            | flag(self.segmentation, command::TSE);
        let upper = u32::from(self.header_len) << 8 | u32::from(self.mss) << 16;
        TxDescriptor { address, lower, upper }
    }
}

/// What the device writes into the second half of a receive descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxWriteback {
    /// Bytes in this buffer.
    pub len_bytes: u16,
    /// Status, see [`rx_status`].
    pub status: u8,
    /// Errors; 0 is none.
    pub errors: u8,
    /// The stripped VLAN tag.
    pub special: u16,
}

impl RxWriteback {
    /// Decodes the second half of a receive descriptor.
    pub fn decode(bytes: &[u8; 8]) -> Self {
        let [l0, l1, _, _, status, errors, s0, s1] = *bytes;
        Self {
            len_bytes: u16::from_le_bytes([l0, l1]),
            status,
            errors,
            special: u16::from_le_bytes([s0, s1]),
        }
    }

    /// Encodes it; the packet checksum between length and status is always 0.
    pub fn encode(&self) -> [u8; 8] {
        let [l0, l1] = self.len_bytes.to_le_bytes();
        let [s0, s1] = self.special.to_le_bytes();
        [l0, l1, 0, 0, self.status, self.errors, s0, s1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_survive_a_round_trip() {
        let legacy = TxDescriptor {
            address: 0x0123_4567_89AB_CDEF,
            lower: 0x0B12_05EA,
            upper: 0xABCD_2201,
        };
        assert_eq!(TxDescriptor::decode(&legacy.encode()), legacy);
        assert_eq!((legacy.kind(), legacy.len_bytes()), (TxKind::Legacy, 0x05EA));
        assert_eq!((legacy.cso(), legacy.css(), legacy.special()), (0x12, 0x22, 0xABCD));
        let context = TxContext {
            ip_start: 14,
            ip_offset: 24,
            ip_end: 33,
            l4_start: 34,
            l4_offset: 50,
            l4_end: 0,
            payload_len: 0x0F_FFFF,
            header_len: 54,
            mss: 1460,
            tcp: true,
            ipv4: true,
            segmentation: true,
        };
        assert_eq!(context.encode().kind(), TxKind::Context);
        assert_eq!(TxContext::decode(&context.encode()), context);
        let rx = RxWriteback {
            len_bytes: 60,
            status: 7,
            errors: 1,
            special: 5,
        };
        assert_eq!(RxWriteback::decode(&rx.encode()), rx);
    }

    #[test]
    fn fields_lie_where_the_manual_puts_them() {
        let bytes = TxDescriptor::legacy(0x1000, 60, command::EOP | command::RS).encode();
        assert_eq!(bytes, [0, 0x10, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0x09, 0, 0, 0, 0]);
    }
}
