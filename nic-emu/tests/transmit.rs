//! The transmit ring: frames out as the descriptors say, whatever the guest writes into them.
#![cfg(feature = "device")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "test values are small"
)]

mod support;

use nic_emu::spec::descriptors::{STATUS_DD, TxContext, TxDescriptor, command, popts};
use nic_emu::spec::registers::{self as reg, cause, ctrl, rctl, statistics as stat, tctl};
use nic_emu::{ChecksumOffload, Offloads, Segmentation, SegmentationKind, limits};
use proptest::prelude::*;
use smoltcp::wire::{EthernetFrame, Ipv4Packet, TcpPacket, UdpPacket};
use support::{RING, Rig, TX_BUFFERS_AT, TX_RING_AT, broadcast_frame, independent_sum};

const LAST: u32 = command::EOP | command::IFCS | command::RS;

fn data(address: u64, len: usize, commands: u32, options: u8) -> TxDescriptor {
    let lower = len as u32 | 1 << command::DTYP_SHIFT | command::DEXT | commands;
    TxDescriptor {
        address,
        lower,
        upper: u32::from(options) << 8,
    }
}

fn with_tag(descriptor: TxDescriptor, tag: u16) -> TxDescriptor {
    let lower = descriptor.lower | command::VLE;
    TxDescriptor {
        lower,
        upper: descriptor.upper | u32::from(tag) << 16,
        ..descriptor
    }
}

/// An IPv4 TCP or UDP frame as a driver hands it over: checksums not there, pseudo-header seed as asked.
fn ip_frame(tcp: bool, payload: &[u8], seed_len: usize) -> Vec<u8> {
    let l4_len = if tcp { 20 } else { 8 };
    let mut frame = vec![0x02, 1, 2, 3, 4, 5, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x08, 0x00];
    let total = (20 + l4_len + payload.len()) as u16;
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([
        0xFF,
        0xFE,
        0x40,
        0,
        64,
        if tcp { 6 } else { 17 },
        0,
        0,
        10,
        0,
        0,
        1,
        10,
        0,
        0,
        2,
    ]);
    let mut pseudo = vec![10, 0, 0, 1, 10, 0, 0, 2, 0, if tcp { 6 } else { 17 }];
    pseudo.extend((seed_len as u16).to_be_bytes());
    let seed = independent_sum(&pseudo).to_be_bytes();
    if tcp {
        frame.extend([
            0x12, 0x34, 0x00, 0x50, 0xFF, 0xFF, 0xFF, 0x00, 0, 0, 0, 1, 0x50, 0x19, 0x20, 0, seed[0], seed[1], 0, 0,
        ]);
    } else {
        frame.extend([0x4E, 0x38, 0x4E, 0x37]);
        frame.extend((8 + payload.len() as u16).to_be_bytes());
        frame.extend(seed);
    }
    frame.extend(payload);
    frame
}

fn context(tcp: bool) -> TxContext {
    TxContext {
        ip_start: 14,
        ip_offset: 24,
        ip_end: 33,
        l4_start: 34,
        l4_offset: if tcp { 50 } else { 40 },
        l4_end: 0,
        tcp,
        ipv4: true,
        ..TxContext::default()
    }
}

fn tso_context(payload_len: usize, mss: u16) -> TxContext {
    TxContext {
        payload_len: payload_len as u32,
        header_len: 54,
        mss,
        segmentation: true,
        ..context(true)
    }
}

#[test]
fn extended_descriptor_sends_sets_dd_and_interrupts() {
    let mut rig = Rig::started();
    let frame = broadcast_frame(64, 1);
    rig.ram.put(TX_BUFFERS_AT, &frame);
    let sent = rig.send(&[data(TX_BUFFERS_AT, 64, LAST, 0)]);
    assert_eq!(sent, [frame]);
    assert_eq!(rig.tx_descriptor(0).upper & u32::from(STATUS_DD), 1);
    assert!(rig.em.irq_level());
    assert_eq!(
        rig.read(reg::ICR) & (cause::TXDW | cause::TXQE),
        cause::TXDW | cause::TXQE
    );
    assert_eq!(rig.read(reg::TDH), 1);
    assert_eq!(
        (rig.read(stat::GPTC), rig.read(stat::GOTCL), rig.read(stat::PTC64 + 4)),
        (1, 68, 1)
    );
}

