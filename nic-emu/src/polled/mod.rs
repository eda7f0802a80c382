//! A driver for the 82540EM without interrupts and without an allocator. It drives the device's public registers as any
//! driver does, masks every interrupt, and learns of progress from the DD bits in descriptor memory alone, so it works
//! in a panicked guest as well as on the host side, where its rings lie in a private DMA window.
//!
//! ```text
//!   start ─► queue … queue ─► kick ─► (device sends) ─┐
//!              ▲                 poll ◄───────────────┤ ─► stop
//!              └──────────────────┴───────────────────┘
//! ```
//!
//! [`Polled::queue_datagram`] lets datagrams that follow each other leave as one packet that the device cuts.
//!
//! Window: 128 transmit descriptors, 64 receive descriptors, a ring of 256 KiB for outgoing bytes, 64 receive buffers
//! of 2 KiB. A frame lies contiguous in the ring and takes one descriptor, a burst of datagrams two; a received frame may take several buffers.

mod burst;
mod error;

use core::fmt;

use crate::bits::{high32, index, len16, len32, low32};
use crate::limits::ETHERNET_HEADER_LEN;
use crate::spec::descriptors::{DESCRIPTOR_LEN, RxWriteback, STATUS_DD, TxDescriptor, command, rx_status};
use crate::spec::registers as reg;

pub use burst::{DATAGRAM_HEADERS_LEN, DatagramHeaders};
pub use error::{PolledError, QueueError};

/// The way to one device and to the memory it reads and writes.
pub trait Bus {
    /// Reads the 32-bit register at a BAR0 offset.
    fn read_register(&mut self, offset: u32) -> u32;

    /// Writes the 32-bit register at a BAR0 offset.
    fn write_register(&mut self, offset: u32, value: u32);

    /// Reads the window's memory at a guest physical address, in one access as the device would see it.
    fn read_memory(&mut self, gpa: u64, buf: &mut [u8]);

    /// Writes the window's memory. Writes must reach memory before a later [`write_register`](Self::write_register).
    fn write_memory(&mut self, gpa: u64, bytes: &[u8]);
}

/// The memory that the driver may use, as the device addresses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Where it starts; a multiple of 128.
    pub gpa: u64,
    /// How long it is; at least [`WINDOW_LEN`].
    pub len_bytes: u64,
}

/// Bytes of window that [`Polled::start`] needs.
pub const WINDOW_LEN: usize = RINGS_LEN + index(TX_BYTES) + RX_RING * RX_BUFFER_LEN;

/// Longest frame, without CRC, in either direction: an MTU of 9000 with header and VLAN tag.
pub const FRAME_LEN_MAX: usize = 9000 + ETHERNET_HEADER_LEN + 4;

/// The running driver. Its size is dominated by one frame of reassembly (9 KiB).
pub struct Polled {
    gpa: u64,
    tx: Tx,
    rx: Rx,
    burst: Option<burst::Burst>,
}

impl fmt::Debug for Polled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polled")
            .field("gpa", &self.gpa)
            .field("tx_next", &self.tx.next)
            .finish_non_exhaustive()
    }
}

/// Transmit side: descriptors `[oldest, next)` are the device's; their bytes lie in `[ring_start, ring_end)`.
struct Tx {
    next: usize,
    oldest: usize,
    told: usize,
    /// Where the bytes of each descriptor end in the byte ring.
    ends: [u32; TX_RING],
    ring_start: u32,
    ring_end: u32,
}

/// Receive side: `next` is the descriptor that is filled next, `frame[..len]` what came of the current frame.
struct Rx {
    next: usize,
    len: usize,
    bad: bool,
    frame: [u8; REASSEMBLY_LEN],
}

