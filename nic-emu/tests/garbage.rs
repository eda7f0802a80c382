//! Hostile guests: no sequence of accesses, frames, timers and memory contents panics, runs long, or is told apart from
//! the same sequence with a save and a restore after every step.
#![cfg(feature = "device")]
#![allow(clippy::cast_possible_truncation, reason = "test values are small")]

mod support;

use nic_emu::limits::{FRAME_LEN_MAX, LOOPBACK_BYTES, LOOPBACK_FRAMES, SEGMENTATION_LEN_MAX, SLOTS_PER_FRAME};
use nic_emu::spec::descriptors::TxContext;
use nic_emu::spec::registers::{self as reg, TABLE};
use nic_emu::{Em, EmConfig, EmState, Offloads};
use proptest::prelude::*;
use support::{MAC, Ram, Sink, broadcast_frame};

const RAM_LEN: usize = 0x1_0000;
/// Registers and tables, a packet that is collected, frames in loopback, and a little.
const STATE_LEN_MAX: usize = 0x2_0000 + SEGMENTATION_LEN_MAX + LOOPBACK_BYTES + FRAME_LEN_MAX + 0x1000;

#[derive(Debug, Clone)]
enum Step {
    Read { offset: u32, len: usize },
    Write { offset: u32, value: u64, len: usize },
    Io { offset: u32, value: u32, write: bool },
    Memory { at: u16, bytes: Vec<u8> },
    Program,
    Doorbell { offset: u32, tail: u32 },
    Transmit,
    Frames { lens: Vec<usize> },
    Wait { ns: u32 },
    Link { up: bool },
    BusMaster { on: bool },
    Missed,
    BusReset,
}

fn offset() -> impl Strategy<Value = u32> {
    let rings = [
        reg::TDT,
        reg::TDH,
        reg::TDLEN,
        reg::TDBAL,
        reg::RDT,
        reg::RDH,
        reg::RDLEN,
        reg::RDBAL,
        reg::RCTL,
    ];
    let busy = [
        reg::TCTL,
        reg::EECD,
        reg::MDIC,
        reg::CTRL,
        reg::ICR,
        reg::ICS,
        reg::IMS,
        reg::IMC,
        reg::ITR,
        reg::RDTR,
    ];
    prop_oneof![
        3 => proptest::sample::select(rings.to_vec()),
        4 => proptest::sample::select(busy.to_vec()),
        3 => (0..TABLE.len(), 0_u32..128).prop_map(|(row, n)| TABLE[row].offset + n % TABLE[row].count * TABLE[row].stride),
        1 => 0x4000_u32..0x4100,
        1 => any::<u32>(),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0_u64..64,
        2 => (0_u64..0x100).prop_map(|page| page << 7),
        2 => (0_u32..32).prop_map(|bit| 1 << bit),
        1 => Just(u64::from(u32::MAX)),
        2 => any::<u64>(),
        // Both directions on, loopback or not, short buffers or not.
        2 => proptest::sample::select(vec![0x0000_803A, 0x0403_807E, 0x0000_80BA, 0x0400_8002, 0x0202_803E]),
    ]
}

/// Descriptor-shaped memory, so that rings in it do something.
fn memory() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![Just(0_u64), 0..RAM_LEN as u64 + 100, any::<u64>()];
    let lower = prop_oneof![
        (0_u32..3000, 0_u32..256).prop_map(|(len, commands)| len | commands << 24),
        (0_u32..3000, 0_u32..256).prop_map(|(len, commands)| len | (commands | 0x20) << 24 | 1 << 20),
        any::<u32>(),
    ];
    let plain = (address, lower, any::<u32>()).prop_map(|(address, lower, upper)| {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(lower.to_le_bytes());
        bytes.extend(upper.to_le_bytes());
        bytes
    });
    let context = (0_u32..3000, 0_u8..100, 0_u16..1500, any::<bool>(), any::<bool>()).prop_map(
        |(payload_len, header_len, mss, tcp, ipv4)| {
            let context = TxContext {
                ip_start: 14,
                ip_offset: 24,
                l4_start: 34,
                l4_offset: 50,
                payload_len,
                header_len,
                mss,
                tcp,
                ipv4,
                segmentation: true,
                ..TxContext::default()
            };
            context.encode().encode().to_vec()
        },
    );
    proptest::collection::vec(prop_oneof![3 => plain, 1 => context], 1..24).prop_map(|all| all.concat())
}