#[test]
fn dd_is_written_for_exactly_the_descriptors_that_ask() {
    let mut rig = Rig::started();
    let asks = [false, true, false, true];
    for rs in asks {
        let commands = command::EOP | if rs { command::RS } else { 0 };
        rig.put_tx(&[TxDescriptor::legacy(TX_BUFFERS_AT, 60, commands)]);
    }
    rig.put_tx(&[TxDescriptor {
        lower: context(true).encode().lower | command::RS,
        ..context(true).encode()
    }]);
    rig.put_tx(&[TxDescriptor::legacy(TX_BUFFERS_AT, 60, command::EOP | command::RPS)]);
    rig.kick();
    for (n, rs) in (0..).zip(asks.into_iter().chain([true, true])) {
        assert_eq!(rig.tx_descriptor(n).upper & 1 != 0, rs, "descriptor {n}");
    }
}

#[test]
fn ring_wraps_4096_times() {
    let mut rig = Rig::started();
    for n in 0..4096_usize {
        let frame = broadcast_frame(60 + n % 1400, n as u8);
        rig.ram.put(TX_BUFFERS_AT, &frame);
        assert_eq!(
            rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, frame.len() as u16, LAST)]),
            [frame]
        );
    }
    assert_eq!(rig.read(reg::TDH), 4096 % RING);
}

#[test]
fn short_frames_are_padded_with_zeros_and_too_short_ones_dropped() {
    let mut rig = Rig::started();
    rig.ram.put(TX_BUFFERS_AT, &[0xEE; 200]);
    rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, 200, LAST)]);
    let sent = rig.send(&[
        TxDescriptor::legacy(TX_BUFFERS_AT, 20, LAST),
        TxDescriptor::legacy(TX_BUFFERS_AT, 13, LAST),
        TxDescriptor::legacy(TX_BUFFERS_AT, 0, LAST),
    ]);
    let mut expected = vec![0xEE; 20];
    expected.resize(60, 0);
    assert_eq!(sent, [expected]);
    assert_eq!(rig.em.faults().tx_dropped, 2);
    assert_eq!(rig.tx_descriptor(3).upper & 1, 1, "dropped, but done");
}

#[test]
fn legacy_checksum_is_inserted_where_asked() {
    let mut rig = Rig::started();
    let mut frame = broadcast_frame(101, 3);
    frame[40..42].fill(0);
    rig.ram.put(TX_BUFFERS_AT, &frame);
    let mut descriptor = TxDescriptor::legacy(TX_BUFFERS_AT, 101, LAST | command::IC);
    descriptor.lower |= 40 << 16;
    descriptor.upper |= 34 << 8;
    let sent = rig.send(&[descriptor]);
    assert_eq!(independent_sum(&sent[0][34..]), 0xFFFF);
}

#[test]
fn checksum_offload_is_done_here_or_left_to_the_sink() {
    for tcp in [true, false] {
        let payload: Vec<u8> = (0..201).map(|n| n as u8).collect();
        let frame = ip_frame(tcp, &payload, if tcp { 221 } else { 209 });
        let descriptors = |frame: &[u8]| {
            [
                context(tcp).encode(),
                data(TX_BUFFERS_AT, frame.len(), LAST, popts::IXSM | popts::TXSM),
            ]
        };
        let mut rig = Rig::started();
        rig.ram.put(TX_BUFFERS_AT, &frame);
        let sent = rig.send(&descriptors(&frame));
        verify(&sent[0], tcp);
        rig.sink.offloads.checksum = true;
        rig.send(&descriptors(&frame));
        let (bytes, offload) = &rig.sink.frames[0];
        assert_eq!(
            offload.checksum,
            Some(ChecksumOffload {
                start: 34,
                offset: if tcp { 16 } else { 6 }
            })
        );
        assert_eq!(bytes[34..], frame[34..], "the seed stays");
        assert!(Ipv4Packet::new_checked(&bytes[14..]).unwrap().verify_checksum());
    }
}

