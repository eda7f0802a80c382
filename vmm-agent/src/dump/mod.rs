//! The dump agent's way out: a frozen machine becomes a vmcore, and the vmcore gets to a receiver or to disk. Everything
//! runs on the caller's thread, on blocking calls that end at the next deadline.
//!
//! ```text
//!  DumpSource ──► CoreFile ──► pieces ──┬─► sender: netdump client ─► station ─► DumpPort (em) ─► Wire ─► receiver
//!  (frozen guest) (the plan)  (one pass)└─► spool:  NAME-ID.vmcore.part ─► fsync ─► rename
//!
//!  ferry:  target 1 ──no──► target 2 ──no──► … ──no──► spool ──no──► Lost
//!             │yes             │yes                      │yes
//!          Received         Received                  Spooled         (cancelled at any time: Cancelled)
//! ```
//!
//! - [`source`]: what a dump is made from
//! - [`core_file`]: the vmcore as a stream of pieces
//! - [`filter`]: what is left out of a Linux guest's core
//! - [`port`]: the agent's own em, between frames and a wire
//! - [`sender`]: one conversation with one receiver
//! - [`spool`]: the core as a file
//! - [`mod@ferry`]: receivers in order, then the spool
//! - `contained`: a bug in one step does not cost the core
//! - [`outcome`], [`progress`], [`address`], [`limits`]

pub mod address;
pub(crate) mod contained;
pub mod core_file;
pub mod ferry;
pub mod filter;
pub mod limits;
pub mod outcome;
pub mod port;
pub mod progress;
mod send_error;
pub mod sender;
pub mod source;
pub mod spool;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "memory of a test is small")]
mod test_source;
#[cfg(test)]
mod tests;

pub use address::{ClientAddress, ClientAddressError, ClientNetwork, Target, mac_for_vm};
pub use core_file::{CoreFile, CoreFileError, Piece, Pieces};
pub use ferry::{DumpJob, OpenWire, ferry, ferry_with};
pub use filter::{FilterFailure, FilteredMemory, filtered_memory};
pub use outcome::{DumpOutcome, SpoolFailure, TargetFailure};
pub use port::{DumpPort, PortError};
pub use progress::{Phase, Progress, ProgressSnapshot};
pub use sender::{Patience, SendError};
pub use source::{DumpSource, SourceError};
pub use spool::SpoolError;
