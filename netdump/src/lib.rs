//! The netdump protocol (netdump(4) of FreeBSD): a client that sends a dump, a session that receives one, and what
//! both stand on. No I/O, no clock, no threads: bytes and `now` come in, bytes and deadlines go out. The client, the
//! station and the wire format allocate nothing, so that they run inside a guest that has just crashed.
//!
//! ```text
//!  client                                            session (one per dump)
//!
//!  Connecting  HERALD -> port 20023, repeated   ---> Waiting     acknowledged at once, from a port of its own
//!     | first ack: its port is learned               | first bytes
//!     v                                              v
//!  Sending     window of <= 64 packets, 64 KiB  ---> Receiving   a packet is acknowledged when storage has taken it
//!     | finish() and everything acknowledged         | FINISHED
//!     v                                              v
//!  Finishing   FINISHED, repeated               ---> Committing  coverage is frozen; repeats are answered again
//!     | acknowledged                                 | durable(): FINISHED is acknowledged
//!     v                                              v
//!  Over: Finished                                    Lingering   repeats are answered for 15 s, then LingerOver
//!
//!  Over: Failed(NoAnswer 15 s | Silent 12 s |        Ended: Silent (60 s stock, 30 s ours) while Waiting or Receiving,
//!               Unfinished 30 s)                            or refuse() at any time; nothing is acknowledged any more
//! ```
//!
//! * [`wire`]: messages and acknowledgements as bytes
//! * [`client`]: the sending end; [`station`]: the Ethernet host it speaks through where there is no socket
//! * [`server`]: the receiving end of one dump; [`extents`]: what of a file has arrived
//! * `sim`: a seeded, lossy link in virtual time, models of stock ends, invariants (tests only)
//! * [`time`], [`limits`]

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod client;
#[cfg(feature = "alloc")]
pub mod extents;
pub mod limits;
#[cfg(feature = "alloc")]
pub mod server;
#[cfg(feature = "sim")]
pub mod sim;
pub mod station;
pub mod time;
pub mod wire;

pub use client::{Client, ClientConfig, ClientError, ClientEvent, ClientStats, Transmit};
#[cfg(feature = "alloc")]
pub use extents::{Extents, TooManyExtents};
#[cfg(feature = "alloc")]
pub use server::{
    Accepted, AckPolicy, DisplacedPage, FinishTicket, Rejected, ResumePoint, Resumed, Session, SessionEvent,
    SessionLimits, SessionStats, Ticket,
};
pub use station::{Station, StationConfig, StationError, StationState, UdpIn};
pub use time::Instant;
pub use wire::{Header, Kind, Seqno, WireError};
