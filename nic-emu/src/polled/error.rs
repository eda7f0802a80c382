//! What can go wrong while starting the driver or queueing a frame.

use core::fmt;

use super::{FRAME_LEN_MAX, WINDOW_ALIGN, WINDOW_LEN, Window};
use crate::limits::ETHERNET_HEADER_LEN;

/// Why the device could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolledError {
    /// The window is too short, not aligned, or wraps around.
    BadWindow {
        /// The window that was given.
        window: Window,
    },
    /// All registers read as ones: there is no device.
    NoDevice,
    /// CTRL.RST still reads 1 after this many reads.
    ResetStuck {
        /// Reads of CTRL.
        reads: u32,
    },
    /// The device has no link.
    NoLink {
        /// What STATUS read.
        status: u32,
    },
}

impl fmt::Display for PolledError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadWindow { window } => write!(
                f,
                "DMA window at {:#x}, {} bytes: need {WINDOW_LEN} bytes, aligned to {WINDOW_ALIGN}",
                window.gpa, window.len_bytes
            ),
            Self::NoDevice => write!(f, "em: every register reads as ones"),
            Self::ResetStuck { reads } => write!(f, "em: still in reset after {reads} reads of CTRL"),
            Self::NoLink { status } => write!(f, "em: no link, STATUS {status:#010x}"),
        }
    }
}

impl core::error::Error for PolledError {}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueError {
    /// Ring or buffer memory is full: [`Polled::kick`](super::Polled::kick), let the device run, try again.
    Full,
    /// The frame is shorter than an Ethernet header or longer than [`FRAME_LEN_MAX`].
    BadLength {
        /// Its length.
        len_bytes: usize,
    },
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "em: transmit ring full"),
            Self::BadLength { len_bytes } => {
                write!(
                    f,
                    "em: frame of {len_bytes} bytes, allowed {ETHERNET_HEADER_LEN} to {FRAME_LEN_MAX}"
                )
            }
        }
    }
}

impl core::error::Error for QueueError {}