fn step() -> impl Strategy<Value = Step> {
    let len = proptest::sample::select(vec![0_usize, 1, 2, 3, 4, 4, 4, 4, 4, 4, 8, 16]);
    let frame_len = prop_oneof![0_usize..64, 0_usize..2000, 0_usize..20_000];
    prop_oneof![
        3 => (offset(), len.clone()).prop_map(|(offset, len)| Step::Read { offset, len }),
        8 => (offset(), value(), len).prop_map(|(offset, value, len)| Step::Write { offset, value, len }),
        2 => (0_u32..8, any::<u32>(), any::<bool>()).prop_map(|(offset, value, write)| Step::Io {
            offset: if offset < 6 { offset & 4 } else { offset },
            value: if value & 3 == 0 { value } else { (value % 0x6000) & !3 },
            write,
        }),
        5 => (prop_oneof![3 => Just(0_u16), 3 => Just(0x10_u16), 1 => 0_u16..0x100], memory())
            .prop_map(|(page, bytes)| Step::Memory { at: page << 7, bytes }),
        2 => Just(Step::Program),
        8 => (any::<bool>(), 0_u32..16).prop_map(|(tx, tail)| Step::Doorbell { offset: if tx { reg::TDT } else { reg::RDT }, tail }),
        8 => Just(Step::Transmit),
        5 => proptest::collection::vec(frame_len, 0..8).prop_map(|lens| Step::Frames { lens }),
        2 => (0_u32..5_000_000).prop_map(|ns| Step::Wait { ns }),
        1 => (0_u8..4).prop_map(|n| n > 0).prop_map(|up| Step::Link { up }),
        1 => (0_u8..8).prop_map(|n| Step::BusMaster { on: n > 0 }),
        1 => Just(Step::Missed),
        1 => (0_u8..4).prop_map(|n| if n == 0 { Step::BusReset } else { Step::BusMaster { on: true } }),
    ]
}

/// A device and its world; everything it lets out is kept, for comparison.
#[derive(Debug)]
struct World {
    em: Em,
    ram: Ram,
    sink: Sink,
    now_ns: u64,
    shown: Vec<u64>,
}

impl World {
    fn new(offloads: Offloads) -> Self {
        let mut em = Em::new(EmConfig::new(MAC));
        em.set_bus_master(true);
        let sink = Sink {
            offloads,
            ..Sink::default()
        };
        let mut world = Self {
            em,
            ram: Ram::new(RAM_LEN),
            sink,
            now_ns: 0,
            shown: Vec::new(),
        };
        world.program();
        world
    }

    /// Small rings where `memory` mostly writes; the steps change all of it at will.
    fn program(&mut self) {
        let program = [
            (reg::TDBAL, 0),
            (reg::TDBAH, 0),
            (reg::TDLEN, 256),
            (reg::TDH, 0),
            (reg::TDT, 0),
            (reg::TCTL, reg::tctl::EN),
            (reg::RDBAL, 0x800),
            (reg::RDBAH, 0),
            (reg::RDLEN, 512),
            (reg::RDH, 0),
            (reg::RDT, 0),
            (reg::RCTL, 0x0003_803E),
        ];
        for (offset, value) in program {
            self.em.mmio_write(self.now_ns, offset, &u32::to_le_bytes(value));
        }
    }

    /// The rings' lengths: what a bounded step is measured by.
    fn ring_lens(&self) -> usize {
        let state = self.em.save(self.now_ns);
        [reg::TDLEN, reg::RDLEN]
            .iter()
            .map(|offset| state.registers[*offset as usize / 4] as usize / 16)
            .sum()
    }

    fn run(&mut self, step: &Step) {
        let before = self.ram.accesses;
        let mut offered = LOOPBACK_FRAMES;
        match step {
            Step::Read { offset, len } => {
                let mut data = vec![0xAA; *len];
                self.em.mmio_read(self.now_ns, *offset, &mut data);
                self.shown.extend(data.iter().map(|byte| u64::from(*byte)));
            }
            Step::Write { offset, value, len } => {
                let mut data = value.to_le_bytes().to_vec();
                data.resize(*len, 0x55);
                self.em.mmio_write(self.now_ns, *offset, &data);
            }
            Step::Io { offset, value, write } => {
                let mut data = value.to_le_bytes();
                if *write {
                    self.em.io_write(self.now_ns, *offset, &data);
                } else {
                    self.em.io_read(self.now_ns, *offset, &mut data);
                    self.shown.push(u64::from(u32::from_le_bytes(data)));
                }
            }
            Step::Memory { at, bytes } => self.ram.put(u64::from(*at), bytes),
            Step::Program => self.program(),
            Step::Doorbell { offset, tail } => {
                self.em.mmio_write(self.now_ns, *offset, &tail.to_le_bytes());
            }
            Step::Transmit => {
                let pending = self.em.transmit_pending();
                let taken = self.em.transmit(self.now_ns, &mut self.ram, &mut self.sink);
                assert_eq!(pending, taken > 0, "pending means progress");
                self.shown.push(taken as u64);
            }
            Step::Frames { lens } => {
                let frames: Vec<Vec<u8>> = lens.iter().map(|len| broadcast_frame(*len, *len as u8)).collect();
                let slices: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
                offered += slices.len();
                self.shown
                    .push(self.em.receive(self.now_ns, &mut self.ram, &slices) as u64);
            }
            Step::Wait { ns } => {
                self.now_ns += u64::from(*ns);
                self.em.handle_timeout(self.now_ns);
            }
            Step::Link { up } => drop(self.em.set_link(self.now_ns, *up)),
            Step::BusMaster { on } => drop(self.em.set_bus_master(*on)),
            Step::Missed => self.em.missed(self.now_ns, 3),
            Step::BusReset => self.em.bus_reset(),
        }
        // Per descriptor at most: read it, move its data, write two fields; per frame that finds no room, one scan.
        let bound = 4 * self.ring_lens() + offered * SLOTS_PER_FRAME;
        let used = self.ram.accesses - before;
        let moves = matches!(step, Step::Transmit | Step::Frames { .. });
        assert!(
            used <= if moves { bound } else { 0 },
            "{used} memory accesses in {step:?}"
        );
        self.shown.push(u64::from(self.em.irq_level()));
        self.shown.push(
            self.em
                .poll_timeout()
                .map_or(u64::MAX, |at| at.saturating_sub(self.now_ns)),
        );
    }
}

