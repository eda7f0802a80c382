use core::fmt;

use crate::wire::{Kind, Seqno, WireError};

/// What a datagram meant. The bytes are borrowed from it.
#[derive(PartialEq, Eq)]
pub enum Accepted<'d> {
    /// A HERALD, first or repeated; it is acknowledged already.
    Herald,
    /// Bytes of the dump file.
    Data {
        /// Where they belong in the file.
        offset: u64,
        /// The bytes, possibly none.
        bytes: &'d [u8],
        /// To be given back once storage has taken them.
        ticket: Ticket,
        /// All of them came before. They may differ from those that did.
        duplicate: bool,
    },
    /// Bytes of the kernel dump header.
    KernelHeader {
        /// Where they belong in the header.
        offset: u64,
        /// The bytes.
        bytes: &'d [u8],
        /// To be given back once storage has taken them.
        ticket: Ticket,
    },
    /// Bytes of the encrypted key.
    Key {
        /// Where they belong in the key.
        offset: u64,
        /// The bytes.
        bytes: &'d [u8],
        /// To be given back once storage has taken them.
        ticket: Ticket,
    },
    /// The sender has everything acknowledged that it sent.
    Finished {
        /// To be given back once everything is on disk.
        ticket: FinishTicket,
    },
    /// A repetition that is answered already, mostly one after FINISHED: there is nothing to store or to do.
    Repeated,
}

/// Without the bytes: they are a guest's memory and belong into no log.
impl fmt::Debug for Accepted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes_at = |kind: Kind, offset: &u64, bytes: &[u8]| {
            write!(f, "{kind} {{ offset: {offset}, len_bytes: {} }}", bytes.len())
        };
        match self {
            Self::Data { offset, bytes, .. } => bytes_at(Kind::Vmcore, offset, bytes),
            Self::KernelHeader { offset, bytes, .. } => bytes_at(Kind::KernelHeader, offset, bytes),
            Self::Key { offset, bytes, .. } => bytes_at(Kind::Key, offset, bytes),
            Self::Herald => f.write_str("Herald"),
            Self::Finished { .. } => f.write_str("Finished"),
            Self::Repeated => f.write_str("Repeated"),
        }
    }
}

/// The right to acknowledge one message, used up by [`super::Session::received`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "without `received` the message is never acknowledged"]
pub struct Ticket {
    pub(super) kind: Kind,
    pub(super) seqno: Seqno,
    pub(super) offset: u64,
    pub(super) end: u64,
}

/// The right to acknowledge FINISHED, used up by [`super::Session::durable`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "without `durable` FINISHED is never acknowledged"]
pub struct FinishTicket {
    pub(super) seqno: Seqno,
}

/// Why a datagram was not taken. It is not acknowledged and changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It is no netdump message.
    Wire(WireError),
    /// A HERALD in the middle of a dump: a newcomer at the same address, for which the caller opens a session beside
    /// this one, or a late copy of the first.
    HeraldAfterData,
    /// Beyond what this session may store. A stray packet alone is no reason to end a dump; the sender of a dump that
    /// is too large waits in vain and gives up.
    OutOfBounds {
        /// What the message carries.
        kind: Kind,
        /// Its offset.
        offset: u64,
        /// Its payload bytes.
        len: u32,
        /// The largest end allowed.
        limit: u64,
    },
    /// The coverage would fall into more separate ranges than this session may keep.
    TooFragmented {
        /// What the message carries.
        kind: Kind,
        /// Its offset.
        offset: u64,
        /// Separate ranges that the session keeps.
        extents_max: usize,
    },
    /// New data after FINISHED.
    AfterFinished {
        /// What the message carries.
        kind: Kind,
        /// Its offset.
        offset: u64,
    },
    /// The session was refused or fell silent.
    Ended,
}

impl From<WireError> for Rejected {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => error.fmt(f),
            Self::HeraldAfterData => f.write_str("HERALD in the middle of a dump"),
            Self::OutOfBounds {
                kind,
                offset,
                len,
                limit,
            } => {
                write!(
                    f,
                    "{kind} message of {len} bytes at offset {offset} exceeds the limit of {limit}"
                )
            }
            Self::TooFragmented {
                kind,
                offset,
                extents_max,
            } => {
                write!(
                    f,
                    "{kind} message at offset {offset} would be a separate range beyond the limit of {extents_max}"
                )
            }
            Self::AfterFinished { kind, offset } => write!(f, "new {kind} message at offset {offset} after FINISHED"),
            Self::Ended => f.write_str("message for a session that has ended"),
        }
    }
}

impl core::error::Error for Rejected {}

/// What a session tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The sender fell silent before FINISHED: what came is all there is.
    Silent,
    /// FINISHED was acknowledged and repeats have been answered for long enough: the session may be forgotten.
    LingerOver,
}

/// Counters of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Messages accepted, repeats among them.
    pub messages: u64,
    /// HERALDs among them.
    pub heralds: u64,
    /// Messages whose bytes had all come before.
    pub duplicate_messages: u64,
    /// Bytes that storage took and that had come before.
    pub duplicate_bytes: u64,
    /// Datagrams that were not taken.
    pub rejected: u64,
    /// Acknowledgements handed out.
    pub acks: u64,
    /// Acknowledgements that had to wait for another message.
    pub held_acks: u64,
    /// Acknowledgements dropped because too many were waiting.
    pub dropped_acks: u64,
    /// Data bytes of the longest message.
    pub largest_data_len: u32,
}
