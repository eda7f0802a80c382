//! The em before hostile guests: register accesses in any order, and rings whose memory makes itself up as it is read: the first
//! look at an address takes the next byte of the input, so that a short input reaches deep. Nothing panics, every step
//! does bounded work, and a device that was saved and restored is the same.

use std::collections::BTreeMap;

use nic_emu::limits::{FRAME_LEN_MAX, FRAME_LEN_MIN, LOOPBACK_FRAMES, SEGMENTATION_LEN_MAX, SLOTS_PER_FRAME};
use nic_emu::spec::registers::{self as reg, TABLE, ctrl, rctl, tctl};
use nic_emu::{Dma, DmaError, EepromWrites, Em, EmConfig, EmState, FrameSink, Offloads, TxFrame};

/// Most steps of one input: moving to another device is the slowest of them.
const STEPS_MAX: usize = 100;

/// Register accesses, timers, frames and moves, as the input says.
pub(crate) fn registers(input: &[u8]) {
    let mut world = World::new(input);
    world.program();
    for _ in 0..STEPS_MAX {
        let Some(step) = world.memory.next() else { return };
        world.step(step);
    }
}

/// Transmit rings: first how the device is set up, then doorbells; descriptors and buffers are memory.
pub(crate) fn transmit(input: &[u8]) {
    let mut world = World::new(input);
    world.program();
    let [len, control, device, looped] = [(); 4].map(|()| world.byte());
    world.write(reg::TDLEN, 128 << (len % 4));
    world.write(reg::TCTL, u32::from(control) | tctl::EN);
    world.write(reg::CTRL, without_reset(device));
    world.write(reg::RCTL, 0x0001_8002 | u32::from(looped) << 6 & rctl::LBM);
    world.write(reg::RDT, 7);
    while let Some(tail) = world.memory.next() {
        world.write(reg::TDT, u32::from(tail % 72));
        world.send();
    }
}

/// Receive rings: first how the device is set up, then frames and doorbells.
pub(crate) fn receive(input: &[u8]) {
    let mut world = World::new(input);
    world.program();
    let [len, checksums, device] = [(); 3].map(|()| world.byte());
    let control = world.word();
    world.write(reg::RDLEN, 128 << (len % 4));
    world.write(reg::RXCSUM, u32::from(checksums) << 3);
    world.write(reg::CTRL, without_reset(device));
    world.write(reg::RCTL, (control | rctl::EN) & !rctl::LBM);
    while let Some(tail) = world.memory.next() {
        world.write(reg::RDT, u32::from(tail % 72));
        world.frames();
    }
}

/// The high byte of CTRL, which has VME, without its resets.
fn without_reset(high: u8) -> u32 {
    u32::from(high) << 24 & !(ctrl::RST | ctrl::PHY_RST)
}

struct World<'a> {
    em: Em,
    memory: Dream<'a>,
    sink: Sink,
    now_ns: u64,
}

impl<'a> World<'a> {
    fn new(input: &'a [u8]) -> Self {
        let flags = input.first().copied().unwrap_or(0);
        let mut em = Em::new(EmConfig {
            mac: [2, 0, 0, 0, 0, 1],
            eeprom_writes: if flags & 1 == 0 {
                EepromWrites::Ignored
            } else {
                EepromWrites::Kept
            },
        });
        em.set_bus_master(true);
        let on = |bit: u8| flags & bit != 0;
        let offloads = Offloads {
            checksum: on(2),
            tcp4: on(4),
            tcp6: on(8),
            udp4: on(16),
            udp6: on(32),
        };
        Self {
            em,
            memory: Dream::new(input.get(1..).unwrap_or_default()),
            sink: Sink { offloads },
            now_ns: 0,
        }
    }

    /// Small rings and everything on.
    fn program(&mut self) {
        for (offset, value) in [
            (reg::TDBAL, 0x1_0000),
            (reg::TDLEN, 1024),
            (reg::TCTL, tctl::EN),
            (reg::RDBAL, 0x2_0000),
            (reg::RDLEN, 1024),
            (reg::RCTL, 0x0003_803E),
        ] {
            self.write(offset, value);
        }
    }

