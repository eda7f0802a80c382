//! pvpanic: one byte by which a guest says that it panicked (QEMU docs/specs/pvpanic).
use super::pci::{Bar, FunctionConfig, PciFunction};
use super::{IoOutcome, MmioDevice, PioDevice, Signal, get, put};

/// I/O port of the ISA variant.
pub const PVPANIC_PORT: u16 = 0x505;
/// PCI vendor id of the PCI variant (Red Hat).
pub const PVPANIC_PCI_VENDOR: u16 = 0x1b36;
/// PCI device id of the PCI variant.
pub const PVPANIC_PCI_DEVICE: u16 = 0x0011;

/// The guest panicked; the host should act.
const PANICKED: u64 = 1 << 0;
/// The guest panicked and handles it itself; the host only records it.
const CRASHLOADED: u64 = 1 << 1;
/// What reads give. SHUTDOWN (bit 2) is not offered: this machine powers off by ACPI.
const SUPPORTED: u64 = PANICKED | CRASHLOADED;

/// The register; the same for all transports.
#[derive(Debug, Default)]
pub struct Pvpanic {
    /// Writes with bits that are not offered.
    unknown_events: u64,
}

impl Pvpanic {
    fn read(data: &mut [u8]) -> IoOutcome {
        put(data, SUPPORTED)
    }

    fn tell(&mut self, data: &[u8]) -> IoOutcome {
        let event = get(data) & 0xff;
        if event & !SUPPORTED != 0 {
            self.unknown_events = self.unknown_events.saturating_add(1);
            // A guest may write as often as it likes, and its vCPU is what writes the log.
            if self.unknown_events.is_power_of_two() {
                tracing::warn!(
                    event = format_args!("{event:#x}"),
                    events = self.unknown_events,
                    "pvpanic event with bits that are not offered"
                );
            }
        }
        if event & PANICKED != 0 {
            IoOutcome::Signal(Signal::Panicked)
        } else if event & CRASHLOADED != 0 {
            IoOutcome::Signal(Signal::CrashLoaded)
        } else {
            IoOutcome::Done
        }
    }
}

impl PioDevice for Pvpanic {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> IoOutcome {
        Pvpanic::read(data)
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> IoOutcome {
        self.tell(data)
    }
}

impl MmioDevice for Pvpanic {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        if offset == 0 { Pvpanic::read(data) } else { put(data, 0) }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        if offset == 0 { self.tell(data) } else { IoOutcome::Done }
    }
}

impl PciFunction for Pvpanic {
    fn config(&self) -> FunctionConfig {
        FunctionConfig {
            vendor: PVPANIC_PCI_VENDOR,
            device: PVPANIC_PCI_DEVICE,
            // System peripheral, other (PCI Code and ID Assignment Specification, class 08h).
            class: 0x08_80_00,
            revision: 1,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            // The register is one byte; a page lets every guest map it.
            bars: [Some(Bar::Memory { len_bytes: 4096 }), None, None, None, None, None],
            ..FunctionConfig::default()
        }
    }

    fn bar_read(&mut self, _bar: usize, offset: u64, data: &mut [u8]) -> IoOutcome {
        MmioDevice::read(self, offset, data)
    }

    fn bar_write(&mut self, _bar: usize, offset: u64, data: &[u8]) -> IoOutcome {
        MmioDevice::write(self, offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_mean_what_the_specification_says() {
        let mut pvpanic = Pvpanic::default();
        assert_eq!(pvpanic.tell(&[1]), IoOutcome::Signal(Signal::Panicked));
        assert_eq!(pvpanic.tell(&[2]), IoOutcome::Signal(Signal::CrashLoaded));
        assert_eq!(
            pvpanic.tell(&[3]),
            IoOutcome::Signal(Signal::Panicked),
            "both: panicked is the stronger"
        );
        assert_eq!(pvpanic.tell(&[4]), IoOutcome::Done, "shutdown is not offered");
        assert_eq!(pvpanic.tell(&[0x80]), IoOutcome::Done, "unknown bits are only recorded");
        let mut data = [0xaa];
        assert_eq!(Pvpanic::read(&mut data), IoOutcome::Done);
        assert_eq!(data, [3]);
    }

    #[test]
    fn only_the_first_byte_of_the_bar_acts() {
        let mut pvpanic = Pvpanic::default();
        assert_eq!(pvpanic.bar_write(0, 1, &[1]), IoOutcome::Done);
        assert_eq!(pvpanic.bar_write(0, 0, &[1]), IoOutcome::Signal(Signal::Panicked));
    }
}