/// Parses a frame with smoltcp and checks every checksum.
fn verify(bytes: &[u8], tcp: bool) -> Vec<u8> {
    let ethernet = EthernetFrame::new_checked(bytes).unwrap();
    let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    assert!(ip.verify_checksum(), "IP checksum");
    let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
    if tcp {
        let segment = TcpPacket::new_checked(ip.payload()).unwrap();
        assert!(segment.verify_checksum(&from, &to), "TCP checksum");
        segment.payload().to_vec()
    } else {
        let datagram = UdpPacket::new_checked(ip.payload()).unwrap();
        assert!(datagram.verify_checksum(&from, &to), "UDP checksum");
        datagram.payload().to_vec()
    }
}

#[test]
fn vlan_tag_goes_behind_the_addresses() {
    let mut rig = Rig::started();
    let frame = broadcast_frame(60, 5);
    rig.ram.put(TX_BUFFERS_AT, &frame);
    let tagged = with_tag(TxDescriptor::legacy(TX_BUFFERS_AT, 60, LAST), 0x2045);
    assert_eq!(
        rig.send(&[tagged]),
        std::slice::from_ref(&frame),
        "not without CTRL.VME"
    );
    rig.write(reg::CTRL, ctrl::VME);
    let sent = rig.send(&[tagged]);
    assert_eq!(sent[0][..12], frame[..12]);
    assert_eq!(sent[0][12..16], [0x81, 0x00, 0x20, 0x45]);
    assert_eq!(sent[0][16..], frame[12..]);
}

#[test]
fn vlan_tag_moves_the_checksum_that_is_left_to_the_sink() {
    let frame = ip_frame(false, &[9; 200], 208);
    let mut rig = Rig::started();
    rig.write(reg::CTRL, ctrl::VME);
    rig.sink.offloads.checksum = true;
    rig.ram.put(TX_BUFFERS_AT, &frame);
    let tagged = with_tag(data(TX_BUFFERS_AT, frame.len(), LAST, popts::TXSM), 7);
    rig.send(&[context(false).encode(), tagged]);
    let (bytes, offload) = &rig.sink.frames[0];
    assert_eq!(
        (bytes.len(), offload.checksum),
        (frame.len() + 4, Some(ChecksumOffload { start: 38, offset: 6 }))
    );
}

#[test]
fn large_packets_pass_uncut_to_a_sink_that_cuts() {
    let payload: Vec<u8> = (0..40_000).map(|n| (n % 253) as u8).collect();
    let frame = ip_frame(true, &payload, 0);
    for tagged in [false, true] {
        let mut rig = Rig::started();
        rig.write(reg::CTRL, if tagged { ctrl::VME } else { 0 });
        rig.sink.offloads = Offloads {
            checksum: true,
            tcp4: true,
            ..Offloads::default()
        };
        rig.ram.put(TX_BUFFERS_AT, &frame);
        let mut descriptor = data(
            TX_BUFFERS_AT,
            frame.len(),
            LAST | command::TSE,
            popts::IXSM | popts::TXSM,
        );
        if tagged {
            descriptor = with_tag(descriptor, 7);
        }
        rig.send(&[tso_context(40_000, 1460).encode(), descriptor]);
        let shift = if tagged { 4 } else { 0 };
        let (bytes, offload) = &rig.sink.frames[0];
        assert_eq!(
            (rig.sink.frames.len(), bytes.len()),
            (1, frame.len() + usize::from(shift))
        );
        assert_eq!(
            offload.checksum,
            Some(ChecksumOffload {
                start: 34 + shift,
                offset: 16
            })
        );
        let segmentation = Segmentation {
            kind: SegmentationKind::Tcp4,
            size: 1460,
            header_len: 54 + shift,
        };
        assert_eq!(offload.segmentation, Some(segmentation));
        // What virtio_net_hdr receivers rely on: completing the seed over the whole packet gives a good checksum.
        let start = usize::from(34 + shift);
        let mut whole = bytes.clone();
        if tagged {
            whole.drain(12..16);
        }
        let sum = !independent_sum(&bytes[start..]);
        whole[50..52].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(verify(&whole, true), payload);
        assert_eq!(rig.read(stat::TSCTC), 1);
        assert_eq!(rig.read(stat::GPTC), 28, "counted as frames on the wire");
    }
}

