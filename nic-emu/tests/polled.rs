//! The polled driver against the device, as the dump port uses both.
#![cfg(feature = "device")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "test values are small"
)]

mod support;

use nic_emu::polled::{DatagramHeaders, FRAME_LEN_MAX, WINDOW_LEN};
use nic_emu::spec::registers::{self as reg, cause, ctrl};
use nic_emu::{Polled, PolledError, QueueError, Window};
use proptest::prelude::*;
use smoltcp::wire::{Ipv4Packet, UdpPacket};
use support::{HostBus, MAC, broadcast_frame};

const WINDOW: Window = Window {
    gpa: 0x1000,
    len_bytes: WINDOW_LEN as u64,
};

fn started() -> (HostBus, Polled) {
    let mut bus = HostBus::new(0x1000 + WINDOW_LEN);
    let driver = Polled::start(&mut bus, WINDOW, MAC).unwrap();
    bus.log.clear();
    (bus, driver)
}

#[test]
fn start_resets_first_and_enables_last() {
    let mut bus = HostBus::new(0x1000 + WINDOW_LEN);
    Polled::start(&mut bus, WINDOW, [2, 0, 0, 0, 0, 7]).unwrap();
    let order: Vec<u32> = bus
        .log
        .iter()
        .filter(|(what, ..)| *what == 'w')
        .map(|(_, offset, _)| *offset)
        .collect();
    let place = |offset: u32| order.iter().rposition(|at| *at == offset).unwrap();
    assert_eq!(order[0], reg::IMC);
    assert!(place(reg::CTRL) < place(reg::RAL) && place(reg::TDLEN) < place(reg::TCTL));
    assert!(place(reg::RDLEN) < place(reg::RCTL) && place(reg::RCTL) < place(reg::RDT));
    assert!(bus.log.contains(&('w', reg::CTRL, 0x0014_0240 | ctrl::RST)));
    assert!(
        !bus.log
            .iter()
            .any(|(what, offset, _)| *what == 'w' && *offset == reg::IMS),
        "no interrupt is ever enabled"
    );
    assert_eq!(bus.em.save(0).registers[reg::RAL as usize / 4], 2);
    assert!(bus.em.can_receive());
}

#[test]
fn bad_windows_and_dead_devices_are_refused() {
    let mut bus = HostBus::new(0);
    for window in [
        Window {
            gpa: 0,
            len_bytes: WINDOW.len_bytes - 1,
        },
        Window { gpa: 0x1010, ..WINDOW },
        Window {
            gpa: u64::MAX - 127,
            ..WINDOW
        },
    ] {
        assert_eq!(
            Polled::start(&mut bus, window, MAC).unwrap_err(),
            PolledError::BadWindow { window }
        );
    }
    bus.em.set_link(0, false);
    assert!(matches!(
        Polled::start(&mut bus, WINDOW, MAC),
        Err(PolledError::NoLink { .. })
    ));
}

#[test]
fn batch_is_one_doorbell_and_keeps_order() {
    let (mut bus, mut driver) = started();
    let frames: Vec<Vec<u8>> = (0..64).map(|n| broadcast_frame(60 + usize::from(n) * 20, n)).collect();
    for frame in &frames {
        driver.queue(&mut bus, frame).unwrap();
    }
    assert!(
        bus.sink.frames.is_empty() && bus.log.is_empty(),
        "nothing happens before the kick"
    );
    driver.kick(&mut bus);
    assert_eq!(bus.log, [('w', reg::TDT, 64)]);
    assert_eq!((bus.sink.bytes(), bus.sink.calls), (frames, 1));
    driver.kick(&mut bus);
    assert_eq!(bus.log.len(), 1, "no news, no doorbell");
    assert!(driver.all_sent(&mut bus));
}