impl Polled {
    /// Resets the device and brings it up with rings in `window`: interrupts masked, station address `mac`, broadcast
    /// accepted, frames up to [`FRAME_LEN_MAX`], CRC stripped.
    pub fn start(bus: &mut impl Bus, window: Window, mac: [u8; 6]) -> Result<Self, PolledError> {
        let fits = window.len_bytes >= WINDOW_LEN as u64 && window.gpa.checked_add(window.len_bytes).is_some();
        if !fits || !window.gpa.is_multiple_of(WINDOW_ALIGN) {
            return Err(PolledError::BadWindow { window });
        }
        if bus.read_register(reg::STATUS) == u32::MAX {
            return Err(PolledError::NoDevice);
        }
        reset(bus)?;
        let status = bus.read_register(reg::STATUS);
        if status & reg::status::LU == 0 {
            return Err(PolledError::NoLink { status });
        }
        set_addresses(bus, mac);
        let mut polled = Self {
            gpa: window.gpa,
            tx: Tx {
                next: 0,
                oldest: 0,
                told: 0,
                ends: [0; TX_RING],
                ring_start: 0,
                ring_end: 0,
            },
            rx: Rx {
                next: 0,
                len: 0,
                bad: false,
                frame: [0; REASSEMBLY_LEN],
            },
            burst: None,
        };
        polled.start_transmit(bus);
        polled.start_receive(bus);
        Ok(polled)
    }

    /// Puts a frame (without CRC) into the ring; the device sees it at the next [`kick`](Self::kick).
    pub fn queue(&mut self, bus: &mut impl Bus, frame: &[u8]) -> Result<(), QueueError> {
        if !(ETHERNET_HEADER_LEN..=FRAME_LEN_MAX).contains(&frame.len()) {
            return Err(QueueError::BadLength { len_bytes: frame.len() });
        }
        self.close_burst(bus);
        let at = self.place(bus, frame.len(), 1)?;
        let address = self.gpa + TX_BYTES_AT + u64::from(at);
        bus.write_memory(address, frame);
        let commands = command::EOP | command::IFCS | command::RS;
        let descriptor = TxDescriptor::legacy(address, len16(frame.len()), commands);
        bus.write_memory(self.tx_descriptor(self.tx.next), &descriptor.encode());
        self.tx.take(at + len32(frame.len()));
        Ok(())
    }

    /// Tells the device of everything queued since the last kick: one write of TDT, or none if there is nothing new.
    pub fn kick(&mut self, bus: &mut impl Bus) {
        self.close_burst(bus);
        if self.tx.told != self.tx.next {
            self.tx.told = self.tx.next;
            bus.write_register(reg::TDT, len32(self.tx.next));
        }
    }

    /// Has the device finished with every frame that was queued?
    pub fn all_sent(&mut self, bus: &mut impl Bus) -> bool {
        self.reclaim(bus);
        self.burst.is_none() && self.tx.oldest == self.tx.next
    }

    /// Hands every received frame (without CRC) to `deliver` and gives the buffers back with one write of RDT. Looks at
    /// each descriptor at most once a call. Returns how many frames were delivered.
    pub fn poll(&mut self, bus: &mut impl Bus, deliver: &mut dyn FnMut(&[u8])) -> usize {
        let (mut delivered, mut used) = (0, 0);
        while used < RX_RING {
            let descriptor = self.rx_descriptor(self.rx.next);
            let mut half = [0; DESCRIPTOR_LEN / 2];
            bus.read_memory(descriptor + 8, &mut half);
            let done = RxWriteback::decode(&half);
            if done.status & rx_status::DD == 0 {
                break;
            }
            self.rx.collect(bus, self.gpa, &done);
            if done.status & rx_status::EOP != 0 {
                if let Some(frame) = self.rx.finish() {
                    deliver(frame);
                    delivered += 1;
                }
                self.rx.len = 0;
                self.rx.bad = false;
            }
            bus.write_memory(descriptor + 8, &[0; DESCRIPTOR_LEN / 2]);
            self.rx.next = (self.rx.next + 1) % RX_RING;
            used += 1;
        }
        if used > 0 {
            // One descriptor stays ours, so that head == tail never means "full".
            bus.write_register(reg::RDT, len32((self.rx.next + RX_RING - 1) % RX_RING));
        }
        delivered
    }

    /// Stops the device: nothing is received or sent any more, and it no longer uses the window.
    pub fn stop(&mut self, bus: &mut impl Bus) {
        self.burst = None;
        bus.write_register(reg::IMC, u32::MAX);
        bus.write_register(reg::RCTL, 0);
        bus.write_register(reg::TCTL, 0);
        let ctrl = bus.read_register(reg::CTRL);
        bus.write_register(reg::CTRL, ctrl | reg::ctrl::RST);
    }

