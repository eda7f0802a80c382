//! A small driver for tests: rings in guest memory, buffers offered and taken back.
use std::sync::Arc;

use super::device::VirtioDevice;
use super::interrupt::VirtioInterrupt;
use super::queue::{Broken, QueueSetup, VirtQueue};
use crate::devices::pci::intx::{IntxLines, Raised, Recorder};
use crate::devices::pci::msix::Msix;
use crate::devices::worker::After;
use crate::memory::{Bytes, GuestAddress, GuestMemory};

/// Entries of each queue.
pub(super) const SIZE: u16 = 32;
/// Where the rings of queue 0 lie; each queue has 64 KiB.
const RINGS_GPA: u64 = 8 << 20;

/// A device with its queues in 16 MiB of memory.
pub(super) struct Rig {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) queues: Vec<VirtQueue>,
    recorder: Arc<Recorder>,
    memory: Arc<GuestMemory>,
    next_descriptor: Vec<u16>,
}

/// Where the parts of a queue lie.
pub(super) fn setup(queue: usize) -> QueueSetup {
    let base = RINGS_GPA + queue as u64 * 0x1_0000;
    QueueSetup {
        size: SIZE,
        descriptors_gpa: base,
        driver_gpa: base + 0x4000,
        device_gpa: base + 0x8000,
    }
}

impl Rig {
    pub(super) fn new(mut device: Box<dyn VirtioDevice>, features: u64) -> Rig {
        let memory = Arc::new(GuestMemory::create(16).unwrap());
        let recorder = Arc::new(Recorder::default());
        let mut pin = IntxLines::new(recorder.clone()).pin();
        pin.connect(16);
        let sizes = device.queue_sizes();
        let msix = Msix::new(recorder.clone(), 1);
        let interrupt = Arc::new(VirtioInterrupt::new(pin, msix, sizes.len()));
        let make = |(index, size): (u16, &u16)| {
            let mut queue = VirtQueue::new(index, *size, Arc::clone(&interrupt)).unwrap();
            queue.start(memory.ram(), &setup(index.into()), false).unwrap();
            queue
        };
        let queues = (0..).zip(&sizes).map(make).collect();
        device.start(features);
        Rig {
            next_descriptor: vec![0; sizes.len()],
            device,
            queues,
            recorder,
            memory,
        }
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    pub(super) fn write(&mut self, gpa: u64, bytes: &[u8]) {
        self.memory.ram().write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    pub(super) fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.ram().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    /// Makes a chain available; returns its head.
    pub(super) fn offer(&mut self, queue: usize, readable: &[(u64, u32)], writable: &[(u64, u32)]) -> u16 {
        let parts: Vec<_> = readable
            .iter()
            .map(|part| (*part, 0_u16))
            .chain(writable.iter().map(|part| (*part, 2)))
            .collect();
        let head = self.next_descriptor[queue];
        for (n, ((gpa, len), flags)) in parts.iter().enumerate() {
            let index = self.next_descriptor[queue];
            self.next_descriptor[queue] = (index + 1) % SIZE;
            let more = n + 1 < parts.len();
            let mut bytes = gpa.to_le_bytes().to_vec();
            bytes.extend(len.to_le_bytes());
            bytes.extend((flags | u16::from(more)).to_le_bytes());
            bytes.extend((if more { (index + 1) % SIZE } else { 0 }).to_le_bytes());
            self.write(setup(queue).descriptors_gpa + u64::from(index) * 16, &bytes);
        }
        self.make_available(queue, head);
        head
    }

    /// Puts a head into the available ring.
    pub(super) fn make_available(&mut self, queue: usize, head: u16) {
        let ring = setup(queue).driver_gpa;
        let index = u16::from_le_bytes(self.read(ring + 2, 2).try_into().unwrap());
        self.write(ring + 4 + u64::from(index % SIZE) * 2, &head.to_le_bytes());
        self.write(ring + 2, &index.wrapping_add(1).to_le_bytes());
    }

    /// Rounds until there is nothing to do at once.
    pub(super) fn run(&mut self) -> After {
        self.try_run().unwrap()
    }

    pub(super) fn try_run(&mut self) -> Result<After, Broken> {
        for _ in 0..1000 {
            match self.device.work(&mut self.queues, &self.memory)? {
                After::Again => {}
                after => return Ok(after),
            }
        }
        panic!("1000 rounds and still more to do");
    }

    /// Heads and lengths that were given back since the start (as long as they are fewer than the queue's size).
    pub(super) fn used(&self, queue: usize) -> Vec<(u32, u32)> {
        let ring = setup(queue).device_gpa;
        let count = u16::from_le_bytes(self.read(ring + 2, 2).try_into().unwrap());
        let word = |at: u64| u32::from_le_bytes(self.read(at, 4).try_into().unwrap());
        (0..u64::from(count.min(SIZE)))
            .map(|n| (word(ring + 4 + n * 8), word(ring + 8 + n * 8)))
            .collect()
    }

    /// What was raised since the last call.
    pub(super) fn raised(&self) -> Vec<Raised> {
        self.recorder.take()
    }
}
