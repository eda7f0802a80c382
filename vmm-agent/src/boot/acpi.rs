//! The tables by which a guest learns of its machine (ACPI specification 6.5): processors, interrupt controllers, power
//! registers, and the devices that no bus can be asked for.
use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::layout::{ACPI_GPA, HIGH_START};
use super::{KernelError, dsdt};
use crate::devices::power::{PM_TIMER_PORT, PM1A_CONTROL_PORT, PM1A_EVENT_PORT, RESET_PORT, RESET_VALUE};
use crate::memory::{Bytes as _, GuestAddress, GuestMemory};

const OEM: [u8; 6] = *b"COREFY";
const OEM_TABLE: [u8; 8] = *b"COREFRRY";
const OEM_REVISION: u32 = 1;
/// Addresses that KVM's interrupt controllers have.
const LOCAL_APIC_GPA: u32 = 0xfee0_0000;
const IO_APIC_GPA: u32 = 0xfec0_0000;
/// Interrupt of the power management registers. Nothing ever raises it; guests insist on one.
const SCI_IRQ: u8 = 9;
/// IAPC_BOOT_ARCH (5.2.9.3): there are ISA devices; bit 1 (keyboard controller) stays clear, so guests do not wait for one.
const BOOT_ARCH_LEGACY: u16 = 1 << 0;
/// IAPC_BOOT_ARCH: no VGA.
const BOOT_ARCH_NO_VGA: u16 = 1 << 2;

/// Writes all tables for `vcpus` processors; returns the address of the root pointer.
///
/// # Errors
/// [`KernelError`] if guest memory has no room for them.
pub(super) fn write(memory: &GuestMemory, vcpus: u8) -> Result<u64, KernelError> {
    let mut place = Place {
        memory,
        next_gpa: ACPI_GPA + 64,
    };
    let facs_gpa = place.put(&bytes(&FACS::new()))?;
    let dsdt_gpa = place.put(table(*b"DSDT", 2, &dsdt::devices()).as_slice())?;
    let fadt_gpa = place.put(&fadt(facs_gpa, dsdt_gpa))?;
    let madt_gpa = place.put(madt(vcpus).as_slice())?;
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt_gpa);
    xsdt.add_entry(madt_gpa);
    let xsdt_gpa = place.put(&bytes(&xsdt))?;
    place.next_gpa = ACPI_GPA;
    place.put(&bytes(&Rsdp::new(OEM, xsdt_gpa)))
}

/// Puts tables one after the other, each at a multiple of 64 as the FACS must lie (5.2.10).
struct Place<'a> {
    memory: &'a GuestMemory,
    next_gpa: u64,
}

impl Place<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64, KernelError> {
        let gpa = self.next_gpa;
        let end = gpa + table.len() as u64;
        if end > HIGH_START {
            return Err(KernelError::Format {
                why: "its ACPI tables do not fit below 1 MiB".to_owned(),
            });
        }
        let place_error = |source| KernelError::Place {
            what: "ACPI tables",
            source,
        };
        self.memory
            .ram()
            .write_slice(table, GuestAddress(gpa))
            .map_err(place_error)?;
        self.next_gpa = end.next_multiple_of(64);
        Ok(gpa)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Fixed hardware (5.2.9): power management without a mode switch (no SMI command), power off, reset.
fn fadt(facs_gpa: u64, dsdt_gpa: u64) -> Vec<u8> {
    let below_4_gib = |gpa| u32::try_from(gpa).unwrap_or(0);
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.firmware_ctrl = below_4_gib(facs_gpa).into();
    fadt.dsdt = below_4_gib(dsdt_gpa).into();
    fadt.x_dsdt = dsdt_gpa.into();
    fadt.sci_int = u16::from(SCI_IRQ).into();
    fadt.pm1a_evt_blk = u32::from(PM1A_EVENT_PORT).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(PM1A_CONTROL_PORT).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(PM_TIMER_PORT).into();
    fadt.pm_tmr_len = 4;
    // Latencies above these mean that there is no C2 and no C3.
    fadt.p_lvl2_lat = 101.into();
    fadt.p_lvl3_lat = 1001.into();
    fadt.iapc_boot_arch = (BOOT_ARCH_LEGACY | BOOT_ARCH_NO_VGA).into();
    fadt.reset_reg = GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(RESET_PORT),
    );
    fadt.reset_value = RESET_VALUE;
    bytes(&fadt.finalize())
}

