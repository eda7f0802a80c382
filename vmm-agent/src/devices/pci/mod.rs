//! One PCI bus: configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2), a host bridge, and functions
//! whose BARs are placed before the guest starts, because no firmware would do it.
mod header;
pub mod intx;
pub mod msix;
#[cfg(test)]
pub(super) mod test_access;

use std::fmt;
use std::sync::{Arc, Mutex};

use super::bus::{Shared, lock};
use super::{IoOutcome, PioDevice, get, put};
use header::Header;

pub use header::CONFIG_SPACE_LEN;

/// Address register of configuration mechanism 1.
pub const CONFIG_ADDRESS_PORT: u16 = 0xcf8;
/// First of the four data ports.
pub const CONFIG_DATA_PORT: u16 = 0xcfc;

/// Where BARs in memory are placed, upwards.
pub const BAR_MEMORY_GPA: u32 = 0xfd00_0000;
/// End of the room for BARs in memory: the interrupt controllers follow.
pub const BAR_MEMORY_END: u32 = 0xfec0_0000;
/// Where BARs in I/O space are placed, upwards; above all fixed ports, as firmware does on common chipsets.
pub const BAR_IO_PORT: u16 = 0xc000;
/// End of the room for BARs in I/O space.
pub const BAR_IO_END: u16 = 0xf000;
/// Most devices on the bus: five bits of the address.
pub const DEVICES_MAX: u8 = 32;
/// First of the interrupt controller inputs that PCI interrupt pins are wired to: those that are no ISA lines.
pub const INTX_GSI_BASE: u32 = 16;
/// Number of those inputs.
pub const INTX_GSIS: u32 = 8;

/// The interrupt controller input that pin A of `device` is wired to.
#[must_use]
pub fn intx_gsi(device: u8) -> u32 {
    INTX_GSI_BASE + u32::from(device) % INTX_GSIS
}

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// 32-bit memory; the length is a power of two from 16.
    Memory {
        /// Length in bytes.
        len_bytes: u64,
    },
    /// I/O ports; the length is a power of two from 4 to 256.
    Io {
        /// Length in bytes.
        len_bytes: u64,
    },
}

/// An entry of a function's list of capabilities (PCI Local Bus Specification 3.0, 6.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// Its id.
    pub id: u8,
    /// Its bytes after the id and the pointer to the next.
    pub body: Vec<u8>,
    /// Which bits of `body` the guest may write; bytes that are missing are read-only.
    pub writable: Vec<u8>,
}

/// What a function is.
#[derive(Clone, Debug, Default)]
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
    /// Its capabilities, in the order of the list.
    pub capabilities: Vec<Capability>,
    /// Whether it has interrupt pin A, wired to [`intx_gsi`].
    pub interrupt_pin: bool,
}

/// A device with one function.
pub trait PciFunction: Send {
    /// Its identity and BARs; asked once.
    fn config(&self) -> FunctionConfig;
    /// A read of up to 8 bytes inside a BAR.
    fn bar_read(&mut self, bar: usize, offset: u64, data: &mut [u8]) -> IoOutcome;
    /// A write likewise.
    fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]) -> IoOutcome;
    /// The guest wrote configuration space, from `offset` on; `space` is all of it afterwards.
    fn config_written(&mut self, offset: usize, space: &[u8; CONFIG_SPACE_LEN]) -> IoOutcome {
        let _ = (offset, space);
        IoOutcome::Done
    }
    /// The guest reads the four bytes of configuration space at `offset`; `data` is what it will see.
    fn config_read(&mut self, offset: usize, data: &mut [u8; 4]) {
        let _ = (offset, data);
    }
}

/// Where a function was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciPlace {
    /// Device number on bus 0.
    pub device: u8,
    /// The interrupt controller input of its pin, if it has one.
    pub gsi: Option<u32>,
}

struct Slot {
    header: Header,
    function: Shared<dyn PciFunction>,
}

/// The bus with its host bridge. Its lock is held only to find out who is meant.
pub struct PciRoot {
    address: u32,
    slots: Vec<Slot>,
    next_bar_gpa: u32,
    next_bar_port: u32,
}

/// A function that was found, with the BAR and the offset inside it.
#[derive(Clone)]
pub struct Found {
    function: Shared<dyn PciFunction>,
    bar: usize,
    offset: u64,
}