#[test]
fn a_burst_of_datagrams_passes_uncut_to_a_sink_that_cuts_it_unless_it_is_too_many() {
    for (count, uncut) in [(2, true), (64, true), (65, false)] {
        let payload: Vec<u8> = (0..count * 100 - 3).map(|n| (n % 253) as u8).collect();
        let frame = ip_frame(false, &payload, 0);
        let mut rig = Rig::started();
        rig.sink.offloads = Offloads {
            checksum: true,
            udp4: true,
            ..Offloads::default()
        };
        rig.ram.put(TX_BUFFERS_AT, &frame);
        let context = TxContext {
            payload_len: payload.len() as u32,
            header_len: 42,
            mss: 100,
            segmentation: true,
            ..context(false)
        };
        let options = popts::IXSM | popts::TXSM;
        let descriptor = data(TX_BUFFERS_AT, frame.len(), LAST | command::TSE, options);
        let sent = rig.send(&[context.encode(), descriptor]);
        if !uncut {
            let parts: Vec<u8> = sent.iter().flat_map(|bytes| verify(bytes, false)).collect();
            assert_eq!((sent.len(), parts), (count, payload));
            continue;
        }
        let (bytes, offload) = &rig.sink.frames[0];
        assert_eq!((rig.sink.frames.len(), bytes.len()), (1, frame.len()));
        let segmentation = Segmentation {
            kind: SegmentationKind::Udp4,
            size: 100,
            header_len: 42,
        };
        assert_eq!(offload.segmentation, Some(segmentation));
        assert_eq!(offload.checksum, Some(ChecksumOffload { start: 34, offset: 6 }));
        let mut whole = bytes.clone();
        let sum = !independent_sum(&bytes[34..]);
        whole[40..42].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(verify(&whole, false), payload);
    }
}

