//! Save and restore, by bytes, in the places where it is hard: between two edges of the EEPROM's clock, between two
//! descriptors of a packet, while interrupts wait for their timers; and bytes that are no state.
#![cfg(feature = "device")]
#![allow(clippy::cast_possible_truncation, reason = "test values are small")]

mod support;

use nic_emu::device::STATE_VERSION;
use nic_emu::spec::descriptors::{TxContext, TxDescriptor, command, popts};
use nic_emu::spec::eeprom;
use nic_emu::spec::registers::{self as reg, cause, eecd};
use nic_emu::{EepromWrites, Em, EmConfig, EmState, StateError};
use proptest::prelude::*;
use support::{MAC, Rig, TX_BUFFERS_AT, broadcast_frame};

/// Saves the device as bytes and goes on with another one, on a clock that shows `now_ns`.
fn move_to(rig: &mut Rig, now_ns: u64) {
    let bytes = rig.em.save(rig.now_ns).encode();
    rig.em = Em::new(EmConfig {
        mac: [2; 6],
        eeprom_writes: EepromWrites::Kept,
    });
    rig.em
        .restore(now_ns, EmState::decode(&bytes).expect("what was encoded is decoded"));
    rig.now_ns = now_ns;
}

/// One write of EECD, then a move; returns what EECD reads there.
fn wires(rig: &mut Rig, bits: u32) -> u32 {
    rig.write(reg::EECD, eecd::REQ | bits);
    let now_ns = rig.now_ns ^ 0x5555;
    move_to(rig, now_ns);
    rig.read(reg::EECD)
}

fn clock_in(rig: &mut Rig, bits: u32, count: u32) {
    wires(rig, eecd::CS);
    for n in (0..count).rev() {
        let data = if bits >> n & 1 != 0 { eecd::DI } else { 0 };
        wires(rig, eecd::CS | data);
        wires(rig, eecd::CS | data | eecd::SK);
    }
}

#[test]
fn p5_the_eeprom_is_read_and_written_with_a_move_after_every_edge() {
    let mut rig = Rig::new();
    let mut expected = eeprom::image(MAC);
    clock_in(&mut rig, u32::from(eeprom::OPCODE_EXTENDED << 6 | 0x30), 9);
    wires(&mut rig, 0);
    clock_in(&mut rig, u32::from(eeprom::OPCODE_WRITE << 6 | 1) << 16 | 0xBEEF, 25);
    wires(&mut rig, 0);
    expected[1] = 0xBEEF;
    clock_in(&mut rig, u32::from(eeprom::OPCODE_READ << 6), 9);
    for expected in &expected[..4] {
        let mut word = 0;
        for _ in 0..16 {
            wires(&mut rig, eecd::CS);
            word = word << 1 | u16::from(wires(&mut rig, eecd::CS | eecd::SK) & eecd::DO != 0);
        }
        assert_eq!(word, *expected);
    }
    assert_eq!(rig.em.eeprom(), &expected);
}

#[test]
fn p5_a_packet_is_collected_with_a_move_after_every_descriptor() {
    let context = TxContext {
        ip_start: 14,
        ip_offset: 24,
        ip_end: 33,
        l4_start: 34,
        l4_offset: 50,
        payload_len: 4000,
        header_len: 54,
        mss: 1000,
        tcp: true,
        ipv4: true,
        segmentation: true,
        ..TxContext::default()
    };
    let frame = broadcast_frame(4054, 3);
    let data = command::DEXT | 1 << command::DTYP_SHIFT | command::TSE;
    let piece = |at: usize, len: usize, more: u32| TxDescriptor {
        address: TX_BUFFERS_AT + at as u64,
        lower: len as u32 | data | more,
        upper: u32::from(popts::IXSM | popts::TXSM) << 8,
    };
    let descriptors = [
        context.encode(),
        piece(0, 20, 0),
        piece(20, 34, 0),
        piece(54, 3000, 0),
        piece(3054, 999, 0),
        piece(4053, 1, command::EOP | command::RS),
    ];
    let mut outcomes = Vec::new();
    for moving in [false, true] {
        let mut rig = Rig::started();
        rig.ram.put(TX_BUFFERS_AT, &frame);
        for descriptor in descriptors {
            rig.put_tx(&[descriptor]);
            rig.kick();
            if moving {
                let now_ns = 10_000_000 - rig.now_ns;
                move_to(&mut rig, now_ns);
            }
        }
        assert_eq!(rig.sink.frames.len(), 4);
        let (icr, tsctc) = (rig.read(reg::ICR), rig.read(reg::statistics::TSCTC));
        outcomes.push((rig.sink.frames, icr, tsctc));
    }
    assert_eq!(outcomes[0], outcomes[1]);
}

