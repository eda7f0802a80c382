//! Configuration space of device 1 as tests reach it: by the two ports (PCI Local Bus Specification 3.0, 3.2.2.3.2).

use super::PciRoot;
use crate::devices::bus::Shared;
use crate::devices::{IoOutcome, PioDevice};

/// The four bytes at `register`.
pub(crate) fn read(root: &mut Shared<PciRoot>, register: u32) -> u32 {
    let address = 0x8000_0000_u32 | 1 << 11 | register;
    assert_eq!(PioDevice::write(root, 0, &address.to_le_bytes()), IoOutcome::Done);
    let mut data = [0; 4];
    assert_eq!(PioDevice::read(root, 4, &mut data), IoOutcome::Done);
    u32::from_le_bytes(data)
}

/// Writes the four bytes at `register`, whose reading selects them.
pub(crate) fn write(root: &mut Shared<PciRoot>, register: u32, value: u32) {
    read(root, register);
    assert_eq!(PioDevice::write(root, 4, &value.to_le_bytes()), IoOutcome::Done);
}
