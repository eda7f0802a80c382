//! A virtqueue as devices use it, and a descriptor chain as two byte strings that lie in guest memory.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueOwnedT, QueueT};

use super::interrupt::VirtioInterrupt;
use super::limits::SEGMENTS_MAX;
use crate::memory::{Bytes, GuestAddress, GuestRam};

/// The guest broke a rule of the ring that leaves nothing to go on with; the device then needs a reset (2.1.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("virtqueue {index}: {what}")]
pub struct Broken {
    /// Which queue.
    pub index: u16,
    /// What was wrong.
    pub what: String,
}

/// A queue of a device.
#[derive(Debug)]
pub struct VirtQueue {
    index: u16,
    queue: Queue,
    interrupt: Arc<VirtioInterrupt>,
    /// Something was given back of which the guest has not been told.
    has_news: bool,
}

/// What the driver chose for a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSetup {
    /// Entries.
    pub size: u16,
    /// Guest physical address of the descriptor table.
    pub descriptors_gpa: u64,
    /// Guest physical address of the available ring.
    pub driver_gpa: u64,
    /// Guest physical address of the used ring.
    pub device_gpa: u64,
}

/// A buffer that the driver made available: what the device may read, then what it may write (2.7.4.2).
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    /// What the device reads.
    pub readable: Segments,
    /// What the device writes.
    pub writable: Segments,
}

/// Parts of guest memory, seen as one string of bytes.
#[derive(Debug, Default)]
pub struct Segments {
    parts: Vec<(GuestAddress, u32)>,
    len_bytes: u64,
}

/// Bytes that are not there: outside the segments or outside RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len_bytes} bytes at offset {offset} of a buffer are not all there")]
pub struct BadBuffer {
    /// Where, inside the buffer.
    pub offset: u64,
    /// How much.
    pub len_bytes: u64,
}

impl VirtQueue {
    /// Queue `index`, not in use.
    ///
    /// # Errors
    /// [`Broken`] if `size_max` is no power of two: a bug of the device.
    pub fn new(index: u16, size_max: u16, interrupt: Arc<VirtioInterrupt>) -> Result<VirtQueue, Broken> {
        let queue = Queue::new(size_max).map_err(|error| Broken {
            index,
            what: error.to_string(),
        })?;
        Ok(VirtQueue {
            index,
            queue,
            interrupt,
            has_news: false,
        })
    }

    /// Puts it to use as the driver set it up: sizes, alignment, and all rings inside RAM.
    ///
    /// # Errors
    /// [`Broken`] with what is wrong; it is then not in use.
    pub fn start(&mut self, ram: &GuestRam, setup: &QueueSetup, event_idx: bool) -> Result<(), Broken> {
        self.reset();
        let queue = &mut self.queue;
        let result = queue
            .try_set_size(setup.size)
            .and_then(|()| queue.try_set_desc_table_address(GuestAddress(setup.descriptors_gpa)))
            .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(setup.driver_gpa)))
            .and_then(|()| queue.try_set_used_ring_address(GuestAddress(setup.device_gpa)));
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        let what = match result {
            Ok(()) if queue.is_valid(ram) => return Ok(()),
            Ok(()) => format!("its rings are not all in RAM ({setup:x?})"),
            Err(error) => format!("{error} ({setup:x?})"),
        };
        self.reset();
        Err(self.broken(what))
    }

    /// Takes it out of use.
    pub fn reset(&mut self) {
        self.queue.reset();
        self.has_news = false;
    }

    /// Whether the driver set it up.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.queue.ready()
    }

    /// Which queue of the device it is.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Takes the next available buffer; false if there is none. A chain that makes no sense is taken with less in it.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn pop(&mut self, ram: &GuestRam, chain: &mut Chain) -> Result<bool, Broken> {
        if !self.queue.ready() {
            return Ok(false);
        }
        let index = self.index;
        let mut available = self.queue.iter(ram).map_err(|error| Broken {
            index,
            what: error.to_string(),
        })?;
        let Some(descriptors) = available.next() else {
            return Ok(false);
        };
        chain.head = descriptors.head_index();
        chain.readable.clear();
        chain.writable.clear();
        for descriptor in descriptors.take(SEGMENTS_MAX) {
            let segments = if descriptor.is_write_only() {
                &mut chain.writable
            } else {
                &mut chain.readable
            };
            segments.push(descriptor.addr(), descriptor.len());
        }
        Ok(true)
    }

    /// Puts the last taken buffer back, so that the next [`VirtQueue::pop`] takes it again.
    pub fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a buffer back with `len_bytes` bytes written into it.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn push_used(&mut self, ram: &GuestRam, chain: &Chain, len_bytes: u32) -> Result<(), Broken> {
        self.push_used_head(ram, chain.head, len_bytes)
    }

    /// Likewise for a chain of which only the head was kept.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn push_used_head(&mut self, ram: &GuestRam, head: u16, len_bytes: u32) -> Result<(), Broken> {
        self.queue
            .add_used(ram, head, len_bytes)
            .map_err(|error| self.broken(error.to_string()))?;
        self.has_news = true;
        Ok(())
    }

    /// Interrupts the guest if something was given back since the last time, and it wants to hear of it.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn signal(&mut self, ram: &GuestRam) -> Result<(), Broken> {
        if !self.queue.ready() || !std::mem::take(&mut self.has_news) {
            return Ok(());
        }
        match self.queue.needs_notification(ram) {
            Ok(true) => self.interrupt.queue_used(self.index),
            Ok(false) => {}
            Err(error) => return Err(self.broken(error.to_string())),
        }
        Ok(())
    }

    /// Asks the driver to notify of the next buffer; true if one came in the meantime.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn listen(&mut self, ram: &GuestRam) -> Result<bool, Broken> {
        if !self.queue.ready() {
            return Ok(false);
        }
        self.queue
            .enable_notification(ram)
            .map_err(|error| self.broken(error.to_string()))
    }

    /// Tells the driver that notifications are not needed for now.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn ignore(&mut self, ram: &GuestRam) -> Result<(), Broken> {
        if !self.queue.ready() {
            return Ok(());
        }
        self.queue
            .disable_notification(ram)
            .map_err(|error| self.broken(error.to_string()))
    }

    /// Buffers that wait; for tests and for decisions that may be late.
    #[must_use]
    pub fn has_available(&self, ram: &GuestRam) -> bool {
        self.queue.ready()
            && self
                .queue
                .avail_idx(ram, Ordering::Acquire)
                .is_ok_and(|index| index.0 != self.queue.next_avail())
    }

    fn broken(&self, what: String) -> Broken {
        Broken {
            index: self.index,
            what,
        }
    }
}

