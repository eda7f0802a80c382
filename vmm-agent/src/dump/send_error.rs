//! Why a receiver did not get the core, as sentences that say what to look at.

use std::net::Ipv4Addr;

use netdump::StationError;
use netdump::client::ClientConfigError;

use super::core_file::CoreFileError;
use super::port::PortError;
use crate::net::WireError;

/// Why a receiver did not get the core.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The addresses make no network.
    #[error("the dump port's addresses do not fit: {0}")]
    Station(#[from] StationError),
    /// The client cannot be made so.
    #[error("the dump client cannot be made: {0}")]
    Client(#[from] ClientConfigError),
    /// The next hop does not answer ARP.
    #[error("{role} {who} does not answer ARP on {wire}: {advice}")]
    NoNextHop {
        /// What it is to us.
        role: &'static str,
        /// Its address.
        who: Ipv4Addr,
        /// The wire's name.
        wire: String,
        /// What to look at.
        advice: String,
    },
    /// Nobody answered the HERALD.
    #[error("receiver {target} did not answer within {within_s} s: {advice}")]
    NoAnswer {
        /// The receiver.
        target: String,
        /// How long it was tried, in seconds.
        within_s: u64,
        /// What to look at.
        advice: String,
    },
    /// It answered and then fell silent.
    #[error("receiver {target} fell silent for {silent_s} s with {acked_bytes} bytes acknowledged: {advice}")]
    Silent {
        /// The receiver.
        target: String,
        /// How long nothing came, in seconds.
        silent_s: u64,
        /// What it has of the core, in bytes.
        acked_bytes: u64,
        /// What to look at.
        advice: String,
    },
    /// It has every byte and did not say that it kept them.
    #[error(
        "receiver {target} took the whole core and did not confirm it within {within_s} s: is its disk full or slow?"
    )]
    Unfinished {
        /// The receiver.
        target: String,
        /// How long it was waited for, in seconds.
        within_s: u64,
    },
    /// The wire cannot be opened, or is gone for good.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The dump port's device does not start.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The core cannot be made.
    #[error(transparent)]
    Core(#[from] CoreFileError),
    /// Somebody asked for the end.
    #[error("the dump was cancelled")]
    Cancelled,
    /// The time for the whole dump is over.
    #[error("the dump's deadline has passed")]
    DeadlinePassed,
}

impl SendError {
    /// Whether no other receiver, and no spool, should be tried after this.
    pub(super) fn ends_everything(&self) -> bool {
        matches!(self, Self::Cancelled | Self::DeadlinePassed | Self::Core(_))
    }
}
