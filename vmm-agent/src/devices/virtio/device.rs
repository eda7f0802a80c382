//! What a virtio device is to the transport.
use std::io;
use std::os::fd::OwnedFd;

use super::queue::{Broken, VirtQueue};
use crate::devices::worker::After;
use crate::memory::GuestMemory;

/// Feature bit: complies with version 1 of the specification (6, `VIRTIO_F_VERSION_1`). Without it nothing works here.
pub const F_VERSION_1: u64 = 1 << 32;
/// Feature bit: descriptors may point to tables of descriptors (`VIRTIO_F_INDIRECT_DESC`).
pub const F_INDIRECT: u64 = 1 << 28;
/// Feature bit: notifications are asked for by position (`VIRTIO_F_EVENT_IDX`).
pub const F_EVENT_IDX: u64 = 1 << 29;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device type (5).
    pub device_type: u16,
    /// PCI class, subclass, interface.
    pub class: u32,
}

/// A device behind the transport. It runs on its worker's thread.
pub trait VirtioDevice: Send + 'static {
    /// What it is.
    fn identity(&self) -> Identity;

    /// The feature bits of its own that it offers.
    fn features(&self) -> u64;

    /// The largest size of each of its queues.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Its configuration structure after power-on.
    fn config(&self) -> Vec<u8>;

    /// Which bytes of it the driver may write.
    fn config_writable(&self) -> std::ops::Range<usize> {
        0..0
    }

    /// The driver is ready and has chosen these features.
    fn start(&mut self, features: u64) {
        let _ = features;
    }

    /// The driver reset the device.
    fn reset(&mut self) {}

    /// Serves its queues, a bounded amount. Queues that the driver did not set up are not ready and give nothing.
    ///
    /// # Errors
    /// [`Broken`] if the guest's rings make no sense.
    fn work(&mut self, queues: &mut [VirtQueue], memory: &GuestMemory) -> Result<After, Broken>;

    /// What besides the driver's notifications brings work.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}
