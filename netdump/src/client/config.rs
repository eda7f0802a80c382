use core::fmt;

use crate::{
    limits,
    time::Duration,
    wire::{HEADER_LEN, STOCK_DATA_LEN_MAX},
};

/// How a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Data bytes of one message, 1 to 4096.
    pub payload_len_max: usize,
    /// Packets sent and not yet acknowledged, 1 to 64.
    pub window_packets: u32,
    /// Data bytes sent and not yet acknowledged, `payload_len_max` to 64 KiB.
    pub window_bytes: usize,
    /// Time for the first acknowledgement, from [`super::Client::new`] on.
    pub answer_within: Duration,
    /// Time without any new acknowledgement after which the dump has failed.
    pub give_up_after: Duration,
    /// Time for the acknowledgement of FINISHED.
    pub finished_within: Duration,
    /// What a retransmission time-out exceeds the round trip by at least.
    pub rto_min: Duration,
    /// Retransmission time-out before anything was measured.
    pub rto_initial: Duration,
    /// Longest retransmission time-out.
    pub rto_max: Duration,
}

impl ClientConfig {
    /// What any stock receiver takes on a path of that MTU: at most 4096 data bytes a packet and 64 KiB in flight.
    #[must_use]
    pub fn stock(mtu: u16) -> Self {
        let mtu = usize::from(mtu.clamp(limits::MTU_MIN, limits::MTU_MAX));
        Self {
            payload_len_max: (mtu - limits::MTU_OVERHEAD).min(STOCK_DATA_LEN_MAX),
            window_packets: limits::WINDOW_PACKETS_MAX,
            window_bytes: limits::WINDOW_BYTES_MAX,
            answer_within: limits::ANSWER_WITHIN,
            give_up_after: limits::GIVE_UP_AFTER,
            finished_within: limits::FINISHED_WITHIN,
            rto_min: limits::RTO_MIN,
            rto_initial: limits::RTO_INITIAL,
            rto_max: limits::RTO_MAX,
        }
    }

    /// Bytes of the longest UDP payload that the client makes.
    #[must_use]
    pub const fn datagram_len_max(&self) -> usize {
        HEADER_LEN + self.payload_len_max
    }

    pub(super) fn check(&self, herald_path: &str, buffer_len: usize) -> Result<(), ClientConfigError> {
        let Self {
            payload_len_max,
            window_packets,
            window_bytes,
            ..
        } = *self;
        if payload_len_max == 0 || payload_len_max > STOCK_DATA_LEN_MAX {
            return Err(ClientConfigError::Payload { payload_len_max });
        }
        if window_packets == 0 || window_packets > limits::WINDOW_PACKETS_MAX {
            return Err(ClientConfigError::WindowPackets { window_packets });
        }
        if window_bytes < payload_len_max || window_bytes > limits::WINDOW_BYTES_MAX {
            return Err(ClientConfigError::WindowBytes {
                window_bytes,
                payload_len_max,
            });
        }
        if buffer_len < window_bytes {
            return Err(ClientConfigError::Buffer {
                buffer_len,
                window_bytes,
            });
        }
        if self.rto_min.is_zero() || self.rto_min > self.rto_initial || self.rto_initial > self.rto_max {
            return Err(ClientConfigError::Timeouts);
        }
        let path_len_max = payload_len_max.min(limits::HERALD_LEN_MAX) - 1;
        if herald_path.len() > path_len_max || herald_path.contains('\0') {
            return Err(ClientConfigError::Path {
                len_bytes: herald_path.len(),
                path_len_max,
            });
        }
        Ok(())
    }
}

/// Why a client cannot be made so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientConfigError {
    /// `payload_len_max` is out of bounds.
    Payload {
        /// What was asked for.
        payload_len_max: usize,
    },
    /// `window_packets` is out of bounds.
    WindowPackets {
        /// What was asked for.
        window_packets: u32,
    },
    /// `window_bytes` is out of bounds.
    WindowBytes {
        /// What was asked for.
        window_bytes: usize,
        /// What one packet needs.
        payload_len_max: usize,
    },
    /// The send buffer does not hold a window.
    Buffer {
        /// What was given.
        buffer_len: usize,
        /// What a window needs.
        window_bytes: usize,
    },
    /// Not `0 < rto_min <= rto_initial <= rto_max`.
    Timeouts,
    /// The HERALD path holds a NUL or does not fit into one message.
    Path {
        /// Its length.
        len_bytes: usize,
        /// What fits, without the NUL.
        path_len_max: usize,
    },
}

impl fmt::Display for ClientConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload { payload_len_max } => {
                write!(
                    f,
                    "{payload_len_max} data bytes a message, allowed are 1 to {STOCK_DATA_LEN_MAX}"
                )
            }
            Self::WindowPackets { window_packets } => {
                write!(
                    f,
                    "a window of {window_packets} packets, allowed are 1 to {}",
                    limits::WINDOW_PACKETS_MAX
                )
            }
            Self::WindowBytes {
                window_bytes,
                payload_len_max,
            } => write!(
                f,
                "a window of {window_bytes} bytes, allowed are {payload_len_max} to {}",
                limits::WINDOW_BYTES_MAX
            ),
            Self::Buffer {
                buffer_len,
                window_bytes,
            } => {
                write!(f, "a send buffer of {buffer_len} bytes for a window of {window_bytes}")
            }
            Self::Timeouts => f.write_str("retransmission time-outs that do not rise from above zero"),
            Self::Path {
                len_bytes,
                path_len_max,
            } => {
                write!(
                    f,
                    "a HERALD path of {len_bytes} bytes, allowed are {path_len_max} without a NUL"
                )
            }
        }
    }
}

impl core::error::Error for ClientConfigError {}
