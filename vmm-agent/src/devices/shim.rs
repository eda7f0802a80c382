//! The registers by which a guest-shim says where its panic record lies (docs/guest-shim.md). The device never looks at
//! guest memory; it only checks that the record would lie in RAM.
use std::sync::{Arc, Mutex};

use guest_shim::abi::{RECORD_LEN, VERSION};
use guest_shim::port;

use super::bus::{Shared, lock};
use super::pci::{Bar, FunctionConfig, PciFunction};
use super::{IoOutcome, PioDevice, get, put};
use crate::memory::GuestMemory;

/// Where the record lies, shared between the two ways to the registers and the agent.
#[derive(Debug)]
pub struct ShimState {
    memory: Arc<GuestMemory>,
    record_gpa: u64,
    record_len: u32,
    status: u32,
    registered_gpa: Option<u64>,
}

/// One way to the registers.
#[derive(Clone, Debug)]
pub struct Shim(Shared<ShimState>);

impl Shim {
    /// Registers for a guest with `memory`. Clones share their state.
    #[must_use]
    pub fn new(memory: Arc<GuestMemory>) -> Shim {
        let state = ShimState {
            memory,
            record_gpa: 0,
            record_len: 0,
            status: port::STATUS_NONE,
            registered_gpa: None,
        };
        Shim(Arc::new(Mutex::new(state)))
    }

    /// Guest-physical address of the record, if the guest registered one: page-aligned and inside RAM.
    #[must_use]
    pub fn record_gpa(&self) -> Option<u64> {
        lock(&self.0).registered_gpa
    }

    fn access_read(&self, offset: u64, data: &mut [u8]) -> IoOutcome {
        match register(offset, data.len()) {
            Some(register) => put(data, u64::from(lock(&self.0).read(register))),
            None => IoOutcome::BadAccess("shim registers are 32 bits wide"),
        }
    }

    fn access_write(&self, offset: u64, data: &[u8]) -> IoOutcome {
        match (register(offset, data.len()), u32::try_from(get(data))) {
            (Some(register), Ok(value)) => lock(&self.0).write(register, value),
            _ => IoOutcome::BadAccess("shim registers are 32 bits wide"),
        }
    }
}

fn register(offset: u64, len: usize) -> Option<u16> {
    let register = u16::try_from(offset).ok()?;
    (len == 4 && register % 4 == 0 && register < port::REGISTERS_LEN).then_some(register)
}

impl ShimState {
    fn read(&self, register: u16) -> u32 {
        match register {
            port::SIGNATURE => port::SIGNATURE_VALUE,
            port::VERSION => u32::from(VERSION),
            port::RECORD_GPA_LOW => u32::try_from(self.record_gpa & 0xffff_ffff).unwrap_or(0),
            port::RECORD_GPA_HIGH => u32::try_from(self.record_gpa >> 32).unwrap_or(0),
            port::RECORD_LEN => self.record_len,
            port::STATUS => self.status,
            _ => 0,
        }
    }

    fn write(&mut self, register: u16, value: u32) -> IoOutcome {
        match register {
            port::RECORD_GPA_LOW => self.record_gpa = self.record_gpa & !0xffff_ffff | u64::from(value),
            port::RECORD_GPA_HIGH => self.record_gpa = self.record_gpa & 0xffff_ffff | u64::from(value) << 32,
            port::RECORD_LEN => self.record_len = value,
            port::DOORBELL => return self.ring(value),
            _ => return IoOutcome::BadAccess("read-only shim register"),
        }
        IoOutcome::Done
    }

    fn ring(&mut self, value: u32) -> IoOutcome {
        match value {
            port::DOORBELL_REGISTER => {
                self.registered_gpa = self.acceptable_gpa();
                self.status = if self.registered_gpa.is_some() {
                    port::STATUS_REGISTERED
                } else {
                    port::STATUS_REFUSED
                };
            }
            port::DOORBELL_COMPLETE if self.registered_gpa.is_some() => self.status = port::STATUS_COMPLETE,
            port::DOORBELL_FORGET => {
                self.registered_gpa = None;
                self.status = port::STATUS_NONE;
            }
            _ => return IoOutcome::BadAccess("unknown doorbell value"),
        }
        IoOutcome::Done
    }

