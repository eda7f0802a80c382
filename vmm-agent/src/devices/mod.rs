//! The guest's devices as state machines behind two buses: I/O ports and memory.
//!
//! A device gets an offset inside its own range and bytes, and answers [`IoOutcome`]; what concerns the whole machine
//! goes up as a [`Signal`], which the vCPU's thread acts on. No device knows KVM, threads or files.
//!
//! - [`bus`]: finds the device for a port or address
//! - [`serial`], [`console`]: a 16550A at 0x3f8; the tail of its output; the search for a panic in it
//! - [`guest`]: the devices that a user gives a guest; [`em`]: an Intel 82540EM
//! - [`virtio`]: network, block, entropy and balloon devices; [`worker`]: the threads that serve them
//! - [`pci`]: configuration mechanism 1, BARs, a host bridge
//! - [`posted`]: writes that wait until their device is looked at
//! - [`pvpanic`]: the panic register, at I/O port 0x505 and as a PCI function
//! - [`shim`]: the registers of the guest-shim, at I/O ports and as a PCI function
//! - [`power`]: power management, power off and the three ways to reset
//! - [`rtc`]: the clock with its memory
//! - [`fw_cfg`]: where guests say that their VMCOREINFO lies
pub mod bus;
pub mod console;
pub mod em;
pub mod fw_cfg;
pub mod guest;
pub mod pci;
pub mod posted;
pub mod power;
pub mod pvpanic;
pub mod rtc;
pub mod serial;
pub mod shim;
pub mod virtio;
pub mod worker;

use std::fmt;

/// What became of an access.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum IoOutcome {
    /// The device took it.
    Done,
    /// The device has nothing there or not in that width. Reads give all ones, writes are dropped; the bus counts.
    BadAccess(&'static str),
    /// The device took it, and the machine must act.
    Signal(Signal),
}

/// Something that concerns the whole machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// pvpanic: the guest panicked and the host should act.
    Panicked,
    /// pvpanic: the guest panicked and will dump itself.
    CrashLoaded,
    /// The guest asked to be powered off (ACPI S5).
    PowerOff,
    /// The guest asked to be reset.
    Reset,
    /// The console said that the kernel panics.
    PanicLine(String),
}

/// A device on the I/O port bus.
pub trait PioDevice: Send {
    /// Reads `data.len()` bytes (1, 2 or 4) at `offset` ports above the device's first one.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome;
    /// Writes likewise.
    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome;
}

/// A device in the memory address space.
pub trait MmioDevice: Send {
    /// Reads up to 8 bytes at `offset` bytes above the device's first address.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome;
    /// Writes likewise.
    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome;
}

/// The interrupt controllers, as devices see them.
pub trait Interrupts: fmt::Debug + Send + Sync {
    /// Raises or lowers an interrupt controller input. Failures are logged: a device can do nothing about them.
    fn set_line(&self, gsi: u32, asserted: bool);
    /// Sends a message-signalled interrupt (PCI Local Bus Specification 3.0, 6.8).
    fn signal_msi(&self, address: u64, data: u32);
}

/// Copies a little-endian register into an access of 1 to 8 bytes; wider ones are refused.
fn put(data: &mut [u8], value: u64) -> IoOutcome {
    if data.len() > 8 {
        return IoOutcome::BadAccess("wider than 8 bytes");
    }
    for (slot, byte) in data.iter_mut().zip(value.to_le_bytes()) {
        *slot = byte;
    }
    IoOutcome::Done
}

/// The little-endian value of an access of up to 8 bytes.
fn get(data: &[u8]) -> u64 {
    data.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
