//! What went wrong in other emulations of this family, by the names of the advisories; each is the class, not one input. Those of
//! the rings stand in `transmit.rs` and `receive.rs`, found by `cve_`.
#![cfg(feature = "device")]
#![allow(clippy::cast_possible_truncation, reason = "test values are small")]

mod support;

use nic_emu::limits;
use nic_emu::spec::descriptors::{TxContext, TxDescriptor, command, popts, rx_status};
use nic_emu::spec::registers::{self as reg, rctl};
use proptest::prelude::*;
use support::{Rig, TX_BUFFERS_AT, broadcast_frame};

const DATA: u32 = command::DEXT | 1 << command::DTYP_SHIFT;

fn data(at: u64, len: u32, commands: u32, options: u8) -> TxDescriptor {
    TxDescriptor {
        address: at,
        lower: len | DATA | commands,
        upper: u32::from(options) << 8,
    }
}

/// QEMU e1000, stack overflow: a short frame came back in loopback without the padding that the network layer would have
/// added. There is one way into the receiver, and it pads.
#[test]
fn cve_2025_12464_short_frames_in_loopback_are_padded() {
    for len in 14..limits::FRAME_LEN_MIN {
        let mut rig = Rig::started();
        let control = rig.read(reg::RCTL);
        rig.write(reg::RCTL, control | 1 << 6);
        rig.write(reg::TCTL, reg::tctl::EN);
        rig.post_rx(2, 2048);
        let frame = broadcast_frame(len, 9);
        rig.ram.put(TX_BUFFERS_AT, &frame);
        let sent = rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, len as u16, command::EOP)]);
        assert!(sent.is_empty(), "nothing leaves");
        let back = rig.rx_writeback(0);
        assert_eq!((back.status & rx_status::EOP, back.len_bytes), (rx_status::EOP, 60));
        let mut padded = frame.clone();
        padded.resize(60, 0);
        assert_eq!(rig.rx_bytes(0, 2048), padded);
    }
}

/// QEMU e1000e, use after free and re-entry: DMA reached the device's own registers. Ours reaches what the caller's `Dma`
/// reaches, which is RAM; an address anywhere else is a fault that is counted, and the registers are as before.
#[test]
fn cve_2020_15859_and_2023_3019_dma_to_the_registers_is_a_fault() {
    let bar0 = 0xFEB0_0000_u64;
    let mut rig = Rig::started();
    rig.write(reg::MTA, 0x1234_5678);
    rig.post_rx(4, 2048);
    for n in 0..4 {
        rig.ram.put(
            support::RX_RING_AT + n * 16,
            &(bar0 + u64::from(reg::MTA)).to_le_bytes(),
        );
    }
    let commands = command::EOP | command::RS;
    let sent = rig.send(&[TxDescriptor::legacy(bar0 + u64::from(reg::TDT), 60, commands)]);
    assert!(sent.is_empty());
    rig.receive(&[&broadcast_frame(60, 1)]);
    rig.write(reg::TDBAL, bar0 as u32);
    rig.write(reg::TDT, 5);
    rig.em.transmit(0, &mut rig.ram, &mut rig.sink);
    assert!(rig.em.faults().dma >= 3, "{:?}", rig.em.faults());
    assert_eq!(rig.read(reg::MTA), 0x1234_5678);
}