#[test]
fn ipv6_and_udp_segments_have_the_right_lengths() {
    // UDP over IPv6 with a 62-byte header: nothing but this device's own segmentation can cut it.
    let payload: Vec<u8> = (0..2500).map(|n| (n % 249) as u8).collect();
    let mut frame = vec![
        2, 1, 2, 3, 4, 5, 2, 5, 4, 3, 2, 1, 0x86, 0xDD, 0x60, 0, 0, 0, 0, 0, 17, 64,
    ];
    frame.extend([0xFE; 16]);
    frame.extend([0xFD; 16]);
    let mut pseudo = frame[22..54].to_vec();
    pseudo.extend([0, 17]);
    let seed = independent_sum(&pseudo);
    frame.extend([0x4E, 0x38, 0x4E, 0x37, 0, 0]);
    frame.extend(seed.to_be_bytes());
    frame.extend(&payload);
    let mut rig = Rig::started();
    rig.ram.put(TX_BUFFERS_AT, &frame);
    let context = TxContext {
        ip_start: 14,
        l4_start: 54,
        l4_offset: 60,
        payload_len: 2500,
        header_len: 62,
        mss: 1000,
        segmentation: true,
        ..TxContext::default()
    };
    let sent = rig.send(&[
        context.encode(),
        data(TX_BUFFERS_AT, frame.len(), LAST | command::TSE, popts::TXSM),
    ]);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1062, 1062, 562]);
    let mut joined: Vec<u8> = Vec::new();
    for segment in &sent {
        let udp_len = (segment.len() - 54) as u16;
        assert_eq!(segment[18..20], udp_len.to_be_bytes(), "IPv6 payload length");
        assert_eq!(segment[58..60], udp_len.to_be_bytes(), "UDP length");
        let mut summed = pseudo.clone();
        summed.extend(udp_len.to_be_bytes());
        summed.extend(&segment[54..]);
        assert_eq!(independent_sum(&summed), 0xFFFF, "UDP checksum");
        joined.extend(&segment[62..]);
    }
    assert_eq!(joined, payload);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn p3_segments_carry_the_payload_with_good_checksums(
        payload_len in 1_usize..20_000, mss in 32_u16..9000, cuts in proptest::collection::vec(1_usize..20_000, 0..4),
    ) {
        let payload: Vec<u8> = (0..payload_len).map(|n| (n * 7 % 255) as u8).collect();
        let frame = ip_frame(true, &payload, 0);
        let mut rig = Rig::started();
        rig.ram.put(TX_BUFFERS_AT, &frame);
        let mut descriptors = vec![tso_context(payload_len, mss).encode()];
        descriptors.extend(split(&frame, &cuts, command::TSE, popts::IXSM | popts::TXSM));
        let sent = rig.send(&descriptors);
        prop_assert_eq!(sent.len(), payload_len.div_ceil(usize::from(mss)));
        let mut joined: Vec<u8> = Vec::new();
        for (n, bytes) in sent.iter().enumerate() {
            let part = verify(bytes, true);
            let ip = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
            prop_assert_eq!(ip.ident(), 0xFFFE_u16.wrapping_add(n as u16));
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            prop_assert_eq!(tcp.seq_number().0 as u32, 0xFFFF_FF00_u32.wrapping_add(joined.len() as u32));
            let last = n + 1 == sent.len();
            prop_assert_eq!((tcp.fin(), tcp.psh()), (last, last));
            prop_assert!(last || part.len() == usize::from(mss));
            joined.extend(part);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn p2_any_split_over_descriptors_and_doorbells_sends_the_same(
        len in 60_usize..limits::FRAME_LEN_MAX,
        cuts in proptest::collection::vec(1_usize..16_000, 0..9),
        bells in proptest::collection::vec(any::<bool>(), 10),
        options in 0_u8..4,
    ) {
        let frame = ip_frame(true, &broadcast_frame(len - 54, 9), len - 34);
        let whole = {
            let mut rig = Rig::started();
            rig.ram.put(TX_BUFFERS_AT, &frame);
            rig.send(&[context(true).encode(), data(TX_BUFFERS_AT, len, LAST, options)])
        };
        let mut rig = Rig::started();
        rig.ram.put(TX_BUFFERS_AT, &frame);
        rig.put_tx(&[context(true).encode()]);
        for (descriptor, bell) in split(&frame, &cuts, 0, options).into_iter().zip(bells) {
            rig.put_tx(&[descriptor]);
            if bell {
                rig.kick();
            }
        }
        rig.kick();
        prop_assert_eq!(rig.sink.bytes(), whole);
    }
}

/// Data descriptors over a frame at the transmit buffers, cut at the given places, null ones thrown in.
fn split(frame: &[u8], cuts: &[usize], commands: u32, options: u8) -> Vec<TxDescriptor> {
    let mut places: Vec<usize> = cuts.iter().copied().filter(|at| *at < frame.len()).collect();
    places.sort_unstable();
    places.dedup();
    places.push(frame.len());
    let mut from = 0;
    let mut descriptors = Vec::new();
    for to in places {
        let last = if to == frame.len() { LAST } else { 0 };
        descriptors.push(data(TX_BUFFERS_AT + from as u64, to - from, commands | last, options));
        from = to;
    }
    descriptors
}

#[test]
fn cve_2015_6815_segmentation_without_progress_ends() {
    let mut rig = Rig::started();
    for (mss, header_len, payload_len) in [
        (0, 54, 1000),
        (1, 54, 65_000),
        (1460, 0, 1000),
        (1460, 54, 0),
        (1, 240, 0xF_FFFF),
    ] {
        let context = TxContext {
            header_len,
            ..tso_context(payload_len, mss)
        };
        rig.send(&[context.encode(), data(TX_BUFFERS_AT, 1000, LAST | command::TSE, 3)]);
        assert!(!rig.em.transmit_pending());
    }
    assert_eq!(
        rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, 100, LAST)]).len(),
        1,
        "and the next frame goes out"
    );
}

