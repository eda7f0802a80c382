//! What the tests drive the device with: memory that counts, a sink that remembers, a driver's first steps.
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "each test binary uses its own part; values are small; a failed unwrap is a failed test"
)]

use nic_emu::spec::descriptors::{RxWriteback, TxDescriptor};
use nic_emu::spec::registers::{self as reg, ctrl, rctl, tctl};
use nic_emu::{Bus, Dma, DmaError, Em, EmConfig, FrameSink, Offload, Offloads, TxFrame};

pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// Memory from address 0 on; counts accesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ram {
    pub(crate) bytes: Vec<u8>,
    pub(crate) accesses: usize,
}

impl Ram {
    pub(crate) fn new(len: usize) -> Self {
        Self {
            bytes: vec![0; len],
            accesses: 0,
        }
    }

    fn range(&self, gpa: u64, len: usize) -> Result<std::ops::Range<usize>, DmaError> {
        let error = DmaError { gpa, len_bytes: len };
        let start = usize::try_from(gpa).map_err(|_| error)?;
        let end = start.checked_add(len).ok_or(error)?;
        if end <= self.bytes.len() {
            Ok(start..end)
        } else {
            Err(error)
        }
    }

    pub(crate) fn put(&mut self, gpa: u64, bytes: &[u8]) {
        let range = self.range(gpa, bytes.len()).unwrap();
        self.bytes[range].copy_from_slice(bytes);
    }

    pub(crate) fn get(&self, gpa: u64, len: usize) -> &[u8] {
        &self.bytes[self.range(gpa, len).unwrap()]
    }
}

impl Dma for Ram {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        self.accesses += 1;
        let range = self.range(gpa, buf.len())?;
        buf.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), DmaError> {
        self.accesses += 1;
        let range = self.range(gpa, bytes.len())?;
        self.bytes[range].copy_from_slice(bytes);
        Ok(())
    }
}

/// A sink that keeps what it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sink {
    pub(crate) offloads: Offloads,
    pub(crate) frames: Vec<(Vec<u8>, Offload)>,
    pub(crate) calls: usize,
}

impl Sink {
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        self.frames.iter().map(|(bytes, _)| bytes.clone()).collect()
    }
}

impl FrameSink for Sink {
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        assert!(!frames.is_empty() && frames.len() <= nic_emu::limits::FRAMES_PER_SEND);
        self.calls += 1;
        self.frames
            .extend(frames.iter().map(|frame| (frame.bytes.to_vec(), frame.offload)));
    }
}

/// A device with memory, a wire and a clock.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) em: Em,
    pub(crate) ram: Ram,
    pub(crate) sink: Sink,
    pub(crate) now_ns: u64,
    pub(crate) tx_next: u32,
    pub(crate) rx_next: u32,
}

pub(crate) const TX_RING_AT: u64 = 0x1000;
pub(crate) const RX_RING_AT: u64 = 0x2000;
pub(crate) const TX_BUFFERS_AT: u64 = 0x1_0000;
pub(crate) const RX_BUFFERS_AT: u64 = 0x10_0000;
pub(crate) const RING: u32 = 256;

impl Rig {
    /// Powered on, bus master, nothing programmed.
    pub(crate) fn new() -> Self {
        let mut em = Em::new(EmConfig::new(MAC));
        em.set_bus_master(true);
        Self {
            em,
            ram: Ram::new(0x40_0000),
            sink: Sink::default(),
            now_ns: 0,
            tx_next: 0,
            rx_next: 0,
        }
    }

    /// Reset and both rings up, as a driver would leave it: all interrupts on, every frame accepted, CRC stripped.
    pub(crate) fn started() -> Self {
        let mut rig = Self::new();
        let control = rig.read(reg::CTRL);
        rig.write(reg::CTRL, control | ctrl::RST);
        rig.write(reg::TDBAL, TX_RING_AT as u32);
        rig.write(reg::TDLEN, RING * 16);
        rig.write(reg::TDT, 0);
        rig.write(reg::TDH, 0);
        rig.write(reg::TCTL, tctl::EN | tctl::PSP);
        rig.write(reg::RDBAL, RX_RING_AT as u32);
        rig.write(reg::RDLEN, RING * 16);
        rig.write(reg::RDH, 0);
        rig.write(reg::RDT, 0);
        rig.write(reg::RCTL, rctl::EN | rctl::UPE | rctl::MPE | rctl::BAM | rctl::SECRC);
        rig.write(reg::IMS, u32::MAX);
        rig
    }