fn offloads() -> impl Strategy<Value = Offloads> {
    any::<[bool; 5]>().prop_map(|[checksum, tcp4, tcp6, udp4, udp6]| Offloads {
        checksum,
        tcp4,
        tcp6,
        udp4,
        udp6,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// P1 and P5. The twin is saved as bytes and restored into another device, on another clock, after every single step.
    #[test]
    fn p1_and_p5_no_sequence_panics_or_runs_long_and_a_move_after_any_step_changes_nothing(
        offloads in offloads(),
        steps in proptest::collection::vec((step(), 0_u64..10_000_000_000), 0..120),
    ) {
        let mut world = World::new(offloads);
        let mut twin = World::new(offloads);
        // Never fresh: what it remembers of its earlier life must not shine through.
        let mut other = Em::new(EmConfig::new([2; 6]));
        for (step, elsewhere_ns) in &steps {
            world.run(step);
            twin.run(step);
            let bytes = twin.em.save(twin.now_ns).encode();
            // All that the device holds is in its state: what a guest can make it keep has an end.
            prop_assert!(bytes.len() <= STATE_LEN_MAX, "{} bytes after {:?}", bytes.len(), step);
            let state = EmState::decode(&bytes).expect("what was encoded is decoded");
            prop_assert_eq!(&state, &world.em.save(world.now_ns), "after {:?}", step);
            twin.now_ns = *elsewhere_ns;
            std::mem::swap(&mut twin.em, &mut other);
            twin.em.restore(twin.now_ns, state);
        }
        prop_assert_eq!(&world.shown, &twin.shown);
        prop_assert_eq!(&world.sink, &twin.sink);
        prop_assert_eq!(&world.ram, &twin.ram);
    }
}

#[test]
fn restore_bends_a_foreign_state_to_fit() {
    let mut state = Em::new(EmConfig::new(MAC)).save(0);
    state.registers = vec![u32::MAX; 20_000];
    state.irq.causes = u32::MAX;
    state.tx.bytes = vec![1; 1_000_000];
    state.loopback = vec![vec![0; 100_000], vec![0; 60]];
    state.nvm.wires = 2;
    state.nvm.phase = nic_emu::device::EepromPhase::Data { word: 255, left: 0 };
    let mut world = World::new(Offloads::default());
    world.em.restore(0, state);
    assert!(
        world.em.save(0).tx.bytes.is_empty(),
        "bytes of no packet, and no ring is longer than its register"
    );
    for value in [2, 2, 3, 2, 3] {
        world.run(&Step::Write {
            offset: reg::EECD,
            value,
            len: 4,
        });
    }
    world.em.set_bus_master(true);
    for offset in (0..0x2_0000).step_by(4) {
        world.run(&Step::Read { offset, len: 4 });
        world.run(&Step::Write {
            offset,
            value: 0x0707_0707,
            len: 4,
        });
    }
    world.run(&Step::Transmit);
    world.run(&Step::Frames { lens: vec![60, 60] });
    assert_eq!(world.em.save(0).loopback.len(), 0, "CTRL.RST was among the writes");
}

#[test]
fn lp_1879531_write_list_is_harmless() {
    let mut world = World::new(Offloads::default());
    let writes: [(u32, usize, u64); 7] = [
        (0x30, 4, 0x2A0),
        (0x3A, 2, 0xFFFF),
        (0x48, 4, 0x14),
        (0x400, 4, 0x2),
        (0x420, 4, 0x6000),
        (0x428, 4, 0x41),
        (0x438, 1, 0x80),
    ];
    for (offset, len, value) in writes {
        world.run(&Step::Write { offset, value, len });
        world.run(&Step::Transmit);
    }
    assert!(world.sink.frames.is_empty());
}
