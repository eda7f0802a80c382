//! The device: [`Em`], a pure state machine.
//!
//! - `dispatch`: one access in, the right part called; reset and link
//! - `registers`: the register file, filled from the table of [`crate::spec::registers`]
//! - `tx`, `offload`: the transmit ring; checksums and segmentation as functions on bytes
//! - `rx`, `filter`: the receive ring; which frames are for us
//! - `irq`: causes, mask, moderation; `stats`: counters; `nvm`: EEPROM; `mdic`: PHY; `ring`: checked index math
//! - `state`: save and restore

mod effects;

pub use effects::{
    Actions, ChecksumOffload, Dma, DmaError, FrameSink, Offload, Offloads, Segmentation, SegmentationKind, TxFrame,
};

/// What a device is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmConfig {
    /// Station address; must be unicast and not zero, or drivers refuse it.
    pub mac: [u8; 6],
}

/// The device. Times are nanoseconds of one monotonic clock of the caller's.
#[derive(Debug)]
pub struct Em {
    config: EmConfig,
}

/// Everything that a device remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmState {}

impl Em {
    /// A device after power-on, link up, bus master off.
    pub fn new(config: EmConfig) -> Self {
        Self { config }
    }
    /// Reads a register of BAR0. Only aligned accesses of 4 bytes (or 8, as two) have side effects.
    pub fn mmio_read(&mut self, _now_ns: u64, _offset: u32, _data: &mut [u8]) -> Actions {
        Actions::default()
    }
    /// Writes a register of BAR0. Accesses that are not aligned 4 bytes (or 8, as two) are ignored and counted.
    pub fn mmio_write(&mut self, _now_ns: u64, _offset: u32, _data: &[u8]) -> Actions {
        Actions::default()
    }
    /// Reads the I/O BAR.
    pub fn io_read(&mut self, _now_ns: u64, _offset: u32, _data: &mut [u8]) -> Actions {
        Actions::default()
    }
    /// Writes the I/O BAR.
    pub fn io_write(&mut self, _now_ns: u64, _offset: u32, _data: &[u8]) -> Actions {
        Actions::default()
    }
    /// Sends what waits in the transmit ring; returns how many descriptors were taken. A bounded amount per call: while
    /// [`transmit_pending`](Self::transmit_pending), call again.
    pub fn transmit(&mut self, _now_ns: u64, _dma: &mut impl Dma, _sink: &mut impl FrameSink) -> usize {
        0
    }
    /// Is there anything that [`transmit`](Self::transmit) would do?
    pub fn transmit_pending(&self) -> bool {
        false
    }
    /// Offers frames (without CRC); returns how many of them, from the first on, the device is done with.
    pub fn receive(&mut self, _now_ns: u64, _dma: &mut impl Dma, _frames: &[&[u8]]) -> usize {
        0
    }
    /// Would [`receive`](Self::receive) take a frame now?
    pub fn can_receive(&self) -> bool {
        false
    }
    /// The level of INTA#: true is asserted.
    pub fn irq_level(&self) -> bool {
        false
    }
    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<u64> {
        None
    }
    /// Does what is due at `now_ns`.
    pub fn handle_timeout(&mut self, _now_ns: u64) -> Actions {
        Actions::default()
    }
    /// The wire's link went up or down.
    pub fn set_link(&mut self, _now_ns: u64, _up: bool) -> Actions {
        Actions::default()
    }
    /// PCI command register bit 2: without it there is no DMA, so nothing is sent or received.
    pub fn set_bus_master(&mut self, _on: bool) -> Actions {
        Actions::default()
    }
    /// Everything the device remembers; deadlines become relative to `now_ns`.
    pub fn save(&self, _now_ns: u64) -> EmState {
        EmState {}
    }
    /// Continues from a saved state.
    pub fn restore(&mut self, _now_ns: u64, _state: EmState) {}
}
