//! Why a guest could not dump itself.
use core::fmt;
use core::net::Ipv4Addr;

use netdump::client::ClientConfigError;
use netdump::{ClientError, StationError};
use nic_emu::polled::PolledError;

/// Why the dump failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfDumpError {
    /// The em does not start.
    Driver(PolledError),
    /// The addresses make no sense.
    Station(StationError),
    /// The client cannot be made so.
    Client(ClientConfigError),
    /// Nobody has the address of the next hop.
    NoNextHop {
        /// That address.
        who: Ipv4Addr,
    },
    /// The receiver did not answer, or not to the end.
    Receiver(ClientError),
}

impl From<PolledError> for SelfDumpError {
    fn from(error: PolledError) -> Self {
        Self::Driver(error)
    }
}

impl From<StationError> for SelfDumpError {
    fn from(error: StationError) -> Self {
        Self::Station(error)
    }
}

impl From<ClientConfigError> for SelfDumpError {
    fn from(error: ClientConfigError) -> Self {
        Self::Client(error)
    }
}

impl From<ClientError> for SelfDumpError {
    fn from(error: ClientError) -> Self {
        Self::Receiver(error)
    }
}

impl fmt::Display for SelfDumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => write!(f, "{error}"),
            Self::Station(error) => write!(f, "{error}"),
            Self::Client(error) => write!(f, "{error}"),
            Self::NoNextHop { who } => write!(f, "no answer to ARP for {who}"),
            Self::Receiver(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for SelfDumpError {}