    fn start_transmit(&mut self, bus: &mut impl Bus) {
        let base = self.gpa + TX_DESCRIPTORS_AT;
        for n in 0..TX_RING {
            bus.write_memory(self.tx_descriptor(n), &[0; DESCRIPTOR_LEN]);
        }
        bus.write_register(reg::TDBAL, low32(base));
        bus.write_register(reg::TDBAH, high32(base));
        bus.write_register(reg::TDLEN, len32(TX_RING * DESCRIPTOR_LEN));
        bus.write_register(reg::TDT, 0);
        bus.write_register(reg::TDH, 0);
        bus.write_register(reg::TIPG, TIPG_COPPER);
        bus.write_register(reg::TCTL, reg::tctl::EN | reg::tctl::PSP | reg::tctl::COLLISION);
    }

    fn start_receive(&mut self, bus: &mut impl Bus) {
        let base = self.gpa + RX_DESCRIPTORS_AT;
        for n in 0..RX_RING {
            let address = self.gpa + RX_BUFFERS_AT + (n * RX_BUFFER_LEN) as u64;
            let descriptor = TxDescriptor {
                address,
                lower: 0,
                upper: 0,
            };
            bus.write_memory(self.rx_descriptor(n), &descriptor.encode());
        }
        bus.write_register(reg::RDBAL, low32(base));
        bus.write_register(reg::RDBAH, high32(base));
        bus.write_register(reg::RDLEN, len32(RX_RING * DESCRIPTOR_LEN));
        bus.write_register(reg::RDH, 0);
        bus.write_register(reg::RDT, 0);
        bus.write_register(reg::RDTR, 0);
        let buffers_of_2048 = 0;
        let flags = reg::rctl::EN | reg::rctl::BAM | reg::rctl::LPE | reg::rctl::SECRC;
        bus.write_register(reg::RCTL, flags | buffers_of_2048);
        bus.write_register(reg::RDT, len32(RX_RING - 1));
    }

    /// Where `len` contiguous bytes and so many descriptors are free, once what the device has finished is taken back.
    fn place(&mut self, bus: &mut impl Bus, len: usize, descriptors: usize) -> Result<u32, QueueError> {
        if let Some(at) = self.tx.place(len, descriptors) {
            return Ok(at);
        }
        self.reclaim(bus);
        self.tx.place(len, descriptors).ok_or(QueueError::Full)
    }

    /// Takes back every descriptor, oldest first, that the device has finished.
    fn reclaim(&mut self, bus: &mut impl Bus) {
        while self.tx.oldest != self.tx.told {
            let mut status = [0; 1];
            bus.read_memory(self.tx_descriptor(self.tx.oldest) + TX_STATUS_AT, &mut status);
            if status[0] & STATUS_DD == 0 {
                break;
            }
            self.tx.release();
        }
    }

    fn tx_descriptor(&self, n: usize) -> u64 {
        self.gpa + TX_DESCRIPTORS_AT + (n * DESCRIPTOR_LEN) as u64
    }

    fn rx_descriptor(&self, n: usize) -> u64 {
        self.gpa + RX_DESCRIPTORS_AT + (n * DESCRIPTOR_LEN) as u64
    }
}

impl Tx {
    /// Where `len` contiguous bytes are free, if so many descriptors are free too.
    fn place(&mut self, len: usize, descriptors: usize) -> Option<u32> {
        let len = len32(len);
        // One stays free, so that head == tail never means "full".
        let used = (self.next + TX_RING - self.oldest) % TX_RING;
        if used + descriptors >= TX_RING {
            return None;
        }
        if self.next == self.oldest {
            (self.ring_start, self.ring_end) = (0, 0);
        }
        // Strictly less than the start, so that an equal start and end always mean "empty".
        if self.ring_end >= self.ring_start {
            if self.ring_end + len <= TX_BYTES {
                return Some(self.ring_end);
            }
            return (len < self.ring_start).then_some(0);
        }
        (self.ring_end + len < self.ring_start).then_some(self.ring_end)
    }

    /// Whether what lies at `at` and ends the ring at `end` can become longer where it is.
    fn can_grow(&self, at: u32, end: u32, len: u32) -> bool {
        if at >= self.ring_start {
            end + len <= TX_BYTES
        } else {
            end + len < self.ring_start
        }
    }

    fn take(&mut self, end: u32) {
        if let Some(slot) = self.ends.get_mut(self.next) {
            *slot = end;
        }
        self.ring_end = end;
        self.next = (self.next + 1) % TX_RING;
    }