/// The bus has no room for another function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// All device numbers are taken.
    #[error("a PCI bus has room for {DEVICES_MAX} devices")]
    NoSlot,
    /// The BARs do not fit.
    #[error("no room below {end:#x} for a BAR of {len_bytes} bytes")]
    NoRoom {
        /// Length of the BAR.
        len_bytes: u64,
        /// End of the room.
        end: u32,
    },
    /// The capabilities do not fit.
    #[error("the capabilities of a PCI function do not fit into its configuration space")]
    NoConfigSpace,
}

impl PciRoot {
    /// A bus with a host bridge and nothing else.
    ///
    /// # Errors
    /// None in practice; the bridge has neither BARs nor capabilities.
    pub fn new() -> Result<PciRoot, PciError> {
        let mut root = PciRoot {
            address: 0,
            slots: Vec::new(),
            next_bar_gpa: BAR_MEMORY_GPA,
            next_bar_port: u32::from(BAR_IO_PORT),
        };
        root.add(Arc::new(Mutex::new(HostBridge)))?;
        Ok(root)
    }

    /// Adds a function as the next device, places its BARs and lets it answer.
    ///
    /// # Errors
    /// [`PciError`] if there is no room.
    pub fn add(&mut self, function: Shared<dyn PciFunction>) -> Result<PciPlace, PciError> {
        let device = u8::try_from(self.slots.len()).map_err(|_| PciError::NoSlot)?;
        if device >= DEVICES_MAX {
            return Err(PciError::NoSlot);
        }
        let config = lock(&function).config();
        let gsi = config.interrupt_pin.then(|| intx_gsi(device));
        let mut header = Header::new(&config)?;
        header.place_bars(|bar| self.place(bar))?;
        header.set_interrupt_line(gsi.unwrap_or(0));
        self.slots.push(Slot { header, function });
        Ok(PciPlace { device, gsi })
    }

    /// Who answers at a memory address.
    #[must_use]
    pub fn find_memory(&self, gpa: u64, len: usize) -> Option<Found> {
        self.find(|header| header.decode_memory(gpa, len))
    }

    /// Who answers at an I/O port.
    #[must_use]
    pub fn find_port(&self, port: u16, len: usize) -> Option<Found> {
        self.find(|header| header.decode_io(u64::from(port), len))
    }

    fn find(&self, decode: impl Fn(&Header) -> Option<(usize, u64)>) -> Option<Found> {
        self.slots.iter().find_map(|slot| {
            let (bar, offset) = decode(&slot.header)?;
            let function = Arc::clone(&slot.function);
            Some(Found { function, bar, offset })
        })
    }

    fn place(&mut self, bar: Bar) -> Result<u32, PciError> {
        // At least a page of memory each, so that a guest can map one without its neighbours.
        let (next, len_bytes, len_min, end) = match bar {
            Bar::Memory { len_bytes } => (&mut self.next_bar_gpa, len_bytes, 4096, BAR_MEMORY_END),
            Bar::Io { len_bytes } => (&mut self.next_bar_port, len_bytes, 4, u32::from(BAR_IO_END)),
        };
        let placed = || {
            let len = u32::try_from(len_bytes).ok()?.max(len_min);
            let base = next.checked_next_multiple_of(len)?;
            let after = base.checked_add(len)?;
            (after <= end).then_some((base, after))
        };
        let (base, after) = placed().ok_or(PciError::NoRoom { len_bytes, end })?;
        *next = after;
        Ok(base)
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

    /// The register that is read as the header has it, and who may change what the guest sees of it.
    fn read_config(&mut self) -> Option<(Shared<dyn PciFunction>, usize, [u8; 4])> {
        let (slot, register) = self.selected()?;
        let word = slot.header.read(register).to_le_bytes();
        Some((Arc::clone(&slot.function), register, word))
    }

    /// Writes the header; who is to hear of it, and the whole space as it is then.
    fn write_config(
        &mut self,
        value: u32,
        mask: u32,
    ) -> Option<(Shared<dyn PciFunction>, usize, [u8; CONFIG_SPACE_LEN])> {
        let (slot, register) = self.selected()?;
        slot.header.write(register, value, mask);
        Some((Arc::clone(&slot.function), register, slot.header.space()))
    }
}

impl Found {
    /// A read by the guest.
    pub fn read(&self, data: &mut [u8]) -> IoOutcome {
        lock(&self.function).bar_read(self.bar, self.offset, data)
    }

