//! What the receiver says about checksums, against frames made by rules of the tests' own.
#![cfg(feature = "device")]
#![allow(clippy::cast_possible_truncation, reason = "test values are small")]

mod support;

use nic_emu::spec::descriptors::{rx_error, rx_status};
use nic_emu::spec::registers::{self as reg, ctrl, rxcsum};
use proptest::prelude::*;
use support::{Rig, independent_sum};

const ALL: u32 = rxcsum::IPOFL | rxcsum::TUOFL | rxcsum::IPV6OFL;
const L4: u8 = rx_status::TCPCS | rx_status::UDPCS;

#[derive(Debug, Clone, Copy)]
struct Kind {
    ipv6: bool,
    udp: bool,
    tagged: bool,
}

/// A frame with right checksums, and where its IP and L4 headers begin.
fn frame(kind: Kind, payload: &[u8]) -> (Vec<u8>, usize, usize) {
    let Kind { ipv6, udp, tagged } = kind;
    let mut frame = vec![0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 1];
    if tagged {
        frame.extend([0x81, 0x00, 0x00, 0x05]);
    }
    frame.extend(if ipv6 { [0x86, 0xDD] } else { [0x08, 0x00] });
    let ip = frame.len();
    let l4_header = if udp { 8 } else { 20 };
    let len = (l4_header + payload.len()) as u16;
    let protocol = if udp { 17 } else { 6 };
    if ipv6 {
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend((0..32).map(|n| n * 5 + 1));
    } else {
        frame.extend([0x45, 0]);
        frame.extend((20 + len).to_be_bytes());
        frame.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
        let sum = !independent_sum(&frame[ip..]);
        frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let addresses = if ipv6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
    let l4 = frame.len();
    frame.extend([0x12, 0x34, 0x56, 0x78]);
    if udp {
        frame.extend(len.to_be_bytes());
        frame.extend([0, 0]);
    } else {
        frame.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    }
    frame.extend(payload);
    let mut pseudo = frame[addresses].to_vec();
    pseudo.extend(len.to_be_bytes());
    pseudo.extend([0, protocol]);
    pseudo.extend(&frame[l4..]);
    let at = l4 + if udp { 6 } else { 16 };
    let sum = match !independent_sum(&pseudo) {
        0 if udp => 0xFFFF,
        sum => sum,
    };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    (frame, ip, l4)
}

/// Status and errors that a guest with this RXCSUM sees.
fn reported(frame: &[u8], control: u32) -> (u8, u8) {
    let mut rig = Rig::started();
    let vme = rig.read(reg::CTRL) | ctrl::VME;
    rig.write(reg::CTRL, vme);
    rig.write(reg::RXCSUM, control);
    rig.post_rx(2, 2048);
    assert_eq!(rig.receive(&[frame]), 1);
    let back = rig.rx_writeback(0);
    (back.status & (rx_status::IXSM | rx_status::IPCS | L4), back.errors)
}

/// What is claimed of a good frame.
fn claims(kind: Kind) -> u8 {
    let l4 = if kind.udp { L4 } else { rx_status::TCPCS };
    l4 | if kind.ipv6 { 0 } else { rx_status::IPCS }
}

fn kinds() -> impl Strategy<Value = Kind> {
    any::<(bool, bool, bool)>().prop_map(|(ipv6, udp, tagged)| Kind { ipv6, udp, tagged })
}

proptest! {
    #[test]
    fn good_checksums_are_called_good_and_any_flipped_bit_bad(
        kind in kinds(),
        payload in proptest::collection::vec(any::<u8>(), 0..1400),
        at in any::<proptest::sample::Index>(),
        bit in 0_u32..8,
    ) {
        let (mut frame, ip, l4) = frame(kind, &payload);
        prop_assert_eq!(reported(&frame, ALL), (claims(kind), 0));
        prop_assert_eq!(reported(&frame, 0), (rx_status::IXSM, 0));
        // A UDP checksum of 0 is none; a flip inside the length fields or the protocol makes another packet.
        let body = l4 + if kind.udp { 8 } else { 20 };
        if frame.len() > body {
            let flipped = body + at.index(frame.len() - body);
            frame[flipped] ^= 1 << bit;
            prop_assert_eq!(reported(&frame, ALL), (claims(kind), rx_error::TCPE));
            frame[flipped] ^= 1 << bit;
        }
        if !kind.ipv6 {
            frame[ip + 8] ^= 1 << bit;
            prop_assert_eq!(reported(&frame, ALL), (claims(kind), rx_error::IPE), "the time to live is in one sum only");
            prop_assert_eq!(reported(&frame, rxcsum::TUOFL), (claims(kind) & L4, 0));
            prop_assert_eq!(reported(&frame, rxcsum::IPOFL), (rx_status::IPCS, rx_error::IPE));
        }
    }

    /// What ends too early or is nothing that the hardware knows is never claimed to be right; nothing panics.
    #[test]
    fn nothing_is_said_of_what_cannot_be_summed(
        kind in kinds(),
        payload in proptest::collection::vec(any::<u8>(), 60..200),
        cut in 14_usize..60,
    ) {
        let (frame, _, _) = frame(kind, &payload);
        let (status, errors) = reported(&frame[..cut.min(frame.len())], ALL);
        prop_assert_eq!((status & L4, errors & rx_error::TCPE), (0, 0));
    }
}

#[test]
fn fragments_other_protocols_and_missing_udp_checksums_are_left_to_software() {
    let v4 = |udp| Kind {
        ipv6: false,
        udp,
        tagged: false,
    };
    let (mut fragment, ip, _) = frame(v4(true), &[1; 100]);
    fragment[ip + 6] = 0x20;
    assert_eq!(reported(&fragment, rxcsum::TUOFL), (rx_status::IXSM, 0));
    let (mut sctp, ip, _) = frame(v4(false), &[1; 100]);
    sctp[ip + 9] = 132;
    assert_eq!(reported(&sctp, rxcsum::TUOFL), (rx_status::IXSM, 0));
    let (mut none, _, l4) = frame(v4(true), &[1; 100]);
    none[l4 + 6..l4 + 8].fill(0);
    assert_eq!(reported(&none, ALL), (rx_status::IPCS, 0));
    let (v6, ..) = frame(
        Kind {
            ipv6: true,
            udp: true,
            tagged: false,
        },
        &[1; 100],
    );
    assert_eq!(reported(&v6, rxcsum::TUOFL), (rx_status::IXSM, 0), "IPV6OFL is off");
}
