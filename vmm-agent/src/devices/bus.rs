//! Finds the device for a port or an address. An access that nobody takes reads as all ones, is dropped as a write, and
//! is counted.
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pci::{Found, PciRoot};
use super::{IoOutcome, MmioDevice, PioDevice, Signal};

/// A device that several vCPUs reach.
pub type Shared<T> = Arc<Mutex<T>>;

/// Locks a device. A vCPU thread that panicked in the middle of a register access leaves plain values behind, which are
/// still good enough for a dump.
pub fn lock<T: ?Sized>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The I/O port bus: devices at fixed ports, then the BARs of PCI functions.
#[derive(Default)]
pub struct PioBus {
    devices: Vec<(Range<u16>, Shared<dyn PioDevice>)>,
    pci: Option<Shared<PciRoot>>,
    /// Accesses that no device took.
    strays: AtomicU64,
}

/// The memory bus: devices at fixed addresses, then the BARs of PCI functions.
#[derive(Default)]
pub struct MmioBus {
    devices: Vec<(Range<u64>, Shared<dyn MmioDevice>)>,
    pci: Option<Shared<PciRoot>>,
    /// Accesses that no device took.
    strays: AtomicU64,
}

impl PioBus {
    /// Puts a device at `ports`. Of overlapping devices the first one answers.
    pub fn add(&mut self, ports: Range<u16>, device: Shared<dyn PioDevice>) {
        self.devices.push((ports, device));
    }

    /// Lets the BARs of `pci` answer where no fixed device does.
    pub fn set_pci(&mut self, pci: Shared<PciRoot>) {
        self.pci = Some(pci);
    }

    /// One or more reads of `size` bytes from `port`.
    pub fn read(&self, port: u16, size: usize, data: &mut [u8]) -> Vec<Signal> {
        let device = self.find(port);
        let mut signals = Vec::new();
        for access in data.chunks_mut(size.max(1)) {
            let outcome = match device {
                Some((offset, device)) => lock(device).read(offset, access),
                None => match self.find_bar(port, access.len()) {
                    Some(found) => found.read(access),
                    None => IoOutcome::BadAccess("no device"),
                },
            };
            settle_read(outcome, access, &self.strays, &mut signals);
        }
        signals
    }

    /// One or more writes of `size` bytes to `port`.
    pub fn write(&self, port: u16, size: usize, data: &[u8]) -> Vec<Signal> {
        let device = self.find(port);
        let mut signals = Vec::new();
        for access in data.chunks(size.max(1)) {
            let outcome = match device {
                Some((offset, device)) => lock(device).write(offset, access),
                None => match self.find_bar(port, access.len()) {
                    Some(found) => found.write(access),
                    None => IoOutcome::BadAccess("no device"),
                },
            };
            settle_write(outcome, &self.strays, &mut signals);
        }
        signals
    }

    fn find_bar(&self, port: u16, len: usize) -> Option<Found> {
        lock(self.pci.as_ref()?).find_port(port, len)
    }

    /// The device at a port, to be held in the middle of an access.
    #[cfg(test)]
    pub(crate) fn device_at(&self, port: u16) -> Option<Shared<dyn PioDevice>> {
        self.find(port).map(|(_, device)| Arc::clone(device))
    }

    fn find(&self, port: u16) -> Option<(u64, &Shared<dyn PioDevice>)> {
        let (ports, device) = self.devices.iter().find(|(ports, _)| ports.contains(&port))?;
        Some((u64::from(port - ports.start), device))
    }
}

impl MmioBus {
    /// Puts a device at `gpas`.
    pub fn add(&mut self, gpas: Range<u64>, device: Shared<dyn MmioDevice>) {
        self.devices.push((gpas, device));
    }

    /// Lets the BARs of `pci` answer where no fixed device does.
    pub fn set_pci(&mut self, pci: Shared<PciRoot>) {
        self.pci = Some(pci);
    }

    /// A read of up to 8 bytes.
    pub fn read(&self, gpa: u64, data: &mut [u8]) -> Vec<Signal> {
        let mut signals = Vec::new();
        let outcome = match self.find(gpa) {
            Some((offset, device)) => lock(device).read(offset, data),
            None => match self.find_bar(gpa, data.len()) {
                Some(found) => found.read(data),
                None => IoOutcome::BadAccess("no device"),
            },
        };
        settle_read(outcome, data, &self.strays, &mut signals);
        signals
    }

    /// A write of up to 8 bytes.
    pub fn write(&self, gpa: u64, data: &[u8]) -> Vec<Signal> {
        let mut signals = Vec::new();
        let outcome = match self.find(gpa) {
            Some((offset, device)) => lock(device).write(offset, data),
            None => match self.find_bar(gpa, data.len()) {
                Some(found) => found.write(data),
                None => IoOutcome::BadAccess("no device"),
            },
        };
        settle_write(outcome, &self.strays, &mut signals);
        signals
    }

    fn find_bar(&self, gpa: u64, len: usize) -> Option<Found> {
        lock(self.pci.as_ref()?).find_memory(gpa, len)
    }

    fn find(&self, gpa: u64) -> Option<(u64, &Shared<dyn MmioDevice>)> {
        let (gpas, device) = self.devices.iter().find(|(gpas, _)| gpas.contains(&gpa))?;
        Some((gpa - gpas.start, device))
    }
}

fn settle_read(outcome: IoOutcome, data: &mut [u8], strays: &AtomicU64, signals: &mut Vec<Signal>) {
    if let IoOutcome::BadAccess(_) = outcome {
        data.fill(0xff);
    }
    settle_write(outcome, strays, signals);
}

fn settle_write(outcome: IoOutcome, strays: &AtomicU64, signals: &mut Vec<Signal>) {
    match outcome {
        IoOutcome::Done => {}
        IoOutcome::BadAccess(why) => {
            let strays = strays.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            // Scans for devices make thousands.
            if strays.is_power_of_two() {
                tracing::debug!(why, strays, "stray device access");
            }
        }
        IoOutcome::Signal(signal) => signals.push(signal),
    }
}

impl fmt::Debug for PioBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.devices.iter().map(|(ports, _)| ports))
            .finish()
    }
}

impl fmt::Debug for MmioBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.devices.iter().map(|(gpas, _)| gpas))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(Vec<(u64, Vec<u8>)>);

    impl PioDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
            super::super::put(data, 0x40 + offset)
        }

        fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
            self.0.push((offset, data.to_vec()));
            IoOutcome::Done
        }
    }

    #[test]
    fn ports_without_a_device_read_as_ones_and_are_counted() {
        let bus = PioBus::default();
        let mut data = [0; 4];
        assert_eq!(bus.read(0x80, 4, &mut data), []);
        assert_eq!(bus.write(0x80, 1, &[1, 2]), []);
        assert_eq!((data, bus.strays.load(Ordering::Relaxed)), ([0xff; 4], 3));
    }

    #[test]
    fn a_string_write_reaches_the_device_as_single_accesses() {
        let echo = Arc::new(Mutex::new(Echo(Vec::new())));
        let mut bus = PioBus::default();
        bus.add(0x3f8..0x400, echo.clone());
        assert_eq!(bus.write(0x3f9, 1, b"ab"), []);
        assert_eq!(bus.write(0x3f8, 2, b"cd"), []);
        let mut data = [0];
        assert_eq!(bus.read(0x3ff, 1, &mut data), []);
        assert_eq!(data, [0x47]);
        let expected = [(1, b"a".to_vec()), (1, b"b".to_vec()), (0, b"cd".to_vec())];
        assert_eq!(lock(&echo).0, expected);
    }
}