#[test]
fn p10_ten_thousand_frames_each_way_without_an_interrupt_handshake() {
    let (mut bus, mut driver) = started();
    let mut received = 0_usize;
    for n in 0..10_000_usize {
        let frame = broadcast_frame(14 + n * 7 % 1500, (n % 251) as u8);
        let padded = {
            let mut padded = frame.clone();
            padded.resize(frame.len().max(60), 0);
            padded
        };
        driver.queue(&mut bus, &frame).unwrap();
        if n % 5 == 4 {
            driver.kick(&mut bus);
        }
        assert_eq!(bus.receive(&[&frame]), 1);
        if n % 3 == 0 || n == 9_999 {
            let mut last = Vec::new();
            received += driver.poll(&mut bus, &mut |bytes| last = bytes.to_vec());
            assert_eq!(last, padded);
        }
    }
    driver.kick(&mut bus);
    assert_eq!((received, bus.sink.frames.len()), (10_000, 10_000));
    for (n, (bytes, _)) in bus.sink.frames.iter().enumerate() {
        let mut expected = broadcast_frame(14 + n * 7 % 1500, (n % 251) as u8);
        expected.resize(expected.len().max(60), 0);
        assert_eq!(bytes, &expected);
    }
    let touched = |offset: u32| bus.log.iter().any(|(_, at, _)| *at == offset);
    for never in [reg::ICR, reg::IMS, reg::ICS, reg::TDH, reg::RDH, reg::STATUS] {
        assert!(!touched(never), "register {never:#x} was touched");
    }
    let state = bus.em.save(0);
    assert_eq!(state.irq.mask, 0);
    assert_eq!(
        state.irq.causes & (cause::RXT0 | cause::TXDW),
        cause::RXT0 | cause::TXDW,
        "pending for ever"
    );
    assert!(!bus.em.irq_level());
    assert_eq!(bus.em.faults(), nic_emu::Faults::default());
}

#[test]
fn jumbo_frames_pass_both_ways() {
    let (mut bus, mut driver) = started();
    for round in 0..200 {
        let len = FRAME_LEN_MAX - round % 3;
        let frame = broadcast_frame(len, round as u8);
        driver.queue(&mut bus, &frame).unwrap();
        driver.kick(&mut bus);
        assert_eq!(bus.sink.frames.pop().unwrap().0, frame);
        assert_eq!(bus.receive(&[&frame, &frame]), 2);
        let mut got = Vec::new();
        assert_eq!(driver.poll(&mut bus, &mut |bytes| got.push(bytes.to_vec())), 2);
        assert_eq!(got, [frame.clone(), frame]);
    }
}