    fn acceptable_gpa(&self) -> Option<u64> {
        let len = u64::try_from(RECORD_LEN).ok()?;
        let in_ram = self.memory.memfd_offset(self.record_gpa, len).is_some();
        (self.record_gpa.is_multiple_of(len) && u64::from(self.record_len) >= len && in_ram).then_some(self.record_gpa)
    }
}

impl PioDevice for Shim {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        self.access_read(offset, data)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        self.access_write(offset, data)
    }
}

impl PciFunction for Shim {
    fn config(&self) -> FunctionConfig {
        FunctionConfig {
            vendor: port::PCI_VENDOR_ID,
            device: port::PCI_DEVICE_ID,
            // System peripheral, other (PCI Code and ID Assignment Specification, class 08h).
            class: 0x08_80_00,
            revision: 1,
            subsystem_vendor: port::PCI_VENDOR_ID,
            subsystem: port::PCI_SUBSYSTEM_ID,
            bars: [
                Some(Bar::Memory {
                    len_bytes: port::BAR_LEN,
                }),
                None,
                None,
                None,
                None,
                None,
            ],
            ..FunctionConfig::default()
        }
    }

    fn bar_read(&mut self, _bar: usize, offset: u64, data: &mut [u8]) -> IoOutcome {
        self.access_read(offset, data)
    }

    fn bar_write(&mut self, _bar: usize, offset: u64, data: &[u8]) -> IoOutcome {
        self.access_write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use guest_shim::abi::RawRecord;
    use guest_shim::reporter::{RegisterError, Reporter, ShimRegisters};

    use super::*;

    struct Ports(Shim);

    impl ShimRegisters for Ports {
        fn read(&mut self, offset: u16) -> u32 {
            let mut data = [0; 4];
            assert_eq!(
                PioDevice::read(&mut self.0, u64::from(offset), &mut data),
                IoOutcome::Done
            );
            u32::from_le_bytes(data)
        }

        fn write(&mut self, offset: u16, value: u32) {
            assert_eq!(
                PioDevice::write(&mut self.0, u64::from(offset), &value.to_le_bytes()),
                IoOutcome::Done
            );
        }
    }

    fn ports() -> Ports {
        Ports(Shim::new(Arc::new(GuestMemory::create(4).unwrap())))
    }

    #[test]
    fn the_reporter_registers_its_record() {
        let mut ports = ports();
        let mut record = RawRecord::empty();
        let reporter = Reporter::new(&mut record);
        assert_eq!(reporter.register(&mut ports, 0x3ff000), Ok(()));
        assert_eq!(ports.0.record_gpa(), Some(0x3ff000));
        reporter.announce(&mut ports);
        assert_eq!(ports.read(port::STATUS), port::STATUS_COMPLETE);
        ports.write(port::DOORBELL, port::DOORBELL_FORGET);
        assert_eq!(ports.0.record_gpa(), None);
    }

    #[test]
    fn a_record_outside_ram_or_not_aligned_is_refused_and_forgets_the_last_one() {
        for gpa in [0x40_0000, 0x3ff800, 0x1000_0000_0000, !0xfff] {
            let mut ports = ports();
            let mut record = RawRecord::empty();
            let reporter = Reporter::new(&mut record);
            assert_eq!(reporter.register(&mut ports, 0x1000), Ok(()));
            assert_eq!(
                reporter.register(&mut ports, gpa),
                Err(RegisterError::Refused),
                "{gpa:#x}"
            );
            assert_eq!(ports.0.record_gpa(), None);
        }
    }

    #[test]
    fn narrow_and_odd_accesses_are_refused() {
        let mut shim = ports().0;
        assert!(matches!(
            PioDevice::read(&mut shim, 0, &mut [0; 1]),
            IoOutcome::BadAccess(_)
        ));
        assert!(matches!(
            PioDevice::read(&mut shim, 2, &mut [0; 4]),
            IoOutcome::BadAccess(_)
        ));
        assert!(matches!(shim.bar_write(0, 8, &[0; 8]), IoOutcome::BadAccess(_)));
        assert!(matches!(shim.bar_read(0, 4092, &mut [0; 4]), IoOutcome::BadAccess(_)));
    }
}
