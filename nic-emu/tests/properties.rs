//! What must hold for all inputs. Each has its number in its test's name, `p1_` to `p10_`: P1 and P5 (nothing panics, runs long
//! or grows; a move changes nothing) are in `garbage.rs` and `state.rs`, P2 and P3 (any split sends the same; segments) in
//! `transmit.rs` and `segmentation.rs`, P4 (buffers together hold the frame) in `receive.rs`, P10 (10 000 frames each way without
//! a handshake) in `polled.rs`; P6 to P9 are here.
#![cfg(feature = "device")]
#![allow(clippy::cast_possible_truncation, reason = "test values are small")]

mod support;

use std::collections::BTreeMap;

use nic_emu::spec::registers::{self as reg, cause, eecd, eerd, rctl, tctl};
use nic_emu::spec::{descriptors::rx_status, eeprom};
use nic_emu::{Dma, DmaError, Em, EmConfig, Offloads};
use proptest::prelude::*;
use support::{Rig, Sink, broadcast_frame};

/// P6: the interrupt registers as the manual describes them, without anything else.
#[derive(Debug, Default)]
struct Model {
    causes: u32,
    mask: u32,
    interval_ns: u64,
    rose_ns: Option<u64>,
    level: bool,
}

impl Model {
    /// The line after a change: a fall is at once, a rise when the interval since the last one is over.
    fn settle(&mut self, now_ns: u64) {
        let wanted = self.causes & self.mask != 0;
        let may = self.rose_ns.is_none_or(|rose| now_ns >= rose + self.interval_ns);
        if wanted && !self.level && may {
            self.rose_ns = Some(now_ns);
        }
        self.level = wanted && (self.level || may);
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Set(u32),
    Read,
    Clear(u32),
    Unmask(u32),
    Mask(u32),
    Interval(u16),
    Wait(u32),
    Link(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let bits = || prop_oneof![(0_u32..17).prop_map(|bit| 1 << bit), any::<u32>()];
    prop_oneof![
        3 => bits().prop_map(Event::Set),
        3 => Just(Event::Read),
        1 => bits().prop_map(Event::Clear),
        2 => bits().prop_map(Event::Unmask),
        1 => bits().prop_map(Event::Mask),
        1 => (0_u16..1000).prop_map(Event::Interval),
        4 => (0_u32..400_000).prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Link),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn p6_the_line_is_what_the_manual_says_and_no_cause_is_lost(events in proptest::collection::vec(event(), 1..200)) {
        let mut rig = Rig::new();
        let mut model = Model::default();
        let mut cable = true;
        for event in events {
            match event {
                Event::Set(bits) => {
                    rig.write(reg::ICS, bits);
                    model.causes |= bits & cause::ALL;
                }
                Event::Read => {
                    prop_assert_eq!(rig.read(reg::ICR), model.causes);
                    model.causes = 0;
                }
                Event::Clear(bits) => {
                    rig.write(reg::ICR, bits);
                    model.causes &= !bits;
                }
                Event::Unmask(bits) => {
                    rig.write(reg::IMS, bits);
                    model.mask |= bits & cause::ALL;
                }
                Event::Mask(bits) => {
                    rig.write(reg::IMC, bits);
                    model.mask &= !bits;
                }
                Event::Interval(units) => {
                    rig.write(reg::ITR, units.into());
                    model.interval_ns = u64::from(units) * 256;
                }
                Event::Wait(ns) => {
                    rig.now_ns += u64::from(ns);
                    let now_ns = rig.now_ns;
                    rig.em.handle_timeout(now_ns);
                }
                Event::Link(up) => {
                    rig.em.set_link(rig.now_ns, up);
                    model.causes |= if up == cable { 0 } else { cause::LSC };
                    cable = up;
                }
            }
            model.settle(rig.now_ns);
            prop_assert_eq!(rig.em.irq_level(), model.level, "after {:?}", event);
            prop_assert_eq!((rig.read(reg::ICS), rig.read(reg::IMS)), (model.causes, model.mask));
            // A line that waits has its time told, and that time is enough.
            if model.causes & model.mask != 0 && !model.level {
                let due = rig.em.poll_timeout().expect("a throttled line has a deadline");
                prop_assert_eq!(Some(due), model.rose_ns.map(|rose| rose + model.interval_ns));
            }
        }
    }

    /// P7: a multicast frame passes exactly when the bit is set that the drivers' formula names (Linux
    /// `e1000_hash_mc_addr`, FreeBSD `e1000_hash_mc_addr_generic`).
    #[test]
    fn p7_the_multicast_table_is_the_drivers(address in any::<[u8; 6]>(), offset in 0_u32..4, other in any::<u8>(), same in any::<bool>()) {
        let address = [address[0] | 1, address[1], address[2], address[3], address[4], address[5]];
        prop_assume!(address != [0xFF; 6]);
        let formula = |low: u8, high: u8| {
            let (low, high) = (u32::from(low), u32::from(high));
            0xFFF & match offset {
                0 => low >> 4 | high << 4,
                1 => low >> 3 | high << 5,
                2 => low >> 2 | high << 6,
                _ => low | high << 8,
            }
        };
        let bit = formula(address[4], if same { address[5] } else { other });
        let mut rig = Rig::started();
        rig.write(reg::RCTL, rctl::EN | rctl::SECRC | offset << rctl::MO_SHIFT);
        rig.write(reg::MTA + (bit >> 5) * 4, 1 << (bit & 31));
        rig.post_rx(2, 2048);
        let mut frame = broadcast_frame(60, 3);
        frame[..6].copy_from_slice(&address);
        prop_assert_eq!(rig.receive(&[&frame]), 1);
        let passed = bit == formula(address[4], address[5]);
        prop_assert_eq!(rig.rx_writeback(0).status & rx_status::DD != 0, passed);
    }

    /// P8: both doors to the EEPROM show the image, whatever happens at the other door in between.
    #[test]
    fn p8_wires_eerd_and_image_agree(mac in any::<[u8; 6]>(), first in 0_u8..64, count in 1_usize..70, between in any::<u8>()) {
        let image = eeprom::image(mac);
        let mut rig = Rig::new();
        rig.em = Em::new(EmConfig::new(mac));
        let command = eeprom::OPCODE_READ << 6 | u16::from(first);
        rig.write(reg::EECD, eecd::SK | eecd::CS);
        rig.write(reg::EECD, eecd::CS);
        for n in (0..9).rev() {
            let data = if command >> n & 1 != 0 { eecd::DI } else { 0 };
            rig.write(reg::EECD, eecd::CS | data);
            rig.write(reg::EECD, eecd::CS | data | eecd::SK);
        }
        for n in 0..count {
            let at = (usize::from(first) + n) % eeprom::WORDS;
            let mut word = 0;
            for _ in 0..16 {
                rig.write(reg::EECD, eecd::CS);
                rig.write(reg::EECD, eecd::CS | eecd::SK);
                word = word << 1 | u16::from(rig.read(reg::EECD) & eecd::DO != 0);
            }
            let asked = u32::from(between).wrapping_add(n as u32) & 0x3F;
            rig.write(reg::EERD, eerd::START | asked << eerd::ADDRESS_SHIFT);
            let by_eerd = rig.read(reg::EERD);
            prop_assert_eq!(word, image[at]);
            prop_assert_eq!(by_eerd >> eerd::DATA_SHIFT, u32::from(image[asked as usize]));
            prop_assert_eq!(by_eerd & (eerd::START | eerd::DONE), eerd::DONE);
        }
    }

    /// P9: memory that makes itself up as it is read, so that small inputs reach deep.
    #[test]
    fn p9_any_descriptor_memory_is_survived_with_bounded_work(
        bytes in proptest::collection::vec(any::<u8>(), 1..2000),
        program in proptest::collection::vec((0_u8..10, any::<u16>()), 1..60),
        offloads in any::<(bool, bool, bool)>(),
    ) {
        let (checksum, tcp4, tcp6) = offloads;
        let mut dream = Dream { bytes, ..Dream::default() };
        let mut sink = Sink { offloads: Offloads { checksum, tcp4, tcp6, udp4: tcp4, udp6: tcp6 }, ..Sink::default() };
        let mut em = Em::new(EmConfig::new([2, 0, 0, 0, 0, 1]));
        em.set_bus_master(true);
        let put = |em: &mut Em, now: u64, offset: u32, value: u32| { em.mmio_write(now, offset, &value.to_le_bytes()); };
        for (offset, value) in [(reg::TDBAL, 0x1_0000), (reg::TDLEN, 1024), (reg::TCTL, tctl::EN), (reg::RDBAL, 0x2_0000), (reg::RDLEN, 1024), (reg::RCTL, 0x0003_803E)] {
            put(&mut em, 0, offset, value);
        }
        for (now, (what, value)) in (0..).step_by(1000).zip(program) {
            let before = dream.accesses;
            let ring = u32::from(value) % 64;
            match what {
                0..3 => put(&mut em, now, reg::TDT, ring),
                3..5 => put(&mut em, now, reg::RDT, ring),
                5 => put(&mut em, now, reg::RCTL, u32::from(value) << 1 | rctl::EN),
                6 => put(&mut em, now, reg::CTRL, 1 << 30),
                7 => { em.receive(now, &mut dream, &[&broadcast_frame(usize::from(value) % 3000, 1)]); }
                8 => put(&mut em, now, reg::RXCSUM, u32::from(value)),
                _ => { em.handle_timeout(now); }
            }
            em.transmit(now, &mut dream, &mut sink);
            sink.frames.clear();
            prop_assert!(dream.accesses - before <= 4 * 128 + 65 * nic_emu::limits::SLOTS_PER_FRAME);
        }
    }
}

/// Memory whose bytes come from a list when they are first looked at, and then stay.
#[derive(Debug, Default)]
struct Dream {
    bytes: Vec<u8>,
    at: usize,
    seen: BTreeMap<u64, u8>,
    accesses: usize,
}

impl Dma for Dream {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        self.accesses += 1;
        for (gpa, byte) in (gpa..).zip(buf) {
            let next = self.bytes.get(self.at).copied();
            self.at += usize::from(!self.seen.contains_key(&gpa));
            *byte = *self.seen.entry(gpa).or_insert_with(|| next.unwrap_or(0));
        }
        Ok(())
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), DmaError> {
        self.accesses += 1;
        if gpa.checked_add(bytes.len() as u64).is_none() {
            return Err(DmaError {
                gpa,
                len_bytes: bytes.len(),
            });
        }
        self.seen.extend((gpa..).zip(bytes.iter().copied()));
        Ok(())
    }
}