#[test]
fn full_ring_reports_full_and_recovers() {
    let (mut bus, mut driver) = started();
    for len in [60, 1514, FRAME_LEN_MAX] {
        let frame = broadcast_frame(len, 1);
        let mut queued = 0;
        while driver.queue(&mut bus, &frame).is_ok() {
            queued += 1;
            assert!(queued < 1000);
        }
        assert_eq!(driver.queue(&mut bus, &frame), Err(QueueError::Full));
        assert!(queued >= 27, "{queued} frames of {len} bytes");
        driver.kick(&mut bus);
        assert_eq!(bus.sink.frames.len(), queued);
        bus.sink.frames.clear();
        assert!(driver.all_sent(&mut bus));
    }
    for len_bytes in [0, 13, FRAME_LEN_MAX + 1] {
        assert_eq!(
            driver.queue(&mut bus, &vec![0; len_bytes]),
            Err(QueueError::BadLength { len_bytes })
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn frames_in_the_byte_ring_never_overlap(
        steps in proptest::collection::vec((14_usize..FRAME_LEN_MAX, 0_u8..12), 300..600),
    ) {
        let (mut bus, mut driver) = started();
        let mut queued = Vec::new();
        for (n, (len, bell)) in steps.into_iter().enumerate() {
            let frame = broadcast_frame(len, n as u8);
            if driver.queue(&mut bus, &frame) == Err(QueueError::Full) {
                driver.kick(&mut bus);
                driver.queue(&mut bus, &frame).unwrap();
            }
            let mut padded = frame;
            padded.resize(len.max(60), 0);
            queued.push(padded);
            if bell == 0 {
                driver.kick(&mut bus);
            }
        }
        driver.kick(&mut bus);
        prop_assert!(bus.sink.bytes() == queued);
    }
}

#[test]
fn frame_with_an_error_in_its_first_buffer_is_dropped_whole() {
    let (mut bus, mut driver) = started();
    let (long, good) = (broadcast_frame(5000, 1), broadcast_frame(100, 2));
    assert_eq!(bus.receive(&[&long, &good]), 2);
    let errors_of_first = 0x1000 + 2048 + 13;
    bus.ram.put(errors_of_first, &[0x80]);
    let mut got = Vec::new();
    assert_eq!(driver.poll(&mut bus, &mut |bytes| got.push(bytes.to_vec())), 1);
    assert_eq!(got, [good]);
}

#[test]
fn overlong_and_foreign_frames_are_not_delivered() {
    let (mut bus, mut driver) = started();
    let long = broadcast_frame(12_000, 1);
    let mut foreign = broadcast_frame(100, 2);
    foreign[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    let mut mine = broadcast_frame(100, 3);
    mine[..6].copy_from_slice(&MAC);
    assert_eq!(bus.receive(&[&long, &foreign, &mine]), 3);
    let mut got = Vec::new();
    assert_eq!(driver.poll(&mut bus, &mut |bytes| got.push(bytes.to_vec())), 1);
    assert_eq!(got, [mine]);
}

#[test]
fn frames_wait_outside_while_the_ring_is_full() {
    let (mut bus, mut driver) = started();
    let frames: Vec<Vec<u8>> = (0..100).map(|n| broadcast_frame(60, n)).collect();
    let slices: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let mut got = Vec::new();
    let first = bus.receive(&slices);
    assert_eq!(first, 63);
    assert!(!bus.em.can_receive());
    driver.poll(&mut bus, &mut |bytes| got.push(bytes.to_vec()));
    assert_eq!(bus.receive(&slices[first..]), 37);
    driver.poll(&mut bus, &mut |bytes| got.push(bytes.to_vec()));
    assert_eq!(got, frames);
}

#[test]
fn stop_ends_all_use_of_the_window() {
    let (mut bus, mut driver) = started();
    driver.queue(&mut bus, &broadcast_frame(60, 0)).unwrap();
    driver.stop(&mut bus);
    let before = bus.ram.clone();
    driver.kick(&mut bus);
    assert_eq!(bus.receive(&[&broadcast_frame(60, 0)]), 0);
    assert!(bus.sink.frames.is_empty());
    assert_eq!(bus.ram.bytes, before.bytes);
    let mut again = Polled::start(&mut bus, WINDOW, MAC).unwrap();
    again.queue(&mut bus, &broadcast_frame(60, 9)).unwrap();
    again.kick(&mut bus);
    assert_eq!(bus.sink.bytes(), [broadcast_frame(60, 9)]);
}

#[test]
fn bus_master_off_means_no_dma() {
    let (mut bus, mut driver) = started();
    bus.em.set_bus_master(false);
    let accesses = bus.ram.accesses;
    bus.em.transmit(0, &mut bus.ram, &mut bus.sink);
    assert_eq!(bus.receive(&[&broadcast_frame(60, 0)]), 0);
    assert_eq!(bus.ram.accesses, accesses);
    driver.queue(&mut bus, &broadcast_frame(60, 0)).unwrap();
    driver.kick(&mut bus);
    assert!(bus.sink.frames.is_empty());
    assert!(bus.em.set_bus_master(true).transmit, "the ring waited");
}

/// Headers of datagrams from 10.0.2.15:20024 to 192.0.2.7 and this port, as the driver wants them.
fn headers(to_port: u16) -> DatagramHeaders {
    let mut headers = [0; 42];
    headers[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    headers[6..12].copy_from_slice(&MAC);
    headers[12..14].copy_from_slice(&[8, 0]);
    headers[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 2, 15, 192, 0, 2, 7]);
    headers[34..36].copy_from_slice(&20024_u16.to_be_bytes());
    headers[36..38].copy_from_slice(&to_port.to_be_bytes());
    // 10.0.2.15 + 192.0.2.7 + protocol 17, as ones-complement words.
    let seed = 0x0a00_u16 + 0x020f + 0x0207 + 17;
    headers[40..42].copy_from_slice(&(seed + 0xc000).to_be_bytes());
    headers
}

/// The destination port and payload of a datagram, every length and checksum checked by another implementation.
fn datagram(frame: &[u8]) -> (u16, Vec<u8>) {
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(ip.verify_checksum());
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    (udp.dst_port(), udp.payload().to_vec())
}

/// What the sink got as datagrams, whoever cut them.
fn datagrams(bus: &HostBus) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    for (bytes, offload) in &bus.sink.frames {
        match offload.segmentation {
            None => all.push(datagram(bytes)),
            Some(cut) => {
                let port = u16::from_be_bytes([bytes[36], bytes[37]]);
                let parts = bytes[usize::from(cut.header_len)..].chunks(usize::from(cut.size));
                all.extend(parts.map(|part| (port, part.to_vec())));
            }
        }
    }
    all
}

#[test]
fn a_window_of_datagrams_is_one_packet_with_two_descriptors() {
    let (mut bus, mut driver) = started();
    bus.sink.offloads.checksum = true;
    bus.sink.offloads.udp4 = true;
    let payloads: Vec<Vec<u8>> = (0..44).map(|n| vec![n; if n == 43 { 100 } else { 1472 }]).collect();
    for payload in &payloads {
        driver.queue_datagram(&mut bus, &headers(20023), payload).unwrap();
    }
    assert!(!driver.all_sent(&mut bus));
    driver.kick(&mut bus);
    assert_eq!(bus.log, [('w', reg::TDT, 2)]);
    assert_eq!(bus.sink.frames.len(), 1);
    assert!(
        datagrams(&bus)
            .into_iter()
            .eq(payloads.into_iter().map(|payload| (20023, payload)))
    );
    assert!(driver.all_sent(&mut bus));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn datagrams_arrive_whole_and_in_order_however_they_are_mixed(
        sends in prop::collection::vec((0_usize..3, 0_usize..6, any::<bool>(), any::<bool>()), 1..400),
        uncut: bool,
    ) {
        let (mut bus, mut driver) = started();
        bus.sink.offloads.udp4 = uncut;
        bus.sink.offloads.checksum = uncut;
        let mut expected = Vec::new();
        for (n, (port, len, other, kick)) in sends.into_iter().enumerate() {
            let port = 20023 + (port / 2) as u16;
            let payload = vec![n as u8; [4120, 4120, 1448, 1448, 24, 0][len]];
            if driver.queue_datagram(&mut bus, &headers(port), &payload) == Err(QueueError::Full) {
                driver.kick(&mut bus);
                driver.queue_datagram(&mut bus, &headers(port), &payload).unwrap();
            }
            expected.push((port, payload));
            if other && n % 7 == 0 {
                let mut whole = headers(9).to_vec();
                whole[16..18].copy_from_slice(&46_u16.to_be_bytes());
                Ipv4Packet::new_unchecked(&mut whole[14..]).fill_checksum();
                whole[38..42].copy_from_slice(&[0, 26, 0, 0]);
                whole.extend([n as u8; 18]);
                if driver.queue(&mut bus, &whole) == Err(QueueError::Full) {
                    driver.kick(&mut bus);
                    driver.queue(&mut bus, &whole).unwrap();
                }
                expected.push((9, vec![n as u8; 18]));
            }
            if kick {
                driver.kick(&mut bus);
            }
        }
        driver.kick(&mut bus);
        prop_assert!(datagrams(&bus) == expected);
        prop_assert!(driver.all_sent(&mut bus));
        prop_assert_eq!(bus.em.faults(), nic_emu::Faults::default());
    }
}
