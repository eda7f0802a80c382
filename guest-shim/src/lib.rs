//! What lives inside the guest: the panic record that a dying kernel leaves for the host, the reporter that fills it,
//! and the small bare-metal demo guest. The host side uses the same modules to read what the guest wrote, so both ends
//! share one definition of every offset. `docs/guest-shim.md` is the specification in prose.
//!
//! ```text
//!            register area            fill record             pvpanic PANICKED
//!   empty ───────────────► waiting ───────────────► complete ─────────────────► the host dumps
//!                             │   (sequence numbers differ: torn, the host ignores what it holds)
//!                             └────────────────────────────► the host dumps without a message
//! ```
//!
//! - [`abi`]: the panic record's bytes, and their parser for the host
//! - [`port`]: the registers by which the guest tells the host where the record lies
//! - [`reporter`]: the guest's side: fills a record without allocating
//! - [`boot`]: the boot information that plain ELF64 guests are entered with
//! - [`pattern`]: the memory pattern of the demo guest
//! - [`self_dump`]: a guest that dumps itself through an em of its own, without the host's help
//! - [`demo`]: the demo guest's ELF image (feature `demo-image`)
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

pub mod abi;
pub mod boot;
#[cfg(feature = "demo-image")]
pub mod demo;
pub mod pattern;
pub mod port;
pub mod reporter;
pub mod self_dump;

pub use abi::{GuestRange, PanicRecord, RecordError, Registers, Text};
#[cfg(feature = "demo-image")]
pub use demo::DEMO_GUEST_ELF;