    pub(crate) fn read(&mut self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.em.mmio_read(self.now_ns, offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write(&mut self, offset: u32, value: u32) -> nic_emu::Actions {
        self.em.mmio_write(self.now_ns, offset, &value.to_le_bytes())
    }

    /// Puts descriptors into the transmit ring, without ringing.
    pub(crate) fn put_tx(&mut self, descriptors: &[TxDescriptor]) {
        for descriptor in descriptors {
            self.ram
                .put(TX_RING_AT + u64::from(self.tx_next) * 16, &descriptor.encode());
            self.tx_next = (self.tx_next + 1) % RING;
        }
    }

    /// Rings the doorbell and lets the device work.
    pub(crate) fn kick(&mut self) {
        let actions = self.write(reg::TDT, self.tx_next);
        assert_eq!(actions.transmit, self.em.transmit_pending());
        while self.em.transmit_pending() {
            assert_ne!(
                self.em.transmit(self.now_ns, &mut self.ram, &mut self.sink),
                0,
                "pending means progress"
            );
        }
    }

    /// Sends descriptors and returns the frames that came out.
    pub(crate) fn send(&mut self, descriptors: &[TxDescriptor]) -> Vec<Vec<u8>> {
        self.sink.frames.clear();
        self.put_tx(descriptors);
        self.kick();
        self.sink.bytes()
    }

    pub(crate) fn tx_descriptor(&self, n: u32) -> TxDescriptor {
        TxDescriptor::decode(self.ram.get(TX_RING_AT + u64::from(n) * 16, 16).first_chunk().unwrap())
    }

    /// Fills the receive ring's descriptors with buffers of `len` bytes and posts `count` of them.
    pub(crate) fn post_rx(&mut self, count: u32, len: u64) {
        let tail = self.read(reg::RDT);
        for n in 0..count {
            let n = (tail + n) % RING;
            let descriptor = TxDescriptor {
                address: RX_BUFFERS_AT + u64::from(n) * len,
                lower: 0,
                upper: 0,
            };
            self.ram.put(RX_RING_AT + u64::from(n) * 16, &descriptor.encode());
        }
        self.write(reg::RDT, (tail + count) % RING);
    }

    pub(crate) fn receive(&mut self, frames: &[&[u8]]) -> usize {
        self.em.receive(self.now_ns, &mut self.ram, frames)
    }

    pub(crate) fn rx_writeback(&self, n: u32) -> RxWriteback {
        RxWriteback::decode(
            self.ram
                .get(RX_RING_AT + u64::from(n) * 16 + 8, 8)
                .first_chunk()
                .unwrap(),
        )
    }

    pub(crate) fn rx_bytes(&self, n: u32, len: u64) -> &[u8] {
        self.ram.get(
            RX_BUFFERS_AT + u64::from(n) * len,
            usize::from(self.rx_writeback(n).len_bytes),
        )
    }
}

/// The host side's way to a device of its own: registers by the public entry points, transmission inline.
#[derive(Debug)]
pub(crate) struct HostBus {
    pub(crate) em: Em,
    pub(crate) ram: Ram,
    pub(crate) sink: Sink,
    pub(crate) now_ns: u64,
    pub(crate) log: Vec<(char, u32, u32)>,
}

impl HostBus {
    pub(crate) fn new(ram_len: usize) -> Self {
        let mut em = Em::new(EmConfig::new(MAC));
        em.set_bus_master(true);
        Self {
            em,
            ram: Ram::new(ram_len),
            sink: Sink::default(),
            now_ns: 0,
            log: Vec::new(),
        }
    }

    pub(crate) fn receive(&mut self, frames: &[&[u8]]) -> usize {
        self.em.receive(self.now_ns, &mut self.ram, frames)
    }
}

impl Bus for HostBus {
    fn read_register(&mut self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.em.mmio_read(self.now_ns, offset, &mut data);
        let value = u32::from_le_bytes(data);
        self.log.push(('r', offset, value));
        value
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        self.log.push(('w', offset, value));
        let actions = self.em.mmio_write(self.now_ns, offset, &value.to_le_bytes());
        if actions.transmit {
            while self.em.transmit_pending() {
                self.em.transmit(self.now_ns, &mut self.ram, &mut self.sink);
            }
        }
    }

    fn read_memory(&mut self, gpa: u64, buf: &mut [u8]) {
        self.ram.read(gpa, buf).unwrap();
    }

    fn write_memory(&mut self, gpa: u64, bytes: &[u8]) {
        self.ram.write(gpa, bytes).unwrap();
    }
}

/// A frame to the broadcast address with a recognisable body.
pub(crate) fn broadcast_frame(len: usize, seed: u8) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len)
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed))
        .collect();
    let addresses = len.min(6);
    frame[..addresses].fill(0xFF);
    if len >= 14 {
        frame[12..14].copy_from_slice(&[0x88, 0xB5]);
    }
    frame
}

/// The ones-complement sum, independent of the crate's.
pub(crate) fn independent_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for (n, byte) in bytes.iter().enumerate() {
        sum += if n % 2 == 0 {
            u32::from(*byte) << 8
        } else {
            u32::from(*byte)
        };
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}