    /// A write by the guest.
    pub fn write(&self, data: &[u8]) -> IoOutcome {
        lock(&self.function).bar_write(self.bar, self.offset, data)
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { bar, offset, .. } = self;
        f.debug_struct("Found")
            .field("bar", bar)
            .field("offset", offset)
            .finish_non_exhaustive()
    }
}

/// Offsets from [`CONFIG_ADDRESS_PORT`]: the address at 0, data at 4 to 7. The bus is free again before a function hears
/// of an access, so that a slow one does not keep other vCPUs from other functions' BARs.
impl PioDevice for Shared<PciRoot> {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        match (offset, data.len()) {
            (0, 4) => put(data, u64::from(lock(self).address)),
            (4..8, len) if len <= 4 => {
                let found = lock(self).read_config();
                let word = found.map_or(u32::MAX, |(function, register, mut word)| {
                    lock(&function).config_read(register, &mut word);
                    u32::from_le_bytes(word)
                });
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
            (0, 4) => {
                lock(self).address = value & 0x80ff_fffc;
                IoOutcome::Done
            }
            (4..8, len @ 1..=4) => {
                let first_byte = offset - 4;
                let shift = 8 * first_byte;
                let mask = u64::from(u32::MAX) >> (32 - 8 * len) << shift;
                let low = |wide: u64| u32::try_from(wide & 0xffff_ffff).unwrap_or(0);
                let first_byte = usize::try_from(first_byte).unwrap_or(0);
                let written = lock(self).write_config(low(u64::from(value) << shift), low(mask));
                written.map_or(IoOutcome::Done, |(function, register, space)| {
                    lock(&function).config_written(register + first_byte, &space)
                })
            }
            _ => IoOutcome::BadAccess("configuration address is 32 bits wide"),
        }
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
            ..FunctionConfig::default()
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

    fn root() -> Shared<PciRoot> {
        let mut root = PciRoot::new().unwrap();
        root.add(Arc::new(Mutex::new(Pvpanic::default()))).unwrap();
        Arc::new(Mutex::new(root))
    }

    fn rings(root: &Shared<PciRoot>, gpa: u64) -> IoOutcome {
        lock(root).find_memory(gpa, 1).unwrap().write(&[1])
    }

    fn config_read(root: &mut Shared<PciRoot>, device: u32, register: u32) -> u32 {
        let address = 0x8000_0000 | device << 11 | register;
        assert_eq!(PioDevice::write(root, 0, &address.to_le_bytes()), IoOutcome::Done);
        let mut data = [0; 4];
        assert_eq!(PioDevice::read(root, 4, &mut data), IoOutcome::Done);
        u32::from_le_bytes(data)
    }

    fn config_write(root: &mut Shared<PciRoot>, device: u32, register: u32, value: u32) {
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
        assert!(lock(&root).find_memory(u64::from(placed), 1).is_none());
        assert_eq!(rings(&root, 0xe000_0000), IoOutcome::Signal(Signal::Panicked));
    }

    #[test]
    fn a_function_answers_only_with_memory_enabled() {
        let mut root = root();
        config_write(&mut root, 1, 4, 0);
        assert!(lock(&root).find_memory(u64::from(BAR_MEMORY_GPA), 1).is_none());
        config_write(&mut root, 1, 4, 2);
        assert_eq!(
            rings(&root, u64::from(BAR_MEMORY_GPA)),
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
        assert!(lock(&root).find_memory(u64::MAX, 8).is_none());
        assert!(lock(&root).find_port(u16::MAX, 4).is_none());
    }

    /// A function with everything that a header can have.
    #[derive(Default)]
    struct Rich {
        seen: Vec<(usize, [u8; CONFIG_SPACE_LEN])>,
        port_writes: Vec<(usize, u64, Vec<u8>)>,
    }

    impl PciFunction for Rich {
        fn config(&self) -> FunctionConfig {
            let capability = |id, body: &[u8], writable: &[u8]| Capability {
                id,
                body: body.to_vec(),
                writable: writable.to_vec(),
            };
            FunctionConfig {
                vendor: 1,
                device: 2,
                bars: [
                    Some(Bar::Memory { len_bytes: 0x2_0000 }),
                    None,
                    Some(Bar::Io { len_bytes: 64 }),
                    None,
                    None,
                    None,
                ],
                capabilities: vec![
                    capability(9, &[5, 6, 7], &[]),
                    capability(0x11, &[0x03, 0x00, 1, 0, 0, 0], &[0, 0xc0]),
                ],
                interrupt_pin: true,
                ..FunctionConfig::default()
            }
        }

        fn bar_read(&mut self, _bar: usize, _offset: u64, data: &mut [u8]) -> IoOutcome {
            put(data, 0x5a)
        }

        fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]) -> IoOutcome {
            self.port_writes.push((bar, offset, data.to_vec()));
            IoOutcome::Done
        }

