//! Virtio devices as PCI functions (Virtual I/O Device specification 1.2; section numbers below are its).
//!
//! ```text
//!  vCPU: BAR access ──► transport (registers, under the function's lock)
//!                          │ DRIVER_OK: queues        │ notify: wake
//!                          ▼                          ▼
//!                       backend (device and queues) ◄── worker thread: rounds behind the machine's gate
//!                          │ used buffers
//!                          ▼
//!                       interrupt (ISR, MSI-X or INTx; a lock of its own that is never held around others)
//! ```
//!
//! - [`transport`]: the PCI function: capabilities, BAR, reset, activation
//! - [`common`]: the common configuration structure
//! - [`interrupt`]: how the guest hears of used buffers
//! - `orders`: what the driver wants, on its way to the worker
//! - [`queue`]: virtqueues, and descriptor chains as byte ranges of guest memory
//! - [`device`]: what a device is to the transport
//! - [`net`], [`block`], [`entropy`], [`balloon`]: the devices
//! - [`limits`]: every bound with its reason
pub mod balloon;
pub mod block;
pub mod common;
pub mod device;
pub mod entropy;
pub mod interrupt;
pub mod limits;
pub mod net;
mod orders;
pub mod queue;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
pub mod transport;

pub use device::{Identity, VirtioDevice};
pub use transport::VirtioPci;
