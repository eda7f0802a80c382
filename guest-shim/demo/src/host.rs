//! What the guest asks of its host: to know the panic record, to see a panic, to power off and to reset.
use core::sync::atomic::{AtomicU64, Ordering};

use guest_shim::port;
use guest_shim::reporter::ShimRegisters;

use crate::cpu::{in32, out8, out16, out32};

/// ISA pvpanic (QEMU docs/specs/pvpanic).
const PVPANIC_PORT: u16 = 0x505;
const PVPANIC_ID: u32 = 0x0011_1b36;
const SHIM_ID: u32 = (port::PCI_DEVICE_ID as u32) << 16 | port::PCI_VENDOR_ID as u32;
/// Intel 82540EM.
const EM_ID: u32 = 0x100e_8086;
/// PCI Local Bus Specification 3.0, 6.2.2: the function answers in memory space, and may be a master.
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;

/// pvpanic: panicked.
pub const PANICKED: u8 = 1;
/// pvpanic: panicked, and this guest deals with it.
pub const CRASHLOADED: u8 = 2;

/// BARs that a PCI scan found; 0 means: use the ports.
static PVPANIC_BAR: AtomicU64 = AtomicU64::new(0);
static SHIM_BAR: AtomicU64 = AtomicU64::new(0);

/// Finds the devices on the PCI bus and uses them from now on. Returns whether both are there.
pub fn use_pci() -> bool {
    for device in 0..32 {
        let bar = u64::from(config_read(device, 0x10) & !0xf);
        match config_read(device, 0) {
            PVPANIC_ID => PVPANIC_BAR.store(bar, Ordering::Relaxed),
            SHIM_ID => SHIM_BAR.store(bar, Ordering::Relaxed),
            _ => {}
        }
    }
    PVPANIC_BAR.load(Ordering::Relaxed) != 0 && SHIM_BAR.load(Ordering::Relaxed) != 0
}

/// Finds an em on the PCI bus and lets it reach memory. Returns where its registers are.
pub fn find_em() -> Option<u64> {
    let device = (0..32).find(|device| config_read(*device, 0) == EM_ID)?;
    let command = config_read(device, 4);
    config_write(device, 4, command & 0xffff | COMMAND_MEMORY | COMMAND_BUS_MASTER);
    Some(u64::from(config_read(device, 0x10) & !0xf))
}

fn config_write(device: u32, register: u32, value: u32) {
    out32(0xcf8, 0x8000_0000 | device << 11 | register);
    out32(0xcfc, value);
}

/// Configuration mechanism 1, bus 0, function 0.
fn config_read(device: u32, register: u32) -> u32 {
    out32(0xcf8, 0x8000_0000 | device << 11 | register);
    in32(0xcfc)
}

/// Tells the host of a panic.
pub fn pvpanic(event: u8) {
    match PVPANIC_BAR.load(Ordering::Relaxed) {
        0 => out8(PVPANIC_PORT, event),
        bar => {
            let register = core::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(bar).unwrap_or(0));
            // SAFETY: the BAR is mapped one to one and holds a device register, not memory of this program.
            unsafe { register.write_volatile(event) };
        }
    }
}

/// Powers off: SLP_EN with sleep type 0 into PM1a control.
pub fn power_off() {
    out16(0x604, 1 << 13);
}

/// Resets by the reset control register.
pub fn reset() {
    out8(0xcf9, 0x06);
}

/// Resets by the keyboard controller.
pub fn reset_by_keyboard() {
    out8(0x64, 0xfe);
}

/// The shim's registers, by ports or by its BAR.
pub struct Shim;

impl Shim {
    fn register(offset: u16) -> Option<*mut u32> {
        let bar = usize::try_from(SHIM_BAR.load(Ordering::Relaxed)).unwrap_or(0);
        (bar != 0).then(|| core::ptr::with_exposed_provenance_mut(bar + usize::from(offset)))
    }
}

impl ShimRegisters for Shim {
    fn read(&mut self, offset: u16) -> u32 {
        match Shim::register(offset) {
            // SAFETY: as in `pvpanic`; the registers are 32 bits wide and aligned.
            Some(register) => unsafe { register.read_volatile() },
            None => in32(port::IO_BASE + offset),
        }
    }

    fn write(&mut self, offset: u16, value: u32) {
        match Shim::register(offset) {
            // SAFETY: as in `read`.
            Some(register) => unsafe { register.write_volatile(value) },
            None => out32(port::IO_BASE + offset, value),
        }
    }
}