/// Processors and interrupt controllers (5.2.12). ISA interrupts are wired one to one.
fn madt(vcpus: u8) -> Sdt {
    // Flags: there are also two 8259s.
    let mut body = [LOCAL_APIC_GPA.to_le_bytes(), 1_u32.to_le_bytes()].concat();
    for id in 0..vcpus {
        // Processor local APIC: type, length, uid, APIC id, enabled.
        body.extend([0, 8, id, id, 1, 0, 0, 0]);
    }
    // I/O APIC: type, length, id, reserved, address, first interrupt.
    body.extend([1, 12, 0, 0]);
    body.extend(IO_APIC_GPA.to_le_bytes());
    body.extend([0; 4]);
    // Interrupt source override: ISA, source, interrupt, active high (1) and level (3 << 2).
    body.extend([2, 10, 0, SCI_IRQ, SCI_IRQ, 0, 0, 0, 1 | 3 << 2, 0]);
    // Local APIC NMI: all processors, polarity and trigger as the bus has them, LINT1.
    body.extend([4, 6, 0xff, 0, 0, 1]);
    table(*b"APIC", 4, &body)
}

fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    let mut table = Sdt::new(signature, 36, revision, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(body);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(memory: &GuestMemory, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        memory.read_at(gpa, &mut bytes).unwrap();
        bytes
    }

    fn u32_in(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// A whole table, its checksum checked.
    fn table_at(memory: &GuestMemory, gpa: u64) -> Vec<u8> {
        let len = u32_in(&read(memory, gpa + 4, 4), 0);
        let table = read(memory, gpa, usize::try_from(len).unwrap());
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "checksum of {}", String::from_utf8_lossy(&table[..4]));
        table
    }

    #[test]
    fn every_table_is_reached_from_the_root_pointer() {
        let memory = GuestMemory::create(8).unwrap();
        let root = write(&memory, 3).unwrap();
        assert_eq!(root, ACPI_GPA);
        let rsdp = read(&memory, root, 36);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        let xsdt = table_at(&memory, u64::from(u32_in(&rsdp, 24)));
        assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 2 * 8));
        let fadt = table_at(&memory, u64::from(u32_in(&xsdt, 36)));
        assert_eq!((&fadt[..4], fadt.len()), (&b"FACP"[..], 276));
        assert_eq!(&read(&memory, u64::from(u32_in(&fadt, 36)), 4), b"FACS");
        assert_eq!(u32_in(&fadt, 36) % 64, 0);
        assert_eq!(
            (u32_in(&fadt, 56), u32_in(&fadt, 64), u32_in(&fadt, 76)),
            (0x600, 0x604, 0x608)
        );
        assert_eq!((u32_in(&fadt, 120), fadt[128]), (0xcf9, 6), "reset register");
        let dsdt = table_at(&memory, u64::from(u32_in(&fadt, 40)));
        assert_eq!(&dsdt[..4], b"DSDT");
        for name in [&b"PCI0"[..], b"_PRT", b"QEMU0001", b"QEMU0002", b"COM1", b"_S5_"] {
            assert!(
                dsdt.windows(name.len()).any(|bytes| bytes == name),
                "{}",
                String::from_utf8_lossy(name)
            );
        }
        let madt = table_at(&memory, u64::from(u32_in(&xsdt, 44)));
        assert_eq!((&madt[..4], u32_in(&madt, 36)), (&b"APIC"[..], LOCAL_APIC_GPA));
        let mut kinds = Vec::new();
        let mut at = 44;
        while at < madt.len() {
            kinds.push(madt[at]);
            at += usize::from(madt[at + 1]);
        }
        assert_eq!((kinds, at), (vec![0, 0, 0, 1, 2, 4], madt.len()));
    }

    #[test]
    fn memory_without_room_is_an_error() {
        let memory = GuestMemory::create(1).unwrap();
        assert!(write(&memory, 8).is_ok(), "one MiB holds the tables");
        assert!(
            Place {
                memory: &memory,
                next_gpa: HIGH_START - 64
            }
            .put(&[0; 65])
            .is_err()
        );
    }
}
