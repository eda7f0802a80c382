//! How the guest hears of used buffers and of changes: MSI-X messages, or INTx with the ISR byte (4.1.4.5, 4.1.5.1).
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::devices::IoOutcome;
use crate::devices::pci::intx::IntxPin;
use crate::devices::pci::msix::Msix;

/// No vector (4.1.5.1.2, `VIRTIO_MSI_NO_VECTOR`).
pub const NO_VECTOR: u16 = 0xffff;
/// ISR: a queue has used buffers (4.1.4.5).
const ISR_QUEUE: u8 = 1;
/// ISR: the device's configuration changed.
const ISR_CONFIG: u8 = 2;

/// The interrupts of one device. Its lock is held for moments only, and nothing else is locked inside it but the lines.
#[derive(Debug)]
pub struct VirtioInterrupt(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    pin: IntxPin,
    msix: Msix,
    isr: u8,
    config_vector: u16,
    queue_vectors: Vec<u16>,
}

impl VirtioInterrupt {
    /// Interrupts of a device with as many queues.
    #[must_use]
    pub fn new(pin: IntxPin, msix: Msix, queues: usize) -> VirtioInterrupt {
        VirtioInterrupt(Mutex::new(Inner {
            pin,
            msix,
            isr: 0,
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues],
        }))
    }

    /// The pin's place on the board.
    pub fn connect(&self, gsi: u32) {
        self.lock().pin.connect(gsi);
    }

    /// A queue has used buffers that the driver wants to hear of.
    pub fn queue_used(&self, index: u16) {
        let mut inner = self.lock();
        let vector = inner.queue_vectors.get(usize::from(index)).copied();
        inner.raise(vector.unwrap_or(NO_VECTOR), ISR_QUEUE);
    }

    /// The device's configuration or status changed.
    pub fn config_changed(&self) {
        let mut inner = self.lock();
        let vector = inner.config_vector;
        inner.raise(vector, ISR_CONFIG);
    }

    /// Reads and clears the ISR byte, which lowers the line.
    pub fn take_isr(&self) -> u8 {
        let mut inner = self.lock();
        let isr = std::mem::take(&mut inner.isr);
        inner.pin.set(false);
        isr
    }

    /// Chooses the vector of configuration changes; what is in force afterwards.
    pub fn set_config_vector(&self, vector: u16) -> u16 {
        let mut inner = self.lock();
        inner.config_vector = inner.checked(vector);
        inner.config_vector
    }

    /// Chooses the vector of a queue; what is in force afterwards.
    pub fn set_queue_vector(&self, index: u16, vector: u16) -> u16 {
        let mut inner = self.lock();
        let vector = inner.checked(vector);
        match inner.queue_vectors.get_mut(usize::from(index)) {
            Some(slot) => {
                *slot = vector;
                vector
            }
            None => NO_VECTOR,
        }
    }

    /// The vectors of configuration changes and of a queue.
    pub fn vectors(&self, index: u16) -> (u16, u16) {
        let inner = self.lock();
        let queue = inner.queue_vectors.get(usize::from(index)).copied();
        (inner.config_vector, queue.unwrap_or(NO_VECTOR))
    }

    /// The guest wrote the command register or the control word of MSI-X.
    pub fn set_config_space(&self, command: u16, msix_control: u16) {
        let mut inner = self.lock();
        inner.pin.set_command(command);
        inner.msix.set_control(msix_control);
        if inner.msix.is_enabled() {
            inner.pin.set(false);
        }
    }

    /// Whether the line is wanted, for the status register.
    pub fn is_line_wanted(&self) -> bool {
        self.lock().pin.is_wanted()
    }

    /// A reset of the device.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.isr = 0;
        inner.pin.set(false);
        inner.config_vector = NO_VECTOR;
        inner.queue_vectors.fill(NO_VECTOR);
        inner.msix.reset();
    }

    /// Reads the vector table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) -> IoOutcome {
        self.lock().msix.read_table(offset, data)
    }

    /// Writes the vector table.
    pub fn write_table(&self, offset: u64, data: &[u8]) -> IoOutcome {
        self.lock().msix.write_table(offset, data)
    }

    /// Reads the pending bits.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) -> IoOutcome {
        self.lock().msix.read_pending(offset, data)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn raise(&mut self, vector: u16, isr: u8) {
        if self.msix.is_enabled() {
            self.msix.raise(vector);
        } else {
            self.isr |= isr;
            self.pin.set(true);
        }
    }

    fn checked(&self, vector: u16) -> u16 {
        if usize::from(vector) < self.msix.vectors() {
            vector
        } else {
            NO_VECTOR
        }
    }
}