#[test]
fn cve_2016_1981_head_or_tail_outside_the_ring_stops_the_ring() {
    for (offset, value) in [
        (reg::TDH, RING),
        (reg::TDH, 0xFFFF),
        (reg::TDT, RING),
        (reg::TDT, 0xFFFF),
        (reg::TDLEN, 0),
    ] {
        let mut rig = Rig::started();
        rig.write(reg::TDT, 5);
        rig.write(offset, value);
        let accesses = rig.ram.accesses;
        assert!(!rig.em.transmit_pending());
        assert_eq!(rig.em.transmit(0, &mut rig.ram, &mut rig.sink), 0);
        assert_eq!(rig.ram.accesses, accesses);
    }
}

#[test]
fn cve_2021_20257_more_data_than_header_and_segment_resets_the_builder() {
    let mut rig = Rig::started();
    let frame = ip_frame(true, &[7; 3000], 0);
    rig.ram.put(TX_BUFFERS_AT, &frame);
    // PAYLEN says 100, the buffers hold 3000: what is too much is not sent.
    let sent = rig.send(&[
        tso_context(100, 1460).encode(),
        data(TX_BUFFERS_AT, 3054, LAST | command::TSE, 3),
    ]);
    assert_eq!(verify(&sent[0], true), [7; 100]);
    assert_eq!(rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, 60, LAST)])[0].len(), 60);
}

#[test]
fn cve_2018_3294_context_changed_inside_a_packet_does_not_apply_to_it() {
    let mut rig = Rig::started();
    let frame = ip_frame(true, &[7; 3000], 0);
    rig.ram.put(TX_BUFFERS_AT, &frame);
    let sent = rig.send(&[
        tso_context(3000, 1000).encode(),
        data(TX_BUFFERS_AT, 1000, command::TSE, 3),
        tso_context(1, 1).encode(),
        data(TX_BUFFERS_AT + 1000, 2054, command::TSE, 3),
        data(0, 0, LAST | command::TSE, 3),
    ]);
    assert_eq!(
        sent.iter().map(|frame| verify(frame, true).len()).collect::<Vec<_>>(),
        [1000, 1000, 1000]
    );
}

#[test]
fn cve_2019_5609_and_2022_23087_offsets_outside_the_header_drop_the_packet() {
    let good = tso_context(2000, 1000);
    let bad = [
        TxContext {
            header_len: 241,
            ..good
        },
        TxContext { header_len: 13, ..good },
        TxContext { ip_start: 35, ..good },
        TxContext { ip_offset: 53, ..good },
        TxContext { l4_start: 41, ..good },
        TxContext { l4_offset: 53, ..good },
        TxContext {
            ip_start: 255,
            l4_start: 255,
            ..good
        },
        TxContext {
            payload_len: 65_536,
            ..good
        },
        TxContext {
            ipv4: false,
            ip_start: 15,
            ..good
        },
    ];
    let mut rig = Rig::started();
    rig.ram.put(TX_BUFFERS_AT, &ip_frame(true, &[7; 2000], 0));
    for (n, context) in bad.into_iter().enumerate() {
        let sent = rig.send(&[context.encode(), data(TX_BUFFERS_AT, 2054, LAST | command::TSE, 3)]);
        assert!(sent.is_empty(), "context {n}");
    }
    assert_eq!(rig.read(stat::TSCTFC), 9);
    assert_eq!(
        rig.send(&[good.encode(), data(TX_BUFFERS_AT, 2054, LAST | command::TSE, 3)])
            .len(),
        2
    );
}