impl Chain {
    /// The descriptor by which the buffer is given back.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }
}

impl Segments {
    /// All bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The parts that hold `len_bytes` bytes from `offset` on, as far as they are there.
    pub fn parts(&self, offset: u64, len_bytes: u64) -> impl Iterator<Item = (GuestAddress, u32)> + '_ {
        let mut skip = offset;
        let mut left = len_bytes;
        self.parts.iter().filter_map(move |(gpa, len)| {
            let len = u64::from(*len);
            let skipped = skip.min(len);
            skip -= skipped;
            let taken = left.min(len - skipped);
            left -= taken;
            let start = gpa.0.checked_add(skipped)?;
            let taken = u32::try_from(taken).ok().filter(|taken| *taken > 0)?;
            Some((GuestAddress(start), taken))
        })
    }

    /// Copies from guest memory; all of `buf` or an error.
    ///
    /// # Errors
    /// [`BadBuffer`].
    pub fn read(&self, ram: &GuestRam, offset: u64, buf: &mut [u8]) -> Result<(), BadBuffer> {
        let bad = bad(offset, buf.len());
        let mut rest = buf;
        for (gpa, len) in self.parts(offset, bad.len_bytes) {
            let (now, later) = rest.split_at_mut_checked(size(len)).ok_or(bad)?;
            ram.read_slice(now, gpa).map_err(|_| bad)?;
            rest = later;
        }
        if rest.is_empty() { Ok(()) } else { Err(bad) }
    }

    /// Copies into guest memory; all of `bytes` or an error.
    ///
    /// # Errors
    /// [`BadBuffer`]; some bytes may have been written.
    pub fn write(&self, ram: &GuestRam, offset: u64, bytes: &[u8]) -> Result<(), BadBuffer> {
        let bad = bad(offset, bytes.len());
        let mut rest = bytes;
        for (gpa, len) in self.parts(offset, bad.len_bytes) {
            let (now, later) = rest.split_at_checked(size(len)).ok_or(bad)?;
            ram.write_slice(now, gpa).map_err(|_| bad)?;
            rest = later;
        }
        if rest.is_empty() { Ok(()) } else { Err(bad) }
    }

    fn clear(&mut self) {
        self.parts.clear();
        self.len_bytes = 0;
    }

    fn push(&mut self, gpa: GuestAddress, len_bytes: u32) {
        self.parts.push((gpa, len_bytes));
        self.len_bytes += u64::from(len_bytes);
    }
}

fn bad(offset: u64, len: usize) -> BadBuffer {
    BadBuffer {
        offset,
        len_bytes: u64::try_from(len).unwrap_or(u64::MAX),
    }
}

/// A length in memory of this host, which has 64-bit addresses.
pub(super) fn size(len_bytes: u32) -> usize {
    usize::try_from(len_bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::GuestMemory;

    fn segments(parts: &[(u64, u32)]) -> Segments {
        let mut segments = Segments::default();
        for (gpa, len) in parts {
            segments.push(GuestAddress(*gpa), *len);
        }
        segments
    }

    #[test]
    fn segments_are_one_string_of_bytes() {
        let memory = GuestMemory::create(1).unwrap();
        let segments = segments(&[(0x1000, 3), (0x2000, 0), (0x3000, 5)]);
        assert_eq!(segments.len_bytes(), 8);
        segments.write(memory.ram(), 1, &[1, 2, 3, 4]).unwrap();
        let mut buf = [0; 8];
        segments.read(memory.ram(), 0, &mut buf).unwrap();
        assert_eq!(buf, [0, 1, 2, 3, 4, 0, 0, 0]);
        let mut at_3000 = [0; 2];
        memory.ram().read_slice(&mut at_3000, GuestAddress(0x3000)).unwrap();
        assert_eq!(at_3000, [3, 4]);
        assert_eq!(segments.read(memory.ram(), 4, &mut [0; 5]), Err(bad(4, 5)));
        assert_eq!(segments.write(memory.ram(), u64::MAX, &[0]), Err(bad(u64::MAX, 1)));
    }

    #[test]
    fn segments_outside_ram_are_an_error() {
        let memory = GuestMemory::create(1).unwrap();
        for gpa in [(1 << 20) - 2, 1 << 20, u64::MAX - 1] {
            let segments = segments(&[(gpa, 4)]);
            assert_eq!(segments.read(memory.ram(), 0, &mut [0; 4]), Err(bad(0, 4)), "{gpa:#x}");
            assert_eq!(segments.write(memory.ram(), 0, &[0; 4]), Err(bad(0, 4)), "{gpa:#x}");
        }
    }
}
