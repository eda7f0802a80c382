//! The receive ring: every frame whole, or not at all.
#![cfg(feature = "device")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "test values are small"
)]

mod support;

use nic_emu::limits;
use nic_emu::spec::descriptors::{TxDescriptor, rx_status};
use nic_emu::spec::registers::{self as reg, cause, ctrl, rctl, statistics as stat};
use proptest::prelude::*;
use support::{RING, RX_RING_AT, Rig, broadcast_frame};

const ALL: u32 = rctl::EN | rctl::UPE | rctl::MPE | rctl::BAM;

#[test]
fn frame_that_came_early_is_delivered_after_the_doorbell() {
    let mut rig = Rig::started();
    let frame = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    assert!(!rig.em.can_receive());
    assert_eq!(rig.receive(&[&frame]), 0, "it stays with the caller");
    let descriptor = TxDescriptor {
        address: support::RX_BUFFERS_AT,
        lower: 0,
        upper: 0,
    };
    rig.ram.put(RX_RING_AT, &descriptor.encode());
    assert!(rig.write(reg::RDT, 1).receive);
    assert_eq!(rig.receive(&[&frame]), 1);
    let done = rig.rx_writeback(0);
    assert_eq!(done.status, rx_status::DD | rx_status::EOP | rx_status::IXSM);
    assert_eq!((done.len_bytes, done.errors), (60, 0));
    assert_eq!(rig.rx_bytes(0, 2048)[..5], frame);
    assert_eq!(rig.rx_bytes(0, 2048)[5..], [0; 55]);
    assert!(rig.em.irq_level());
    assert_eq!(rig.read(reg::ICR) & cause::RXT0, cause::RXT0);
}

#[test]
fn ring_wraps_4096_times() {
    let mut rig = Rig::started();
    rig.post_rx(RING - 1, 2048);
    for n in 0..4096_u32 {
        let frame = broadcast_frame(60 + n as usize % 1400, n as u8);
        assert_eq!(rig.receive(&[&frame]), 1);
        assert_eq!(rig.rx_bytes(n % RING, 2048), frame);
        rig.post_rx(1, 2048);
    }
    assert_eq!(
        (rig.read(stat::GPRC), rig.read(stat::BPRC), rig.read(stat::MPC)),
        (4096, 4096, 0)
    );
}

#[test]
fn crc_is_counted_unless_stripped() {
    for (control, len) in [(ALL, 104), (ALL | rctl::SECRC, 100)] {
        let mut rig = Rig::started();
        rig.write(reg::RCTL, control);
        rig.post_rx(8, 2048);
        let frame = broadcast_frame(100, 1);
        rig.receive(&[&frame]);
        assert_eq!(rig.rx_writeback(0).len_bytes, len);
        assert_eq!(rig.rx_bytes(0, 2048)[..100], frame);
    }
}