#[test]
fn cve_2021_3416_and_2021_20255_loopback_comes_back_by_a_queue() {
    for phy in [false, true] {
        let mut rig = Rig::started();
        if phy {
            rig.write(reg::MDIC, reg::mdic::WRITE | 1 << reg::mdic::ADDRESS_SHIFT | 0x4140);
        } else {
            let control = rig.read(reg::RCTL);
            rig.write(reg::RCTL, control | 1 << 6);
        }
        rig.post_rx(RING - 1, 2048);
        let frame = broadcast_frame(20, 4);
        rig.ram.put(TX_BUFFERS_AT, &frame);
        for _ in 0..40 {
            rig.put_tx(&[TxDescriptor::legacy(TX_BUFFERS_AT, 20, LAST)]);
        }
        rig.kick();
        assert!(rig.sink.frames.is_empty(), "nothing leaves");
        assert!(!rig.em.can_receive(), "nothing comes in");
        assert_eq!(rig.receive(&[&frame]), 0);
        for n in 0..40 {
            assert_eq!(
                rig.rx_writeback(n).len_bytes,
                60,
                "CVE-2025-12464: short frames are padded on this path too"
            );
            assert_eq!(rig.rx_bytes(n, 2048)[..20], frame);
        }
        assert_eq!(rig.rx_writeback(40).status, 0);
    }
}

#[test]
fn loopback_holds_a_bounded_number_of_frames() {
    let mut rig = Rig::started();
    let control = rig.read(reg::RCTL);
    rig.write(reg::RCTL, control | rctl::LBM);
    for _ in 0..200 {
        rig.put_tx(&[TxDescriptor::legacy(TX_BUFFERS_AT, 60, LAST)]);
    }
    rig.ram.put(TX_BUFFERS_AT, &broadcast_frame(60, 0));
    rig.kick();
    assert_eq!(rig.em.save(0).loopback.len(), limits::LOOPBACK_FRAMES);
    rig.post_rx(RING - 1, 2048);
    assert_eq!(rig.receive(&[]), 0);
    assert_eq!(rig.read(reg::RDH), limits::LOOPBACK_FRAMES as u32);
    // What was delivered frees its room: far more than the bound passes in time.
    rig.ram.put(TX_BUFFERS_AT, &broadcast_frame(1500, 0));
    for _ in 0..100 {
        let before = rig.read(reg::RDH);
        rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, 1500, LAST)]);
        assert_eq!(rig.read(reg::RDH), (before + 1) % RING);
        rig.post_rx(1, 2048);
    }
}

#[test]
fn unreadable_memory_drops_the_packet_and_goes_on() {
    let mut rig = Rig::started();
    let outside = rig.ram.bytes.len() as u64;
    rig.ram.put(TX_BUFFERS_AT, &broadcast_frame(60, 0));
    let sent = rig.send(&[
        TxDescriptor::legacy(outside, 60, LAST),
        TxDescriptor::legacy(u64::MAX, 60, LAST),
        TxDescriptor::legacy(outside - 10, 60, LAST),
        TxDescriptor::legacy(TX_BUFFERS_AT, 60, LAST),
    ]);
    assert_eq!(sent.len(), 1);
    assert_eq!((rig.em.faults().dma, rig.em.faults().tx_dropped), (3, 3));
    assert!((0..4).all(|n| rig.tx_descriptor(n).upper & 1 == 1));
    rig.write(reg::TDBAH, 0x7FFF_FFFF);
    rig.write(reg::TDT, 20);
    assert_eq!(
        rig.em.transmit(0, &mut rig.ram, &mut rig.sink),
        16,
        "a ring outside memory is consumed, once"
    );
    rig.write(reg::TDBAH, u32::MAX);
    rig.write(reg::TDBAL, u32::MAX);
    rig.write(reg::TDT, 40);
    assert!(
        !rig.em.transmit_pending(),
        "a ring that wraps around the address space is none"
    );
}