proptest! {
    /// QEMU `net_tx_pkt` and its protocol helpers: overflow, assertions on fragments, on an unknown protocol above Ethernet,
    /// on SCTP's checksum. Nothing here parses a packet to send it: whatever its bytes, a frame with offsets inside
    /// leaves whole.
    #[test]
    fn cve_2016_6834_2016_6888_2020_16092_2020_27617_and_2024_3567_no_packet_is_parsed(
        ethertype in any::<u16>(),
        protocol in any::<u8>(),
        len in 14_usize..300,
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..30),
        offsets in any::<(u8, u8, u8, u8)>(),
        options in 0_u8..4,
    ) {
        let mut frame = broadcast_frame(len, protocol);
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        if len > 23 {
            frame[14] = 0x45;
            frame[23] = protocol;
        }
        let mut rig = Rig::started();
        rig.ram.put(TX_BUFFERS_AT, &frame);
        let (ip_start, ip_offset, l4_start, l4_offset) = offsets;
        let context = TxContext { ip_start, ip_offset, l4_start, l4_offset, ..TxContext::default() };
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).chain([len]).collect();
        ends.sort_unstable();
        let mut descriptors = vec![context.encode()];
        let mut at = 0;
        for end in ends {
            descriptors.push(data(TX_BUFFERS_AT + at as u64, (end - at) as u32, 0, options));
            at = end;
        }
        descriptors.push(data(0, 0, command::EOP, options));
        let sent = rig.send(&descriptors);
        prop_assert_eq!(sent.len(), 1);
        prop_assert_eq!(sent[0].len(), len.max(60));
        let changed = sent[0].iter().zip(&frame).filter(|(a, b)| a != b).count();
        prop_assert!(changed <= 4, "two checksums at most");
    }

    /// VirtualBox and VMware, integer overflows on the way to the wire: every length and offset at its ends.
    #[test]
    fn cve_2019_2722_2020_2894_2019_5515_and_2019_5524_extreme_lengths_send_nothing_wrong(
        payload_len in extreme(0xF_FFFF),
        header_len in extreme(0xFF),
        mss in extreme(0xFFFF),
        starts in (extreme(0xFF), extreme(0xFF), extreme(0xFF), extreme(0xFF)),
        ends in (extreme(0xFFFF), extreme(0xFFFF)),
        lens in proptest::collection::vec(extreme(0xF_FFFF), 1..6),
        flags in any::<(bool, bool, bool)>(),
    ) {
        let (tcp, ipv4, segmentation) = flags;
        let context = TxContext {
            ip_start: starts.0 as u8,
            ip_offset: starts.1 as u8,
            ip_end: ends.0 as u16,
            l4_start: starts.2 as u8,
            l4_offset: starts.3 as u8,
            l4_end: ends.1 as u16,
            payload_len,
            header_len: header_len as u8,
            mss: mss as u16,
            tcp,
            ipv4,
            segmentation,
        };
        let mut rig = Rig::started();
        let more = if segmentation { command::TSE } else { 0 };
        let mut descriptors = vec![context.encode()];
        descriptors.extend(lens.iter().map(|len| data(TX_BUFFERS_AT, *len, more, popts::IXSM | popts::TXSM)));
        descriptors.push(data(TX_BUFFERS_AT, 0, command::EOP | more, 0));
        let sent = rig.send(&descriptors);
        prop_assert!(sent.len() <= limits::SEGMENTS_MAX);
        for frame in &sent {
            let longest = if segmentation { (header_len + mss) as usize } else { limits::FRAME_LEN_MAX };
            prop_assert!((60..=longest.max(60)).contains(&frame.len()), "{} bytes", frame.len());
        }
        // The next packet is well.
        rig.ram.put(TX_BUFFERS_AT, &broadcast_frame(100, 7));
        let next = rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, 100, command::EOP)]);
        prop_assert_eq!(next, vec![broadcast_frame(100, 7)]);
    }
}

/// Values at the ends of a field, and any.
fn extreme(max: u32) -> impl Strategy<Value = u32> {
    prop_oneof![
        proptest::sample::select(vec![0, 1, 2, 54, max / 2, max - 1, max]),
        0..=max
    ]
}

/// A receiver that is switched off while it is looped, on while its ring is garbage: the reserved loopback mode, too.
#[test]
fn every_loopback_mode_ends_with_the_ring() {
    for mode in 1..4 {
        let mut rig = Rig::started();
        let control = rig.read(reg::RCTL);
        rig.write(reg::RCTL, (control | mode << 6) & !rctl::EN);
        rig.ram.put(TX_BUFFERS_AT, &broadcast_frame(60, 1));
        rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, 60, command::EOP)]);
        rig.write(reg::RDLEN, u32::MAX);
        rig.write(reg::RDT, 0xFFFF);
        rig.write(reg::RCTL, control | mode << 6);
        rig.receive(&[]);
        assert_eq!(rig.read(reg::RDH), 0, "a tail outside the ring stops it");
    }
}
