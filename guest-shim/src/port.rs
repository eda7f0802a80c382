//! The registers by which a guest tells the host where its panic record lies.
//!
//! The same 32 bytes of registers are reachable in two ways: through BAR 0 of a PCI function of its own, and at fixed
//! I/O ports for guests that scan no PCI. All registers are 32 bits wide and little-endian.

/// PCI vendor id. 1af4:10f0 to 1af4:10ff are free for experimental use (QEMU, docs/specs/pci-ids).
pub const PCI_VENDOR_ID: u16 = 0x1af4;
/// PCI device id, see [`PCI_VENDOR_ID`].
pub const PCI_DEVICE_ID: u16 = 0x10f7;
/// PCI subsystem id: tells the function from other experiments with the same ids.
pub const PCI_SUBSYSTEM_ID: u16 = 0xcf01;
/// Length of BAR 0 in bytes; the registers lie at its start.
pub const BAR_LEN: u64 = 4096;

/// First I/O port.
pub const IO_BASE: u16 = 0x0560;
/// Number of I/O ports; also the bytes of BAR 0 that hold registers.
pub const REGISTERS_LEN: u16 = 32;

/// Read: [`SIGNATURE_VALUE`].
pub const SIGNATURE: u16 = 0x00;
/// Read: highest record version that the host reads.
pub const VERSION: u16 = 0x04;
/// Read and write: bits 31..0 of the record's guest-physical address.
pub const RECORD_GPA_LOW: u16 = 0x08;
/// Read and write: bits 63..32 of the record's guest-physical address.
pub const RECORD_GPA_HIGH: u16 = 0x0c;
/// Read and write: bytes that the guest set aside for the record.
pub const RECORD_LEN: u16 = 0x10;
/// Write: one of the `DOORBELL_` values.
pub const DOORBELL: u16 = 0x14;
/// Read: one of the `STATUS_` values.
pub const STATUS: u16 = 0x18;

/// What [`SIGNATURE`] reads as: `CFSH`.
pub const SIGNATURE_VALUE: u32 = u32::from_le_bytes(*b"CFSH");

/// Take the address and length as the place of the record. Answered in [`STATUS`].
pub const DOORBELL_REGISTER: u32 = 1;
/// The record is filled. The host only notes it: the dump is started by pvpanic or another trigger.
pub const DOORBELL_COMPLETE: u32 = 2;
/// Forget the record's place (the guest is about to unload its driver).
pub const DOORBELL_FORGET: u32 = 3;

/// No record is registered.
pub const STATUS_NONE: u32 = 0;
/// The place of a record is known.
pub const STATUS_REGISTERED: u32 = 1;
/// The guest rang that the record is filled.
pub const STATUS_COMPLETE: u32 = 2;
/// The last registration was refused: not page-aligned, too short, or not inside guest memory.
pub const STATUS_REFUSED: u32 = 0xffff_ffff;