#[test]
fn oversize_frames_are_dropped_whole() {
    let mut rig = Rig::started();
    let max = limits::FRAME_LEN_MAX;
    assert_eq!(
        rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, max as u16, LAST)])[0].len(),
        max
    );
    assert!(
        rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, max as u16 + 1, LAST)])
            .is_empty()
    );
    assert!(rig.send(&[data(TX_BUFFERS_AT, 0xF_FFFF, LAST, 0)]).is_empty());
}

#[test]
fn one_call_moves_a_bounded_amount() {
    let mut rig = Rig::started();
    rig.write(reg::TDLEN, 4096 * 16);
    let ring = 0x20_0000;
    rig.write(reg::TDBAL, ring as u32);
    let descriptor = TxDescriptor::legacy(TX_BUFFERS_AT, 16_000, LAST).encode();
    for n in 0..4095 {
        rig.ram.put(ring + n * 16, &descriptor);
    }
    rig.write(reg::TDT, 4095);
    let first = rig.em.transmit(0, &mut rig.ram, &mut rig.sink);
    assert!(first < 300, "{first} descriptors of 16 kB in one call");
    assert!(rig.em.transmit_pending());
}

#[test]
fn nothing_leaves_without_link_but_the_ring_moves() {
    let mut rig = Rig::started();
    rig.em.set_link(0, false);
    assert!(rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, 60, LAST)]).is_empty());
    assert_eq!(rig.tx_descriptor(0).upper & 1, 1);
}

#[test]
fn delayed_transmit_interrupt_waits_for_its_timer() {
    let mut rig = Rig::started();
    rig.write(reg::IMC, cause::TXQE);
    rig.write(reg::TIDV, 8);
    rig.write(reg::TADV, 32);
    rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, 60, LAST | command::IDE)]);
    assert!(!rig.em.irq_level());
    assert_eq!(rig.em.poll_timeout(), Some(8 * 1024));
    assert!(rig.em.handle_timeout(8 * 1024).irq_changed);
    assert_eq!(rig.read(reg::ICR) & cause::TXDW, cause::TXDW);
}

#[test]
fn enabling_the_transmitter_asks_for_a_run() {
    let mut rig = Rig::started();
    rig.write(reg::TCTL, 0);
    rig.put_tx(&[TxDescriptor::legacy(TX_BUFFERS_AT, 60, LAST)]);
    assert!(!rig.write(reg::TDT, 1).transmit);
    assert!(rig.write(reg::TCTL, tctl::EN).transmit);
    assert!(
        rig.write(reg::TDT, 2).transmit,
        "each doorbell asks, also while work is pending"
    );
    assert_eq!(rig.ram.get(TX_RING_AT + 12, 1), [0], "not before transmit() is called");
}

#[test]
fn few_waiting_descriptors_raise_their_cause_once_per_crossing() {
    let mut rig = Rig::started();
    let sent = TxDescriptor::legacy(TX_BUFFERS_AT, 60, command::EOP);
    for (threshold, count, expected) in [
        (0, 20, false),
        (1, 20, true),
        (1, 9, true),
        (1, 8, false),
        (127, 20, false),
    ] {
        rig.write(reg::TXDCTL, threshold << 25);
        rig.read(reg::ICR);
        rig.send(&vec![sent; count]);
        let raised = rig.read(reg::ICR) & cause::TXD_LOW != 0;
        assert_eq!(raised, expected, "{count} descriptors, threshold {threshold}");
    }
}
