//! P3 for every kind that the device cuts: TCP and UDP, over IPv4 and IPv6, with and without a VLAN tag. The segments are taken
//! apart and summed by rules of this file alone; `transmit.rs` has smoltcp look at those of TCP over IPv4.
#![cfg(feature = "device")]
#![allow(clippy::cast_possible_truncation, reason = "test values are small")]

mod support;

use nic_emu::spec::descriptors::{TxContext, TxDescriptor, command, popts};
use nic_emu::spec::registers::{self as reg, ctrl};
use proptest::prelude::*;
use support::{Rig, TX_BUFFERS_AT, independent_sum};

const IP_AT: usize = 14;
const FIRST_ID: u16 = 0xFFFE;
const FIRST_SEQ: u32 = 0xFFFF_FF00;
const TAG: u16 = 0x6123;

#[derive(Debug, Clone, Copy)]
struct Kind {
    tcp: bool,
    ipv4: bool,
}

impl Kind {
    fn l4_at(self) -> usize {
        IP_AT + if self.ipv4 { 20 } else { 40 }
    }

    fn l4_len(self) -> usize {
        if self.tcp { 20 } else { 8 }
    }

    fn protocol(self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    fn header_len(self) -> usize {
        self.l4_at() + self.l4_len()
    }

    /// Where the checksum of TCP or UDP stands.
    fn sum_at(self) -> usize {
        self.l4_at() + if self.tcp { 16 } else { 6 }
    }

    /// The pseudo-header without the length.
    fn pseudo(self, frame: &[u8]) -> Vec<u8> {
        let addresses = if self.ipv4 {
            IP_AT + 12..IP_AT + 20
        } else {
            IP_AT + 8..IP_AT + 40
        };
        [&frame[addresses], &[0, self.protocol()]].concat()
    }

    /// The packet as a driver hands it over: no lengths, and the seed where the checksum goes.
    fn packet(self, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x02, 1, 2, 3, 4, 5, 0x52, 0x54, 0, 0x12, 0x34, 0x56];
        if self.ipv4 {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 0]);
            frame.extend(FIRST_ID.to_be_bytes());
            frame.extend([0x40, 0, 64, self.protocol(), 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        } else {
            frame.extend([0x86, 0xDD, 0x60, 0, 0, 0, 0, 0, self.protocol(), 64]);
            frame.extend([0xFE; 16]);
            frame.extend([0xFD; 16]);
        }
        frame.extend([0x4E, 0x38, 0x4E, 0x37]);
        if self.tcp {
            frame.extend(FIRST_SEQ.to_be_bytes());
            // FIN, PSH and ACK.
            frame.extend([0, 0, 0, 1, 0x50, 0x19, 0x20, 0, 0, 0, 0, 0]);
        } else {
            frame.extend([0; 4]);
        }
        let seed = independent_sum(&self.pseudo(&frame)).to_be_bytes();
        frame[self.sum_at()..self.sum_at() + 2].copy_from_slice(&seed);
        frame.extend(payload);
        frame
    }

    fn context(self, payload_len: usize, mss: u16) -> TxContext {
        TxContext {
            ip_start: IP_AT as u8,
            ip_offset: IP_AT as u8 + 10,
            ip_end: self.l4_at() as u16 - 1,
            l4_start: self.l4_at() as u8,
            l4_offset: self.sum_at() as u8,
            l4_end: 0,
            payload_len: payload_len as u32,
            header_len: self.header_len() as u8,
            mss,
            tcp: self.tcp,
            ipv4: self.ipv4,
            segmentation: true,
        }
    }
}

fn half(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn p3_segments_of_every_kind_carry_the_payload_with_good_lengths_and_checksums(
        (tcp, ipv4, tagged) in any::<(bool, bool, bool)>(),
        payload_len in 1_usize..20_000,
        mss in 32_u16..9000,
        cuts in proptest::collection::vec(1_usize..20_000, 0..4),
    ) {
        let kind = Kind { tcp, ipv4 };
        let payload: Vec<u8> = (0..payload_len).map(|n| (n * 7 % 255) as u8).collect();
        let packet = kind.packet(&payload);
        let mut rig = Rig::started();
        if tagged {
            let control = rig.read(reg::CTRL);
            rig.write(reg::CTRL, control | ctrl::VME);
        }
        rig.ram.put(TX_BUFFERS_AT, &packet);
        let mut ends: Vec<usize> = cuts.into_iter().filter(|at| *at < packet.len()).chain([packet.len()]).collect();
        ends.sort_unstable();
        ends.dedup();
        let commands = command::DEXT | 1 << command::DTYP_SHIFT | command::TSE | command::IFCS
            | if tagged { command::VLE } else { 0 };
        let options = u32::from(popts::TXSM | if ipv4 { popts::IXSM } else { 0 }) << 8;
        let mut descriptors = vec![kind.context(payload_len, mss).encode()];
        let mut from = 0;
        for end in ends {
            let last = if end == packet.len() { command::EOP } else { 0 };
            descriptors.push(TxDescriptor {
                address: TX_BUFFERS_AT + from as u64,
                lower: (end - from) as u32 | commands | last,
                upper: options | u32::from(TAG) << 16,
            });
            from = end;
        }

        let sent = rig.send(&descriptors);

        prop_assert_eq!(sent.len(), payload_len.div_ceil(usize::from(mss)));
        let mut joined: Vec<u8> = Vec::new();
        for (n, frame) in sent.iter().enumerate() {
            let mut frame = frame.clone();
            if tagged {
                prop_assert_eq!((half(&frame, 12), half(&frame, 14)), (0x8100, TAG));
                frame.drain(12..16);
            }
            let last = n + 1 == sent.len();
            let part = payload_len.min((n + 1) * usize::from(mss)) - joined.len();
            let len = kind.header_len() + part;
            // Short ones are padded on the wire, and what pads is in no length and in no sum.
            prop_assert!(frame.len() == len || last && len < 60 && (60..=64).contains(&sent[n].len()), "{} {}", frame.len(), len);
            let l4 = &frame[kind.l4_at()..len];
            if ipv4 {
                prop_assert_eq!(usize::from(half(&frame, IP_AT + 2)), len - IP_AT);
                prop_assert_eq!(half(&frame, IP_AT + 4), FIRST_ID.wrapping_add(n as u16));
                prop_assert_eq!(independent_sum(&frame[IP_AT..IP_AT + 20]), 0xFFFF);
            } else {
                prop_assert_eq!(usize::from(half(&frame, IP_AT + 4)), l4.len());
            }
            if tcp {
                let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
                prop_assert_eq!(seq, FIRST_SEQ.wrapping_add(joined.len() as u32));
                prop_assert_eq!(l4[13], if last { 0x19 } else { 0x10 });
            } else {
                prop_assert_eq!(usize::from(half(l4, 4)), l4.len());
            }
            let mut summed = kind.pseudo(&frame);
            summed.extend((l4.len() as u16).to_be_bytes());
            summed.extend(l4);
            prop_assert_eq!(independent_sum(&summed), 0xFFFF);
            joined.extend(&l4[kind.l4_len()..]);
        }
        prop_assert_eq!(joined, payload);
    }
}
