use core::fmt;

use crate::time::Duration;

/// A message to be sent as one UDP datagram from port 20024 ([`crate::wire::CLIENT_PORT`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The receiver's UDP port.
    pub port: u16,
    /// Bytes of the UDP payload, from the start of the caller's buffer.
    pub len: usize,
}

/// What a client tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The receiver answered; data may be pushed.
    Connected {
        /// The UDP port that data goes to.
        port: u16,
    },
    /// FINISHED is acknowledged: the receiver has the dump.
    Finished,
    /// The dump ended without that.
    Failed(ClientError),
}

/// Why a dump failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// Nobody answered the HERALD.
    NoAnswer {
        /// Since the client was made.
        waited: Duration,
    },
    /// The receiver fell silent.
    Silent {
        /// Since the last new acknowledgement.
        waited: Duration,
        /// Packets that it did not acknowledge.
        unacknowledged_packets: u32,
        /// File offset of the oldest of them.
        oldest_offset: u64,
    },
    /// Every byte was acknowledged, FINISHED was not: the receiver probably has the dump, or failed to keep it.
    Unfinished {
        /// Since FINISHED was first sent.
        waited: Duration,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { waited } => write!(f, "no answer to HERALD within {waited:.1?}"),
            Self::Silent {
                waited,
                unacknowledged_packets,
                oldest_offset,
            } => write!(
                f,
                "receiver silent for {waited:.1?} with {unacknowledged_packets} packets unacknowledged from offset \
                 {oldest_offset} on"
            ),
            Self::Unfinished { waited } => write!(f, "all data acknowledged, but not FINISHED within {waited:.1?}"),
        }
    }
}

impl core::error::Error for ClientError {}

/// Counters of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Data bytes taken by [`super::Client::push`].
    pub pushed_bytes: u64,
    /// Data bytes acknowledged.
    pub acked_bytes: u64,
    /// Messages acknowledged, HERALD and FINISHED among them.
    pub acked_packets: u64,
    /// Messages sent, retransmissions among them.
    pub sent_packets: u64,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Messages sent again.
    pub retransmitted_packets: u64,
    /// Packets held for lost because later ones were acknowledged.
    pub overtaken_packets: u64,
    /// Time-outs that found lost packets.
    pub timeouts: u64,
    /// Acknowledgements of what was acknowledged before.
    pub repeated_acks: u64,
    /// Datagrams that were no acknowledgement of anything sent, or came from another port.
    pub ignored_datagrams: u64,
    /// The smoothed round trip, once measured.
    pub round_trip: Option<Duration>,
}
