//! One PCI bus: configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2), a host bridge, and functions
//! whose BARs are placed before the guest starts, because no firmware would do it.
mod header;

use std::fmt;

use super::{IoOutcome, PioDevice, get, put};
use header::Header;

/// Address register of configuration mechanism 1.
pub const CONFIG_ADDRESS_PORT: u16 = 0xcf8;
/// First of the four data ports.
pub const CONFIG_DATA_PORT: u16 = 0xcfc;

/// Where BARs in memory are placed, upwards; between this and the interrupt controllers at 0xfec00000 is room for 240
/// of 64 KiB.
const BAR_MEMORY_GPA: u32 = 0xfd00_0000;
/// End of the room for BARs.
const BAR_MEMORY_END: u32 = 0xfec0_0000;
/// Most devices on the bus: five bits of the address.
const DEVICES_MAX: usize = 32;

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// 32-bit memory; the length is a power of two from 16.
    Memory {
        /// Length in bytes.
        len_bytes: u64,
    },
}

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub struct FunctionConfig {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class, subclass, programming interface: `0xCCSSPP`.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
    /// Its BARs.
    pub bars: [Option<Bar>; 6],
}

/// A device with one function.
pub trait PciFunction: Send {
    /// Its identity and BARs; asked once.
    fn config(&self) -> FunctionConfig;
    /// A read of up to 8 bytes inside a BAR.
    fn bar_read(&mut self, bar: usize, offset: u64, data: &mut [u8]) -> IoOutcome;
    /// A write likewise.
    fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]) -> IoOutcome;
}

struct Slot {
    header: Header,
    function: Box<dyn PciFunction>,
}

/// The bus with its host bridge.
pub struct PciRoot {
    address: u32,
    slots: Vec<Slot>,
    next_bar_gpa: u32,
}

/// The bus has no room for another function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// All device numbers are taken.
    #[error("a PCI bus has room for {DEVICES_MAX} devices")]
    NoSlot,
    /// The BARs do not fit below the interrupt controllers.
    #[error("no room below {BAR_MEMORY_END:#x} for a BAR of {len_bytes} bytes")]
    NoMemory {
        /// Length of the BAR.
        len_bytes: u64,
    },
}

impl Default for PciRoot {
    fn default() -> Self {
        let header = Header::new(&HostBridge.config());
        let bridge = Slot {
            header,
            function: Box::new(HostBridge),
        };
        PciRoot {
            address: 0,
            slots: vec![bridge],
            next_bar_gpa: BAR_MEMORY_GPA,
        }
    }
}

impl PciRoot {
    /// Adds a function as the next device, places its BARs and lets it answer.
    ///
    /// # Errors
    /// [`PciError`] if there is no room.
    pub fn add(&mut self, function: Box<dyn PciFunction>) -> Result<(), PciError> {
        if self.slots.len() >= DEVICES_MAX {
            return Err(PciError::NoSlot);
        }
        let mut header = Header::new(&function.config());
        header
            .place_bars(|len_bytes| self.place(len_bytes))
            .map_err(|len_bytes| PciError::NoMemory { len_bytes })?;
        self.slots.push(Slot { header, function });
        Ok(())
    }

    /// A read that may fall into a BAR.
    pub fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) -> IoOutcome {
        match self.decode(gpa, data.len()) {
            Some((slot, bar, offset)) => slot.function.bar_read(bar, offset, data),
            None => IoOutcome::BadAccess("no device"),
        }
    }

    /// A write likewise.
    pub fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> IoOutcome {
        match self.decode(gpa, data.len()) {
            Some((slot, bar, offset)) => slot.function.bar_write(bar, offset, data),
            None => IoOutcome::BadAccess("no device"),
        }
    }

    fn decode(&mut self, gpa: u64, len: usize) -> Option<(&mut Slot, usize, u64)> {
        self.slots.iter_mut().find_map(|slot| {
            let (bar, offset) = slot.header.decode(gpa, len)?;
            Some((slot, bar, offset))
        })
    }

    fn place(&mut self, len_bytes: u64) -> Option<u32> {
        // At least a page each, so that a guest can map one without its neighbours.
        let len = u32::try_from(len_bytes).ok()?.max(4096);
        let base = self.next_bar_gpa.checked_next_multiple_of(len)?;
        let end = base.checked_add(len)?;
        (end <= BAR_MEMORY_END).then(|| {
            self.next_bar_gpa = end;
            base
        })
    }

    /// The slot and register that the address register selects: bit 31 enables, bus 0 and function 0 only.
    fn selected(&mut self) -> Option<(&mut Slot, usize)> {
        let [register, function, bus, enable] = self.address.to_le_bytes();
        let device = usize::from(function >> 3);
        if enable & 0x80 == 0 || bus != 0 || function & 7 != 0 {
            return None;
        }
        Some((self.slots.get_mut(device)?, usize::from(register & 0xfc)))
    }
}

/// Offsets from [`CONFIG_ADDRESS_PORT`]: the address at 0, data at 4 to 7.
impl PioDevice for PciRoot {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        match (offset, data.len()) {
            (0, 4) => put(data, u64::from(self.address)),
            (4..8, len) if len <= 4 => {
                let word = self
                    .selected()
                    .map_or(u32::MAX, |(slot, register)| slot.header.read(register));
                put(data, u64::from(word) >> (8 * (offset - 4)))
            }
            _ => IoOutcome::BadAccess("configuration address is 32 bits wide"),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        let Ok(value) = u32::try_from(get(data)) else {
            return IoOutcome::BadAccess("configuration access is at most 32 bits wide");
        };
        match (offset, data.len()) {
            (0, 4) => self.address = value & 0x80ff_fffc,
            (4..8, len @ 1..=4) => {
                let shift = 8 * (offset - 4);
                let mask = u64::from(u32::MAX) >> (32 - 8 * len) << shift;
                let low = |wide: u64| u32::try_from(wide & 0xffff_ffff).unwrap_or(0);
                if let Some((slot, register)) = self.selected() {
                    slot.header.write(register, low(u64::from(value) << shift), low(mask));
                }
            }
            _ => return IoOutcome::BadAccess("configuration address is 32 bits wide"),
        }
        IoOutcome::Done
    }
}

