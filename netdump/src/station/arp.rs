use core::net::Ipv4Addr;

/// Bytes of an ARP packet for Ethernet and IPv4 (RFC 826).
pub(super) const LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4 (RFC 826, "Packet format").
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Request,
    Reply,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arp {
    pub(super) operation: Operation,
    pub(super) sender_mac: [u8; 6],
    pub(super) sender: Ipv4Addr,
    pub(super) target_mac: [u8; 6],
    pub(super) target: Ipv4Addr,
}

impl Arp {
    /// Reads an ARP packet; what follows it in the frame is padding.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk::<6>()?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk::<6>()?;
        let target = rest.first_chunk::<4>()?;
        let operation = match u16::from_be_bytes(*operation) {
            REQUEST => Operation::Request,
            REPLY => Operation::Reply,
            _ => return None,
        };
        (*kind == ETHERNET_IPV4).then(|| Self {
            operation,
            sender_mac: *sender_mac,
            sender: (*sender).into(),
            target_mac: *target_mac,
            target: (*target).into(),
        })
    }

    pub(super) fn encode(&self) -> [u8; LEN] {
        let operation = match self.operation {
            Operation::Request => REQUEST,
            Operation::Reply => REPLY,
        };
        let mut out = [0; LEN];
        let fields = ETHERNET_IPV4
            .into_iter()
            .chain(operation.to_be_bytes())
            .chain(self.sender_mac)
            .chain(self.sender.octets())
            .chain(self.target_mac)
            .chain(self.target.octets());
        for (place, byte) in out.iter_mut().zip(fields) {
            *place = byte;
        }
        out
    }
}