#[test]
fn exact_multiple_of_the_buffer_fills_the_last_one() {
    let mut rig = Rig::started();
    rig.write(reg::RCTL, ALL | rctl::SECRC | 3 << rctl::BSIZE_SHIFT);
    rig.post_rx(8, 256);
    let frame = broadcast_frame(512, 1);
    rig.receive(&[&frame]);
    assert_eq!(
        (rig.rx_writeback(0).len_bytes, rig.rx_writeback(1).len_bytes),
        (256, 256)
    );
    assert_eq!(rig.rx_writeback(0).status, rx_status::DD);
    assert_eq!(rig.rx_writeback(1).status & rx_status::EOP, rx_status::EOP);
    assert_eq!(rig.read(reg::RDH), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn p4_buffers_together_hold_the_frame(
        len in 60_usize..limits::FRAME_LEN_MAX,
        size in 0_u32..7,
        strip in any::<bool>(),
        nulls in proptest::collection::vec(0_u32..60, 0..4),
    ) {
        let bits = [(0, false), (1, false), (2, false), (3, false), (1, true), (2, true), (3, true)][size as usize];
        let control = ALL | rctl::LPE | bits.0 << rctl::BSIZE_SHIFT
            | if bits.1 { rctl::BSEX } else { 0 } | if strip { rctl::SECRC } else { 0 };
        let mut rig = Rig::started();
        let buffer = rctl::buffer_len(control);
        rig.write(reg::RCTL, control);
        rig.post_rx(128, buffer as u64);
        for n in &nulls {
            rig.ram.put(RX_RING_AT + u64::from(*n) * 16, &[0; 8]);
        }
        let frame = broadcast_frame(len, 7);
        prop_assert_eq!(rig.receive(&[&frame]), 1);
        let total = len + if strip { 0 } else { 4 };
        let mut joined = Vec::new();
        let mut used = 0;
        let mut seen_end = false;
        while rig.rx_writeback(used).status & rx_status::DD != 0 {
            prop_assert!(!seen_end, "nothing follows the end of the packet");
            let done = rig.rx_writeback(used);
            seen_end = done.status & rx_status::EOP != 0;
            if nulls.contains(&used) {
                prop_assert_eq!((done.len_bytes, seen_end), (0, false));
            } else {
                prop_assert!(seen_end || usize::from(done.len_bytes) == buffer);
                joined.extend_from_slice(rig.rx_bytes(used, buffer as u64));
            }
            used += 1;
        }
        prop_assert!(seen_end);
        prop_assert_eq!(&joined[..len], &frame[..]);
        prop_assert_eq!(joined.len(), total);
        prop_assert_eq!(rig.read(reg::RDH), used);
        let counted = nulls.iter().filter(|n| **n < used).collect::<std::collections::BTreeSet<_>>().len();
        prop_assert_eq!(used as usize, total.div_ceil(buffer) + counted);
    }
}

#[test]
fn frame_without_enough_buffers_is_never_begun() {
    let mut rig = Rig::started();
    rig.write(reg::RCTL, ALL | rctl::SECRC | 3 << rctl::BSIZE_SHIFT);
    rig.post_rx(3, 256);
    let before = rig.ram.bytes.clone();
    let frame = broadcast_frame(1000, 1);
    assert_eq!(rig.receive(&[&frame]), 0);
    assert_eq!(rig.ram.bytes, before);
    rig.post_rx(1, 256);
    assert_eq!(rig.receive(&[&frame, &frame]), 1);
    rig.em.missed(0, 1);
    assert_eq!((rig.read(stat::MPC), rig.read(stat::RNBC)), (1, 1));
    assert_eq!(rig.read(reg::ICR) & cause::RXO, cause::RXO);
}

#[test]
fn cve_2012_6075_overlong_frames_never_reach_the_ring() {
    let mut rig = Rig::started();
    rig.post_rx(100, 2048);
    let (fits, long, longest) = (
        broadcast_frame(1518, 1),
        broadcast_frame(1519, 1),
        broadcast_frame(16_380, 1),
    );
    assert_eq!(rig.receive(&[&fits, &long, &longest]), 3);
    assert_eq!((rig.read(reg::RDH), rig.read(stat::ROC)), (1, 2));
    rig.write(reg::RCTL, ALL | rctl::SECRC | rctl::LPE);
    assert_eq!(
        rig.receive(&[&long, &longest, &broadcast_frame(16_381, 1), &vec![0xFF; 70_000]]),
        4
    );
    assert_eq!((rig.read(reg::RDH), rig.read(stat::ROC)), (1 + 1 + 8, 2));
}

#[test]
fn cve_2017_9310_head_or_tail_outside_the_ring_stops_the_ring() {
    for (offset, value) in [
        (reg::RDH, RING),
        (reg::RDH, 0xFFFF),
        (reg::RDT, 0xFFFF),
        (reg::RDLEN, 0),
        (reg::RDLEN, 64),
    ] {
        let mut rig = Rig::started();
        rig.post_rx(10, 2048);
        rig.write(offset, value);
        let accesses = rig.ram.accesses;
        assert!(!rig.em.can_receive());
        assert_eq!(rig.receive(&[&broadcast_frame(60, 0)]), 0);
        assert_eq!(rig.ram.accesses, accesses);
    }
}

#[test]
fn cve_2020_28916_and_2020_25707_null_descriptors_are_progress_and_bounded() {
    let mut rig = Rig::started();
    rig.ram.put(RX_RING_AT, &vec![0; RING as usize * 16]);
    rig.write(reg::RDT, RING - 1);
    let accesses = rig.ram.accesses;
    assert_eq!(
        rig.receive(&[&broadcast_frame(60, 0)]),
        1,
        "a ring that can hold nothing loses the frame"
    );
    assert!(rig.ram.accesses - accesses <= 4 * RING as usize);
    assert_eq!(rig.read(reg::RDH), RING - 1);
    assert!((0..RING - 1).all(|n| rig.rx_writeback(n).status == rx_status::DD));
    assert_eq!(rig.read(stat::MPC), 1);
    rig.post_rx(5, 2048);
    assert_eq!(rig.receive(&[&broadcast_frame(60, 0)]), 1);
    assert_eq!(rig.rx_writeback(RING - 1).status & rx_status::EOP, rx_status::EOP);
}

#[test]
fn vlan_tag_is_stripped_into_the_descriptor() {
    let mut rig = Rig::started();
    rig.post_rx(8, 2048);
    let mut frame = broadcast_frame(100, 1);
    frame[12..16].copy_from_slice(&[0x81, 0x00, 0xA0, 0x45]);
    rig.receive(&[&frame]);
    assert_eq!(
        (
            rig.rx_writeback(0).len_bytes,
            rig.rx_writeback(0).status & rx_status::VP
        ),
        (100, 0)
    );
    rig.write(reg::CTRL, ctrl::VME);
    rig.receive(&[&frame]);
    let done = rig.rx_writeback(1);
    assert_eq!(
        (done.len_bytes, done.special, done.status & rx_status::VP),
        (96, 0xA045, rx_status::VP)
    );
    frame.drain(12..16);
    assert_eq!(rig.rx_bytes(1, 2048), frame);
}

#[test]
fn multicast_hash_marks_the_frame_inexact() {
    let mut rig = Rig::started();
    rig.write(reg::RCTL, rctl::EN | rctl::SECRC);
    rig.post_rx(8, 2048);
    let mut frame = broadcast_frame(60, 1);
    frame[..6].copy_from_slice(&[0x01, 0xAA, 0x00, 0x12, 0x34, 0x56]);
    assert_eq!(rig.receive(&[&frame]), 1, "not for us: done with, not stored");
    assert_eq!(rig.read(reg::RDH), 0);
    rig.write(reg::MTA + (0x563 >> 5) * 4, 1 << (0x563 & 31));
    assert_eq!(rig.receive(&[&frame]), 1);
    assert_eq!(rig.rx_writeback(0).status & rx_status::PIF, rx_status::PIF);
    assert_eq!(rig.read(stat::MPRC), 1);
}

#[test]
fn low_on_descriptors_and_small_frames_raise_their_causes() {
    let mut rig = Rig::started();
    rig.write(reg::RSRPD, 64);
    rig.post_rx(130, 2048);
    rig.receive(&[&broadcast_frame(60, 0)]);
    assert_eq!(rig.read(reg::ICR), cause::RXT0 | cause::SRPD);
    rig.receive(&[&broadcast_frame(61, 0)]);
    assert_eq!(
        rig.read(reg::ICR),
        cause::RXT0 | cause::RXDMT0,
        "half of the ring is left"
    );
}

#[test]
fn delayed_receive_interrupt_has_a_cap_and_can_be_flushed() {
    let mut rig = Rig::started();
    rig.post_rx(255, 2048);
    rig.write(reg::RDTR, 10);
    rig.write(reg::RADV, 12);
    rig.receive(&[&broadcast_frame(60, 0)]);
    rig.now_ns = 9 * 1024;
    rig.receive(&[&broadcast_frame(60, 0)]);
    assert_eq!(rig.em.poll_timeout(), Some(12 * 1024));
    assert!(!rig.em.irq_level());
    assert!(rig.write(reg::RDTR, 10 | 1 << 31).irq_changed);
    assert_eq!(rig.em.poll_timeout(), None);
    assert_eq!(rig.read(reg::RDTR), 10);
}

#[test]
fn nothing_is_received_without_link() {
    let mut rig = Rig::started();
    rig.post_rx(8, 2048);
    rig.em.set_link(0, false);
    assert_eq!(rig.receive(&[&broadcast_frame(60, 0)]), 0);
    assert!(rig.em.set_link(0, true).receive);
    assert_eq!(rig.receive(&[&broadcast_frame(60, 0)]), 1);
}

#[test]
fn buffers_outside_memory_lose_the_frame_only() {
    let mut rig = Rig::started();
    rig.post_rx(8, 2048);
    rig.ram.put(RX_RING_AT, &u64::MAX.to_le_bytes());
    assert_eq!(rig.receive(&[&broadcast_frame(60, 0), &broadcast_frame(60, 1)]), 2);
    assert_eq!(rig.em.faults().dma, 1);
    assert_eq!(rig.rx_bytes(1, 2048), broadcast_frame(60, 1));
}
