//! The two messages of the protocol, big-endian: a client message of 24 bytes and its payload, and an ack of 4 bytes.

/// Length of a client message's header (sys/net/debugnet.h, `debugnet_msg_hdr`).
pub(crate) const HEADER_LEN: usize = 24;

pub(crate) const HERALD: u32 = 1;
pub(crate) const FINISHED: u32 = 2;
pub(crate) const VMCORE: u32 = 3;
pub(crate) const KDH: u32 = 4;
pub(crate) const KEY: u32 = 5;

/// A client message without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u32,
    pub(crate) seqno: u32,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    /// Old clients leave whatever was on their stack in here.
    pub(crate) aux2: u32,
}

impl Message {
    /// The datagram: header and payload.
    pub(crate) fn datagram(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(self.seqno.to_be_bytes());
        bytes.extend(self.offset.to_be_bytes());
        bytes.extend(self.len.to_be_bytes());
        bytes.extend(self.aux2.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// Splits a datagram into header and payload; `None` if it is shorter than a header or its length field lies.
    pub(crate) fn parse(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let (header, payload) = datagram.split_at_checked(HEADER_LEN)?;
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let message = Self {
            kind: word(0),
            seqno: word(4),
            offset: u64::from(word(8)) << 32 | u64::from(word(12)),
            len: word(16),
            aux2: word(20),
        };
        (usize::try_from(message.len) == Ok(payload.len())).then_some((message, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_beyond_4_gib_has_the_bytes_of_the_protocol() {
        let message = Message {
            kind: VMCORE,
            seqno: 0x0030_0000,
            offset: 0x1_2345_6000,
            len: 3,
            aux2: 0,
        };
        let datagram = message.datagram(b"abc");
        assert_eq!(
            datagram,
            [
                &[
                    0, 0, 0, 3, 0, 0x30, 0, 0, 0, 0, 0, 1, 0x23, 0x45, 0x60, 0, 0, 0, 0, 3, 0, 0, 0, 0
                ][..],
                b"abc"
            ]
            .concat()
        );
        assert_eq!(Message::parse(&datagram), Some((message, &b"abc"[..])));
        assert_eq!(Message::parse(&datagram[..26]), None, "the length field lies");
        assert_eq!(Message::parse(&datagram[..23]), None, "too short for a header");
    }
}