    fn release(&mut self) {
        self.ring_start = self.ends.get(self.oldest).copied().unwrap_or(0);
        self.oldest = (self.oldest + 1) % TX_RING;
    }
}

impl Rx {
    /// Appends one buffer to the frame; a frame with errors or too long is marked bad and dropped at its end.
    fn collect(&mut self, bus: &mut impl Bus, gpa: u64, done: &RxWriteback) {
        let len = index(u32::from(done.len_bytes)).min(RX_BUFFER_LEN);
        let from = gpa + RX_BUFFERS_AT + (self.next * RX_BUFFER_LEN) as u64;
        match self.frame.get_mut(self.len..self.len + len) {
            Some(room) if done.errors == 0 && !self.bad => {
                bus.read_memory(from, room);
                self.len += len;
            }
            _ => self.bad = true,
        }
    }

    fn finish(&self) -> Option<&[u8]> {
        if self.bad {
            return None;
        }
        self.frame
            .get(..self.len)
            .filter(|frame| frame.len() >= ETHERNET_HEADER_LEN)
    }
}

/// Masks interrupts, stops both directions, resets, and clears what the reset may have left pending.
fn reset(bus: &mut impl Bus) -> Result<(), PolledError> {
    bus.write_register(reg::IMC, u32::MAX);
    bus.write_register(reg::RCTL, 0);
    bus.write_register(reg::TCTL, reg::tctl::PSP);
    let ctrl = bus.read_register(reg::CTRL);
    bus.write_register(reg::CTRL, ctrl | reg::ctrl::RST);
    let mut reads = 0;
    let ctrl = loop {
        let ctrl = bus.read_register(reg::CTRL);
        reads += 1;
        if ctrl & reg::ctrl::RST == 0 {
            break ctrl;
        }
        if reads == RESET_READS_MAX {
            return Err(PolledError::ResetStuck { reads });
        }
    };
    bus.write_register(reg::IMC, u32::MAX);
    bus.read_register(reg::ICR);
    bus.write_register(reg::CTRL, (ctrl | reg::ctrl::SLU) & !reg::ctrl::VME);
    Ok(())
}

fn set_addresses(bus: &mut impl Bus, mac: [u8; 6]) {
    let [a, b, c, d, e, f] = mac;
    bus.write_register(reg::RAL, u32::from_le_bytes([a, b, c, d]));
    bus.write_register(reg::RAH, u32::from_le_bytes([e, f, 0, 0]) | reg::RAH_AV);
    for n in 0..128 {
        bus.write_register(reg::MTA + n * 4, 0);
    }
}

/// Transmit descriptors: two full send windows of 64 packets. A multiple of 8 (SDM chapter 13, TDLEN).
const TX_RING: usize = 128;

/// Receive descriptors: what comes in are acknowledgements, at most one per packet sent.
const RX_RING: usize = 64;

/// Bytes of each receive buffer (RCTL.BSIZE 00).
const RX_BUFFER_LEN: usize = 2048;

/// Bytes of the ring that outgoing frames lie in: 64 packets of 4 KiB.
const TX_BYTES: u32 = 256 * 1024;

/// Room for the longest frame, rounded up to whole receive buffers.
const REASSEMBLY_LEN: usize = FRAME_LEN_MAX.next_multiple_of(RX_BUFFER_LEN);

/// Rings must start at a multiple of 16; 128 keeps a descriptor block in one cache line pair.
const WINDOW_ALIGN: u64 = 128;

/// Room for both descriptor rings: one page.
const RINGS_LEN: usize = 4096;

const TX_DESCRIPTORS_AT: u64 = 0;
const RX_DESCRIPTORS_AT: u64 = 2048;
const TX_BYTES_AT: u64 = RINGS_LEN as u64;
const RX_BUFFERS_AT: u64 = TX_BYTES_AT + TX_BYTES as u64;

/// Byte of a transmit descriptor that holds DD.
const TX_STATUS_AT: u64 = 12;

/// Inter-packet gap for copper (SDM chapter 13, TIPG; the value that FreeBSD and Linux write).
const TIPG_COPPER: u32 = 0x0060_2008;

/// Reads of CTRL that a reset may take; silicon is done within a microsecond.
const RESET_READS_MAX: u32 = 100_000;

const _: () = assert!(TX_RING * DESCRIPTOR_LEN <= RINGS_LEN / 2 && RX_RING * DESCRIPTOR_LEN <= RINGS_LEN / 2);
