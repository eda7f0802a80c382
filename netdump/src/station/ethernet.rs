/// Bytes of an Ethernet II header: destination, source, type (IEEE 802.3, clause 3; RFC 894).
pub(super) const HEADER_LEN: usize = 14;

/// The address of everybody.
pub(super) const BROADCAST: [u8; 6] = [0xff; 6];

/// EtherType of IPv4 (RFC 894).
pub(super) const IPV4: u16 = 0x0800;

/// EtherType of ARP (RFC 826).
pub(super) const ARP: u16 = 0x0806;

/// An Ethernet II header without a VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ethernet {
    pub(super) destination: [u8; 6],
    pub(super) source: [u8; 6],
    pub(super) ethertype: u16,
}

impl Ethernet {
    pub(super) fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (header, payload) = frame.split_first_chunk::<HEADER_LEN>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let destination = [d0, d1, d2, d3, d4, d5];
        let source = [s0, s1, s2, s3, s4, s5];
        Some((
            Self {
                destination,
                source,
                ethertype: u16::from_be_bytes([t0, t1]),
            },
            payload,
        ))
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let [d0, d1, d2, d3, d4, d5] = self.destination;
        let [s0, s1, s2, s3, s4, s5] = self.source;
        let [t0, t1] = self.ethertype.to_be_bytes();
        [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]
    }
}