impl fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciRoot")
            .field("devices", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// Intel 440FX, the host bridge that every guest knows (QEMU, hw/pci-host/i440fx.c).
#[derive(Debug)]
struct HostBridge;

impl PciFunction for HostBridge {
    fn config(&self) -> FunctionConfig {
        FunctionConfig {
            vendor: 0x8086,
            device: 0x1237,
            class: 0x06_00_00,
            revision: 2,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            bars: [None; 6],
        }
    }

    fn bar_read(&mut self, _bar: usize, _offset: u64, _data: &mut [u8]) -> IoOutcome {
        IoOutcome::BadAccess("the host bridge has no BAR")
    }

    fn bar_write(&mut self, _bar: usize, _offset: u64, _data: &[u8]) -> IoOutcome {
        IoOutcome::BadAccess("the host bridge has no BAR")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Signal;
    use super::super::pvpanic::Pvpanic;
    use super::*;

    fn root() -> PciRoot {
        let mut root = PciRoot::default();
        root.add(Box::new(Pvpanic)).unwrap();
        root
    }

    fn config_read(root: &mut PciRoot, device: u32, register: u32) -> u32 {
        let address = 0x8000_0000 | device << 11 | register;
        assert_eq!(PioDevice::write(root, 0, &address.to_le_bytes()), IoOutcome::Done);
        let mut data = [0; 4];
        assert_eq!(PioDevice::read(root, 4, &mut data), IoOutcome::Done);
        u32::from_le_bytes(data)
    }

    fn config_write(root: &mut PciRoot, device: u32, register: u32, value: u32) {
        config_read(root, device, register);
        assert_eq!(PioDevice::write(root, 4, &value.to_le_bytes()), IoOutcome::Done);
    }

    #[test]
    fn a_scan_finds_the_bridge_and_the_functions_and_nothing_else() {
        let mut root = root();
        let ids: Vec<u32> = (0..32).map(|device| config_read(&mut root, device, 0)).collect();
        assert_eq!(ids[..2], [0x1237_8086, 0x0011_1b36]);
        assert!(ids[2..].iter().all(|id| *id == u32::MAX));
        let other_bus = 0x8001_0000_u32;
        assert_eq!(
            PioDevice::write(&mut root, 0, &other_bus.to_le_bytes()),
            IoOutcome::Done
        );
        let mut data = [0; 4];
        assert_eq!(PioDevice::read(&mut root, 4, &mut data), IoOutcome::Done);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn a_bar_tells_its_length_and_moves() {
        let mut root = root();
        let placed = config_read(&mut root, 1, 0x10);
        assert_eq!(placed, BAR_MEMORY_GPA);
        config_write(&mut root, 1, 0x10, u32::MAX);
        assert_eq!(config_read(&mut root, 1, 0x10), 0xffff_f000);
        config_write(&mut root, 1, 0x14, u32::MAX);
        assert_eq!(config_read(&mut root, 1, 0x14), 0, "a BAR that is not there");
        config_write(&mut root, 1, 0x10, 0xe000_0000);
        assert_eq!(
            root.mmio_write(u64::from(placed), &[1]),
            IoOutcome::BadAccess("no device")
        );
        assert_eq!(root.mmio_write(0xe000_0000, &[1]), IoOutcome::Signal(Signal::Panicked));
    }

    #[test]
    fn a_function_answers_only_with_memory_enabled() {
        let mut root = root();
        config_write(&mut root, 1, 4, 0);
        assert_eq!(
            root.mmio_write(u64::from(BAR_MEMORY_GPA), &[1]),
            IoOutcome::BadAccess("no device")
        );
        config_write(&mut root, 1, 4, 2);
        assert_eq!(
            root.mmio_write(u64::from(BAR_MEMORY_GPA), &[1]),
            IoOutcome::Signal(Signal::Panicked)
        );
    }

    #[test]
    fn narrow_configuration_accesses_reach_their_bytes() {
        let mut root = root();
        config_read(&mut root, 1, 0);
        let mut data = [0; 2];
        assert_eq!(PioDevice::read(&mut root, 6, &mut data), IoOutcome::Done);
        assert_eq!(u16::from_le_bytes(data), 0x0011);
        config_read(&mut root, 1, 4);
        assert_eq!(PioDevice::write(&mut root, 5, &[0x04]), IoOutcome::Done);
        assert_eq!(config_read(&mut root, 1, 4), 0x0402);
    }

    #[test]
    fn ids_cannot_be_written_and_wild_accesses_do_no_harm() {
        let mut root = root();
        config_write(&mut root, 0, 0, 0x1234_5678);
        assert_eq!(config_read(&mut root, 0, 0), 0x1237_8086);
        assert!(matches!(PioDevice::write(&mut root, 1, &[0]), IoOutcome::BadAccess(_)));
        assert!(matches!(
            PioDevice::read(&mut root, 0, &mut [0; 2]),
            IoOutcome::BadAccess(_)
        ));
        assert_eq!(root.mmio_read(u64::MAX, &mut [0; 8]), IoOutcome::BadAccess("no device"));
    }
}
