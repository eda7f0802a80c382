//! The Intel 82540EM gigabit controller ("em", "e1000") as a specification, a device and a driver. The device is a pure
//! state machine: guest accesses, frames and the time go in, frames, an interrupt level and a deadline come out. The
//! driver is polled, uses the device's public registers only and runs on the host side as well as inside a guest.
//!
//! ```text
//!              registers                     descriptor rings, buffers
//!   driver ──────────────► ┌───────────────┐ ◄──────────────────────── memory
//!  (guest, or [`polled`])  │      Em       │            [`Dma`]
//!          ◄────────────── │ tx   rx   irq │ ────────────────────────► wire
//!           level, Actions └───────────────┘   [`FrameSink`], receive()
//!
//!   power on ──► reset ──► TCTL.EN ──► TDT written ──► transmit() ──► TDH == TDT
//!                  ▲  └──► RCTL.EN ──► RDT written ──► receive()  ──► RDH == RDT
//!                  └────── CTRL.RST (by BAR0 or by IOADDR/IODATA) from every state
//! ```
//!
//! - [`spec`]: registers, descriptors, EEPROM image and PHY as constants and plain codecs; needs no allocator
//! - [`device`]: the device (feature `device`, needs an allocator)
//! - [`polled`]: the driver without interrupts; needs no allocator
//! - [`limits`]: every bound, with its reason

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

#[cfg(feature = "device")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod bits;
#[cfg(feature = "device")]
pub mod device;
pub mod limits;
pub mod polled;
pub mod spec;

#[cfg(feature = "device")]
pub use device::{
    Actions, ChecksumOffload, Dma, DmaError, EepromWrites, Em, EmConfig, EmState, Faults, FrameSink, Offload, Offloads,
    Segmentation, SegmentationKind, StateError, TxFrame,
};
pub use polled::{Bus, Polled, PolledError, QueueError, Window};
