//! What the tables say in ACPI machine language: the PCI bus with its windows and interrupts, ISA devices, soft off.
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, IO, Interrupt, Method, Name, OpRegion, OpRegionSpace, Package, PackageBuilder, Path,
    ResourceTemplate, Return, Scope, Store,
};

use crate::devices::fw_cfg::{FW_CFG_PORT, FW_CFG_PORTS};
use crate::devices::pci::{BAR_MEMORY_END, CONFIG_ADDRESS_PORT, CONFIG_DATA_PORT, DEVICES_MAX, intx_gsi};
use crate::devices::pvpanic::PVPANIC_PORT;
use crate::devices::rtc::{RTC_PORT, RTC_PORTS};
use crate::devices::serial::{SERIAL_IRQ, SERIAL_PORT, SERIAL_PORTS};
use crate::limits::LOW_RAM_MAX_BYTES;

/// _STA (ACPI specification 6.3.7): present, enabled, shown, working.
const STATUS: u8 = 0xf;

/// The body of the DSDT.
pub(super) fn devices() -> Vec<u8> {
    let status = Name::new(path("_STA"), &STATUS);
    let pci = pci_root();
    let mut bytes = Vec::new();
    // What these devices are called in QEMU's tables is what drivers look for.
    let com1_irq = Interrupt::new(true, true, false, false, SERIAL_IRQ);
    let com1_ports = ports(SERIAL_PORT, SERIAL_PORTS);
    let com1 = isa(&EISAName::new("PNP0501"), &[&com1_ports, &com1_irq]);
    let clock = isa(&EISAName::new("PNP0B00"), &[&ports(RTC_PORT, RTC_PORTS)]);
    let fw_cfg = isa(&"QEMU0002", &[&ports(FW_CFG_PORT, FW_CFG_PORTS)]);
    let pvpanic = isa(&"QEMU0001", &[&ports(PVPANIC_PORT, 1)]);
    let pvpanic = [&pvpanic[..], &pvpanic_methods()].concat();
    let names: [(&str, &[u8]); 4] = [("COM1", &com1), ("RTC0", &clock), ("FWCF", &fw_cfg), ("PEVT", &pvpanic)];
    let wrapped: Vec<Raw> = names
        .iter()
        .map(|(name, body)| {
            let mut inner = Vec::new();
            let body = Raw(body.to_vec());
            Device::new(path(name), vec![&status, &body]).to_aml_bytes(&mut inner);
            Raw(inner)
        })
        .collect();
    let mut children: Vec<&dyn Aml> = vec![&pci];
    children.extend(wrapped.iter().map(|device| device as &dyn Aml));
    Scope::new(path("_SB_"), children).to_aml_bytes(&mut bytes);
    // Soft off: sleep type 0 in both registers (7.4.2).
    Name::new(path("_S5_"), &Package::new(vec![&0_u8, &0_u8, &0_u8, &0_u8])).to_aml_bytes(&mut bytes);
    bytes
}

/// Bytes that are machine language already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn path(name: &str) -> Path {
    Path::new(name)
}

fn ports(first: u16, len: u16) -> IO {
    IO::new(first, first, 1, u8::try_from(len).unwrap_or(u8::MAX))
}

/// The objects of a device at fixed ports.
fn isa(hid: &dyn Aml, resources: &[&dyn Aml]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Name::new(path("_HID"), hid).to_aml_bytes(&mut bytes);
    Name::new(path("_CRS"), &ResourceTemplate::new(resources.to_vec())).to_aml_bytes(&mut bytes);
    bytes
}

/// RDPT reads the events that the host takes, WRPT sends one (QEMU docs/specs/pvpanic, ACPI interface).
fn pvpanic_methods() -> Vec<u8> {
    let mut bytes = Vec::new();
    OpRegion::new(path("PEOR"), OpRegionSpace::SystemIO, &PVPANIC_PORT, &1_u8).to_aml_bytes(&mut bytes);
    let entries = vec![FieldEntry::Named(*b"PEPT", 8)];
    let (access, lock, update) = (FieldAccessType::Byte, FieldLockRule::NoLock, FieldUpdateRule::Preserve);
    Field::new(path("PEOR"), access, lock, update, entries).to_aml_bytes(&mut bytes);
    Method::new(path("RDPT"), 0, false, vec![&Return::new(&path("PEPT"))]).to_aml_bytes(&mut bytes);
    Method::new(path("WRPT"), 1, false, vec![&Store::new(&path("PEPT"), &Arg(0))]).to_aml_bytes(&mut bytes);
    bytes
}

/// The PCI bus: its number, its windows, and which interrupt each pin is wired to (6.2.2, 6.2.13).
fn pci_root() -> Raw {
    let end = CONFIG_DATA_PORT + 4;
    let low_ram_max = u32::try_from(LOW_RAM_MAX_BYTES).unwrap_or(u32::MAX);
    let configuration = ports(CONFIG_ADDRESS_PORT, end - CONFIG_ADDRESS_PORT);
    let windows = Name::new(
        path("_CRS"),
        &ResourceTemplate::new(vec![
            &AddressSpace::new_bus_number(0_u16, 0),
            &configuration,
            &AddressSpace::new_io(0_u16, CONFIG_ADDRESS_PORT - 1, None),
            &AddressSpace::new_io(end, 0xffff, None),
            &AddressSpace::new_memory(
                AddressSpaceCacheable::NotCacheable,
                true,
                low_ram_max,
                BAR_MEMORY_END - 1,
                None,
            ),
        ]),
    );
    let mut routes = PackageBuilder::new();
    for device in 1..DEVICES_MAX {
        // Device and all its functions, pin A, no link device, the interrupt itself.
        let address = u32::from(device) << 16 | 0xffff;
        routes.add_element(&Package::new(vec![&address, &0_u8, &0_u8, &intx_gsi(device)]));
    }
    let mut bytes = Vec::new();
    let hid = Name::new(path("_HID"), &EISAName::new("PNP0A03"));
    let number = Name::new(path("_UID"), &0_u8);
    let routes = Name::new(path("_PRT"), &routes);
    Device::new(path("PCI0"), vec![&hid, &number, &windows, &routes]).to_aml_bytes(&mut bytes);
    Raw(bytes)
}
