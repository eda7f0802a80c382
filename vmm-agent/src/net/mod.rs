//! The frame backends: where Ethernet frames of an emulated em leave this process and come back.
//! A [`Wire`] takes batches, hands received frames one by one, and is waited on with a deadline.
//! A frame may be lost on any of them, as on a cable; only [`WireError::Lost`] means that nothing will ever pass again.
//!
//! | wire | privileges | what it is |
//! | --- | --- | --- |
//! | [`user`] | none | answers ARP for a virtual gateway, relays UDP flows to sockets of the host |
//! | [`tap`] | an existing TAP that the user may open | frames on a bridge or a routed interface of the host |
//! | [`stream`] | a unix socket | length-prefixed frames, as passt(1) and QEMU's `-netdev stream` speak |
//!
//! Around any of them: [`capture`] writes down what crosses, [`fault`] does to frames what a bad network does.

use std::os::fd::AsFd;
use std::time::Duration;

use nic_emu::device::FrameSink;

pub mod capture;
mod drops;
pub mod fault;
pub mod frame;
pub mod framing;
pub mod instruments;
mod ioctl;
pub mod limits;
mod link;
pub mod spec;
pub mod stream;
pub mod tap;
pub mod user;
mod wait;

pub use capture::Capture;
pub use fault::FaultPlan;
pub use instruments::Instruments;
pub use link::Link;
pub use spec::{WireSpec, WireSpecError};
pub use stream::StreamWire;
pub use tap::TapWire;
pub use user::{UserConfig, UserWire};

use std::net::Ipv4Addr;

/// Where frames leave this process and come back.
///
/// Sending never fails here: a frame that cannot leave is a lost frame. What is wrong for good is told by the next
/// [`Wire::receive`] or [`Wire::wait`]; what is wrong for now is told by [`Wire::hint`].
pub trait Wire: FrameSink + AsFd + Send {
    /// Hands every frame that waits (up to a batch) to `deliver`, without blocking; returns how many.
    ///
    /// # Errors
    /// [`WireError::Lost`] when no frame will ever pass again.
    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<usize, WireError>;

    /// Blocks until a frame may wait or `timeout` has passed; both are `Ok`.
    ///
    /// # Errors
    /// [`WireError::Lost`] when no frame will ever pass again.
    fn wait(&self, timeout: Duration) -> Result<(), WireError>;

    /// How people call this wire, e.g. `tap0` or `user`.
    fn name(&self) -> String;

    /// The largest IP packet in bytes that this wire can carry.
    fn mtu_max(&self) -> u16;

    /// The IP packet length in bytes that is a good choice towards `server` when nobody said otherwise.
    fn mtu_towards(&self, server: Ipv4Addr) -> u16 {
        let _ = server;
        limits::MTU_ETHERNET
    }

    /// The cable behind the wire, where it can be pulled out and plugged in again.
    fn link(&self) -> Option<Box<dyn Link>> {
        None
    }

    /// What the wire knows about a silence, as the end of a sentence, e.g. `nothing listens on 192.0.2.7:20023`.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Why a wire cannot be opened, or is gone.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It could not be opened; the text says what to do.
    #[error("{wire}: {why}")]
    Open {
        /// The wire's name.
        wire: String,
        /// What was tried, and what to do about it.
        why: String,
    },
    /// It was open and is gone for good.
    #[error("{wire} is gone: {why}")]
    Lost {
        /// The wire's name.
        wire: String,
        /// What was seen.
        why: String,
    },
}

impl WireError {
    fn open(wire: &str, why: impl Into<String>) -> Self {
        Self::Open {
            wire: wire.to_owned(),
            why: why.into(),
        }
    }

    fn lost(wire: &str, why: impl Into<String>) -> Self {
        Self::Lost {
            wire: wire.to_owned(),
            why: why.into(),
        }
    }
}
