//! The messages of netdump(4) as bytes: a 24-byte header before each payload, and the 4-byte acknowledgement.
//!
//! Everything is big-endian. Layout and numbers: `struct ndmsg_hdr` and `struct ndmsg_ack` in
//! `sys/netinet/netdump/netdump.h`, `struct debugnet_msg_hdr` in `sys/net/debugnet.h`.

use core::fmt;

/// UDP port that a HERALD goes to (`NETDUMP_PORT`).
pub const HERALD_PORT: u16 = 20023;

/// UDP port that every message of a client comes from and every acknowledgement goes to (`NETDUMP_ACKPORT`).
pub const CLIENT_PORT: u16 = 20024;

/// Bytes of a message header.
pub const HEADER_LEN: usize = 24;

/// `aux2` of a HERALD whose sender has a window and keeps every acknowledgement by itself, as the client here does: ASCII
/// `wndw`. Stock receivers ignore the field, for old clients never set it (`sys/netinet/netdump/netdump.h`, there `_pad`).
pub const WINDOW_MARK: u32 = u32::from_be_bytes(*b"wndw");

/// Bytes of an acknowledgement. Newer stock clients take no other length.
pub const ACK_LEN: usize = 4;

/// Data bytes in one message that stock receivers take (`NETDUMP_DATASIZE`, the receive buffer of netdumpd).
pub const STOCK_DATA_LEN_MAX: usize = 4096;

/// What a message carries (`NETDUMP_HERALD` to `NETDUMP_EKCD_KEY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// The first message of a dump: empty, or a path with its NUL.
    Herald = 1,
    /// The last message of a dump: empty.
    Finished = 2,
    /// Bytes of the dump file.
    Vmcore = 3,
    /// Bytes of the kernel dump header (`struct kerneldumpheader`, `sys/sys/kerneldump.h`).
    KernelHeader = 4,
    /// Bytes of the encrypted key (`struct kerneldumpkey`, `sys/sys/kerneldump.h`).
    Key = 5,
}

impl Kind {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Herald),
            2 => Some(Self::Finished),
            3 => Some(Self::Vmcore),
            4 => Some(Self::KernelHeader),
            5 => Some(Self::Key),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Herald => "HERALD",
            Self::Finished => "FINISHED",
            Self::Vmcore => "VMCORE",
            Self::KernelHeader => "KDH",
            Self::Key => "EKCD_KEY",
        })
    }
}

/// The number of a message, as an acknowledgement echoes it. Stock clients count from 1, the test client of netdumpd
/// from 0; it wraps after 2^32 messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seqno(pub u32);

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The header of a message (`struct ndmsg_hdr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: Kind,
    /// The number that the acknowledgement echoes.
    pub seqno: Seqno,
    /// Byte offset of the payload in the object that `kind` names.
    pub offset: u64,
    /// Payload bytes behind the header.
    pub len: u32,
    /// Zero from current clients, never initialised by old ones: to be ignored, [`WINDOW_MARK`] apart.
    pub aux2: u32,
}

impl Header {
    /// Splits a UDP payload into its header and the payload of the message.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is shorter than a header, of no known kind, or not as long as its header says.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let short = WireError::TooShort {
            len_bytes: datagram.len(),
        };
        let (header, payload) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(short)?;
        let [
            k0,
            k1,
            k2,
            k3,
            s0,
            s1,
            s2,
            s3,
            o0,
            o1,
            o2,
            o3,
            o4,
            o5,
            o6,
            o7,
            l0,
            l1,
            l2,
            l3,
            a0,
            a1,
            a2,
            a3,
        ] = *header;
        let number = u32::from_be_bytes([k0, k1, k2, k3]);
        let kind = Kind::from_number(number).ok_or(WireError::UnknownKind { number })?;
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        if usize::try_from(len) != Ok(payload.len()) {
            return Err(WireError::LengthLies {
                said: len,
                came: payload.len(),
            });
        }
        let seqno = Seqno(u32::from_be_bytes([s0, s1, s2, s3]));
        let offset = u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        let aux2 = u32::from_be_bytes([a0, a1, a2, a3]);
        Ok((
            Self {
                kind,
                seqno,
                offset,
                len,
                aux2,
            },
            payload,
        ))
    }

    /// The header as it stands on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let [k0, k1, k2, k3] = self.kind.number().to_be_bytes();
        let [s0, s1, s2, s3] = self.seqno.0.to_be_bytes();
        let [o0, o1, o2, o3, o4, o5, o6, o7] = self.offset.to_be_bytes();
        let [l0, l1, l2, l3] = self.len.to_be_bytes();
        let [a0, a1, a2, a3] = self.aux2.to_be_bytes();
        [
            k0, k1, k2, k3, s0, s1, s2, s3, o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, a0, a1, a2, a3,
        ]
    }
}

/// Reads an acknowledgement.
///
/// # Errors
///
/// [`WireError::NotAnAck`] if it is not exactly four bytes.
pub fn parse_ack(datagram: &[u8]) -> Result<Seqno, WireError> {
    match datagram.try_into() {
        Ok(bytes) => Ok(Seqno(u32::from_be_bytes(bytes))),
        Err(_) => Err(WireError::NotAnAck {
            len_bytes: datagram.len(),
        }),
    }
}

/// The acknowledgement of message `seqno`.
#[must_use]
pub const fn encode_ack(seqno: Seqno) -> [u8; ACK_LEN] {
    seqno.0.to_be_bytes()
}

/// Why a datagram is no netdump message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Shorter than a header.
    TooShort {
        /// Bytes that came.
        len_bytes: usize,
    },
    /// A kind that no version of the protocol has.
    UnknownKind {
        /// The number on the wire.
        number: u32,
    },
    /// The length in the header is not that of the datagram.
    LengthLies {
        /// Payload bytes by the header.
        said: u32,
        /// Payload bytes that came.
        came: usize,
    },
    /// Not four bytes long.
    NotAnAck {
        /// Bytes that came.
        len_bytes: usize,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { len_bytes } => write!(f, "message of {len_bytes} bytes, a header has {HEADER_LEN}"),
            Self::UnknownKind { number } => write!(f, "message of unknown kind {number}"),
            Self::LengthLies { said, came } => write!(f, "message says {said} payload bytes and has {came}"),
            Self::NotAnAck { len_bytes } => write!(f, "acknowledgement of {len_bytes} bytes, it has {ACK_LEN}"),
        }
    }
}

impl core::error::Error for WireError {}