/// Delays of both directions and a throttled line, all running.
fn moderated() -> Rig {
    let mut rig = Rig::started();
    for (offset, value) in [
        (reg::ITR, 5000),
        (reg::RDTR, 100),
        (reg::RADV, 70),
        (reg::TIDV, 90),
        (reg::TADV, 60),
    ] {
        rig.write(offset, value);
    }
    rig.now_ns = 5_000_000_000;
    rig.write(reg::ICS, cause::LSC);
    assert!(rig.em.irq_level());
    rig.read(reg::ICR);
    rig.post_rx(8, 2048);
    rig.receive(&[&broadcast_frame(100, 1)]);
    let sent = TxDescriptor::legacy(TX_BUFFERS_AT, 60, command::EOP | command::RS | command::IDE);
    rig.put_tx(&[sent]);
    rig.kick();
    rig
}

#[test]
fn p5_every_pending_timer_goes_on_where_it_stood() {
    let mut rig = moderated();
    rig.now_ns += 10_000;
    let saved = rig.em.save(rig.now_ns);
    let in_ns = |units: u64| Some(units * 1024 - 10_000);
    assert_eq!(
        (saved.irq.receive.packet_in_ns, saved.irq.receive.cap_in_ns),
        (in_ns(100), in_ns(70))
    );
    assert_eq!(
        (saved.irq.transmit.packet_in_ns, saved.irq.transmit.cap_in_ns),
        (in_ns(90), in_ns(60))
    );
    assert_eq!(saved.irq.since_rise_ns, Some(10_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The line's history does not depend on how often, and onto which clocks, the device was moved; clocks that began
    /// a moment ago are among them.
    #[test]
    fn p5_moderation_is_the_same_on_any_clock(
        moves in proptest::collection::vec((0_u64..400_000, prop_oneof![0_u64..2_000_000, any::<u32>().prop_map(u64::from)]), 1..40),
    ) {
        let (mut straight, mut moved) = (moderated(), moderated());
        for (wait_ns, elsewhere_ns) in moves {
            for rig in [&mut straight, &mut moved] {
                rig.now_ns += wait_ns;
                let now_ns = rig.now_ns;
                rig.em.handle_timeout(now_ns);
            }
            move_to(&mut moved, elsewhere_ns);
            let seen = |rig: &mut Rig| {
                let due = rig.em.poll_timeout().map(|at| at.saturating_sub(rig.now_ns));
                (rig.em.irq_level(), rig.read(reg::ICS), rig.read(reg::FRTIMER), due)
            };
            prop_assert_eq!(seen(&mut straight), seen(&mut moved));
            if straight.em.irq_level() {
                for rig in [&mut straight, &mut moved] {
                    rig.read(reg::ICR);
                    rig.write(reg::ICS, cause::RXT0);
                }
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_bent_to_fit(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut bytes = moderated().em.save(0).encode();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(state) = EmState::decode(&bytes) {
            let mut rig = Rig::new();
            rig.em.restore(0, state);
            rig.em.set_bus_master(true);
            rig.receive(&[&broadcast_frame(1000, 0)]);
            rig.em.transmit(0, &mut rig.ram, &mut rig.sink);
            rig.em.handle_timeout(u64::MAX);
            rig.em.save(0);
        }
    }
}

#[test]
fn bytes_that_are_no_state_say_why() {
    let bytes = moderated().em.save(0).encode();
    assert!(EmState::decode(&bytes).is_ok());
    for len in 0..bytes.len() {
        assert!(
            EmState::decode(&bytes[..len]).is_err(),
            "{len} of {} bytes",
            bytes.len()
        );
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(
        EmState::decode(&longer),
        Err(StateError::Malformed { at_byte: bytes.len() })
    );
    let mut newer = bytes.clone();
    newer[4..8].copy_from_slice(&(STATE_VERSION + 1).to_le_bytes());
    let error = EmState::decode(&newer).unwrap_err();
    assert_eq!(error, StateError::Version(STATE_VERSION + 1));
    assert!(error.to_string().contains("version 2"), "{error}");
    assert_eq!(EmState::decode(b"core"), Err(StateError::NotAState));
}