    fn byte(&mut self) -> u8 {
        self.memory.next().unwrap_or(0)
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Of a register whose reading does nothing.
    fn read(&mut self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.em.mmio_read(self.now_ns, offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.em.mmio_write(self.now_ns, offset, &value.to_le_bytes());
    }

    fn step(&mut self, step: u8) {
        let now_ns = self.now_ns;
        match step % 16 {
            0..=4 => {
                // A register that there is.
                let row = &TABLE[usize::from(self.byte()) % TABLE.len()];
                let number = u32::from(self.byte()) % row.count;
                let value = self.word();
                self.write(row.offset + number * row.stride, value);
            }
            5 | 6 => {
                let (offset, len) = (self.word() >> (step >> 4), usize::from(step >> 4));
                let mut data = vec![step; len];
                self.em.mmio_read(now_ns, offset, &mut data);
                self.em.mmio_write(now_ns, offset, &data);
            }
            7 => {
                let (at, value) = (u32::from(step >> 4), self.word());
                self.em.io_write(now_ns, at, &value.to_le_bytes());
                self.em.io_read(now_ns, at, &mut [0; 4]);
            }
            8 => {
                self.now_ns += u64::from(self.word() >> 8);
                self.em.handle_timeout(self.now_ns);
            }
            9 => drop(self.em.set_link(now_ns, step & 16 != 0)),
            10 => drop(self.em.set_bus_master(step & 0xF0 != 0)),
            11 => self.em.bus_reset(),
            12 => self.program(),
            13 => self.frames(),
            14 => self.send(),
            _ => self.go_elsewhere(),
        }
        let wanted = self.read(reg::ICS) & self.read(reg::IMS) != 0;
        assert!(wanted || !self.em.irq_level(), "the line is high, and nothing wants it");
    }

    /// Saves, and goes on with another device on another clock.
    fn go_elsewhere(&mut self) {
        let saved = self.em.save(self.now_ns);
        let state = EmState::decode(&saved.encode()).expect("what was encoded is decoded");
        assert_eq!(state, saved);
        self.now_ns = u64::from(self.word());
        self.em = Em::new(EmConfig::new([2; 6]));
        self.em.restore(self.now_ns, state);
        assert_eq!(self.em.save(self.now_ns), saved);
    }

    fn send(&mut self) {
        let bound = self.bound(0);
        for _ in 0..4 {
            let pending = self.em.transmit_pending();
            let taken = self.em.transmit(self.now_ns, &mut self.memory, &mut self.sink);
            assert_eq!(pending, taken > 0, "pending means progress");
        }
        assert!(std::mem::take(&mut self.memory.accesses) <= 4 * bound);
    }

    fn frames(&mut self) {
        let count = usize::from(self.byte() % 4);
        let frames: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                let len = [self.byte(), self.byte()];
                let len = usize::from(u16::from_le_bytes(len) % 17_000);
                let mut frame: Vec<u8> = (0..len.min(60)).map(|_| self.byte()).collect();
                frame.resize(len, 0x5A);
                frame
            })
            .collect();
        let slices: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let bound = self.bound(count);
        let done = self.em.receive(self.now_ns, &mut self.memory, &slices);
        assert!(done <= count);
        assert!(std::mem::take(&mut self.memory.accesses) <= bound);
    }

    /// The most memory accesses of one call: each descriptor is read, its data moved and two fields written; a frame that finds
    /// no room costs one look at every descriptor.
    fn bound(&mut self, frames: usize) -> usize {
        let descriptors = (self.read(reg::TDLEN) + self.read(reg::RDLEN)) as usize / 16;
        4 * descriptors + (frames + LOOPBACK_FRAMES) * SLOTS_PER_FRAME
    }
}

/// Checks what leaves.
struct Sink {
    offloads: Offloads,
}

impl FrameSink for Sink {
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        for frame in frames {
            let uncut = frame.offload.segmentation.is_some();
            let max = if uncut { SEGMENTATION_LEN_MAX } else { FRAME_LEN_MAX } + 4;
            assert!(
                (FRAME_LEN_MIN..=max).contains(&frame.bytes.len()),
                "{} bytes",
                frame.bytes.len()
            );
            if let Some(checksum) = frame.offload.checksum {
                let at = usize::from(checksum.start) + usize::from(checksum.offset);
                assert!(
                    at + 2 <= frame.bytes.len(),
                    "a checksum at {at} of {}",
                    frame.bytes.len()
                );
            }
        }
    }
}

/// Memory that makes itself up out of the input, from its end; the steps come from its beginning. What the device writes is
/// forgotten: it writes only what it never reads.
struct Dream<'a> {
    input: &'a [u8],
    known: BTreeMap<u64, u8>,
    accesses: usize,
}

impl<'a> Dream<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            known: BTreeMap::new(),
            accesses: 0,
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.input.split_first()?;
        self.input = rest;
        Some(*byte)
    }
}

impl Dma for Dream<'_> {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        self.accesses += 1;
        // Whole buffers are not worth the input: their first bytes are, the rest repeats.
        let len_bytes = buf.len();
        gpa.checked_add(len_bytes as u64).ok_or(DmaError { gpa, len_bytes })?;
        for (at, byte) in buf.iter_mut().enumerate() {
            if at >= 128 {
                *byte = 0xA5;
                continue;
            }
            let gpa = gpa + at as u64;
            *byte = match (self.known.get(&gpa), self.input.split_last()) {
                (Some(known), _) => *known,
                (None, Some((next, rest))) => {
                    self.input = rest;
                    self.known.insert(gpa, *next);
                    *next
                }
                // Nothing is left to make up.
                (None, None) => 0,
            };
        }
        Ok(())
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), DmaError> {
        self.accesses += 1;
        let len_bytes = bytes.len();
        gpa.checked_add(len_bytes as u64).ok_or(DmaError { gpa, len_bytes })?;
        Ok(())
    }
}