        fn config_written(&mut self, offset: usize, space: &[u8; CONFIG_SPACE_LEN]) -> IoOutcome {
            self.seen.push((offset, *space));
            IoOutcome::Done
        }

        fn config_read(&mut self, offset: usize, data: &mut [u8; 4]) {
            if offset == 0xfc {
                *data = [1, 2, 3, 4];
            }
        }
    }

    #[test]
    fn capabilities_form_a_list_and_only_their_writable_bits_change() {
        let mut root = root();
        let rich = Arc::new(Mutex::new(Rich::default()));
        let place = lock(&root).add(rich.clone()).unwrap();
        assert_eq!((place.device, place.gsi), (2, Some(18)));
        assert_eq!(config_read(&mut root, 2, 0x34), 0x40);
        assert_eq!(config_read(&mut root, 2, 4) & 1 << 20, 1 << 20, "status says so");
        assert_eq!(config_read(&mut root, 2, 0x40), 0x0605_4809);
        assert_eq!(config_read(&mut root, 2, 0x44), 0x07);
        assert_eq!(config_read(&mut root, 2, 0x48), 0x0003_0011);
        config_write(&mut root, 2, 0x48, u32::MAX);
        assert_eq!(config_read(&mut root, 2, 0x48), 0xc003_0011);
        let seen = lock(&rich).seen.last().copied().unwrap();
        assert_eq!((seen.0, &seen.1[0x48..0x4c]), (0x48, &[0x11, 0, 3, 0xc0][..]));
        assert_eq!(config_read(&mut root, 2, 0x3c), 0x0112, "pin A and its line");
        assert_eq!(
            config_read(&mut root, 2, 0xfc),
            0x0403_0201,
            "the function's own answer"
        );
    }

    #[test]
    fn a_function_that_hears_of_a_write_does_not_keep_the_bus() {
        struct Asks(Arc<Mutex<Option<Shared<PciRoot>>>>);
        impl PciFunction for Asks {
            fn config(&self) -> FunctionConfig {
                FunctionConfig::default()
            }
            fn bar_read(&mut self, _bar: usize, _offset: u64, _data: &mut [u8]) -> IoOutcome {
                IoOutcome::Done
            }
            fn bar_write(&mut self, _bar: usize, _offset: u64, _data: &[u8]) -> IoOutcome {
                IoOutcome::Done
            }
            fn config_written(&mut self, _offset: usize, _space: &[u8; CONFIG_SPACE_LEN]) -> IoOutcome {
                let root = lock(&self.0);
                match root.as_ref().map(|root| root.try_lock().is_ok()) {
                    Some(true) => IoOutcome::Done,
                    _ => IoOutcome::BadAccess("the bus is held"),
                }
            }
        }
        let mut root = root();
        let asked = Arc::new(Mutex::new(Some(Arc::clone(&root))));
        lock(&root).add(Arc::new(Mutex::new(Asks(Arc::clone(&asked))))).unwrap();
        config_write(&mut root, 2, 4, 2);
        // The bus holds the function, which holds the bus.
        lock(&asked).take();
    }

    #[test]
    fn io_bars_answer_at_their_ports() {
        let mut root = root();
        let rich = Arc::new(Mutex::new(Rich::default()));
        lock(&root).add(rich.clone()).unwrap();
        assert_eq!(config_read(&mut root, 2, 0x10), 0xfd02_0000, "aligned to its length");
        assert_eq!(config_read(&mut root, 2, 0x18), 0xc001);
        assert_eq!(
            lock(&root).find_port(0xc004, 4).unwrap().write(&[1, 2, 3, 4]),
            IoOutcome::Done
        );
        assert!(lock(&root).find_port(0xc03e, 4).is_none(), "across its end");
        assert_eq!(lock(&rich).port_writes, [(2, 4, vec![1, 2, 3, 4])]);
        config_write(&mut root, 2, 4, 2);
        assert!(lock(&root).find_port(0xc004, 4).is_none(), "I/O space switched off");
    }
}
