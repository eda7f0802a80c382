//! The device beside QEMU's e1000, access by access. Where the two differ on purpose stands in the tables here, each with its
//! reason; anything else is a failure, and so is a difference that is listed but not seen.
//!
//! Needs the QEMU of the testbed (`cargo xtask testbed`); without it a test says so and passes, except in CI.
#![cfg(feature = "device")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "test values are small; a failed unwrap is a failed test"
)]

#[path = "qemu/oracle.rs"]
mod oracle;
mod support;

use nic_emu::spec::descriptors::{TxDescriptor, command};
use nic_emu::spec::registers::{self as reg, Access, TABLE, cause, eecd, eerd, mdic, rctl, statistics, tctl};
use nic_emu::spec::{eeprom, phy};
use oracle::Oracle;
use support::{Rig, broadcast_frame};

/// Registers that QEMU does not have: they read 0 there and keep nothing. Hardware has them (SDM chapter 13).
const NOT_IN_QEMU: &[(u32, &str)] = &[
    (reg::CTRL_EXT, "FreeBSD keeps its DRV_LOAD there"),
    (reg::FLA, "inert"),
    (reg::FCAL, "ethtool -t tests it"),
    (reg::FCAH, "ethtool -t tests it"),
    (reg::FCT, "ethtool -t tests it"),
    (reg::FCTTV, "ethtool -t tests it"),
    (reg::TXCW, "ethtool -t tests it"),
    (reg::TIPG, "ethtool -t tests it"),
    (reg::FCRTL, "inert"),
    (reg::FCRTH, "ethtool -t tests it"),
    (reg::RXDCTL, "inert, with the reset value of the manual"),
    (reg::RSRPD, "small frames have a cause of their own"),
    (reg::TIDV, "the transmit delay has its timer"),
    (reg::TSPMT, "inert, with the reset value of the manual"),
    (reg::RXCSUM, "checksums are reported"),
];

/// Other intended differences of a register after power-on.
const OTHER_RESETS: &[(u32, &str)] = &[
    (reg::RXDCTL, "0x01010000; QEMU has no such register"),
    (reg::TSPMT, "0x01000400; QEMU has no such register"),
];

/// Other intended differences in what a register keeps.
const OTHER_MASKS: &[(u32, &str)] = &[
    (reg::VET, "an EtherType has 16 bits"),
    (reg::PBA, "the upper half is what the lower one leaves of 64 KiB"),
    (reg::RDBAL, "rings are aligned to 16 bytes"),
    (reg::TDBAL, "rings are aligned to 16 bytes"),
    (reg::TXDCTL, "reserved bits stay 0"),
    (reg::RAH, "reserved bits stay 0"),
    (reg::WUS, "nothing wakes up here, so there is no status"),
    (reg::WUPM, "nothing wakes up here, so there is no packet"),
    (reg::MANC, "writable, as drivers expect that clear ARP_EN"),
    (reg::IP4AT, "eight words; QEMU has seven"),
];

fn is_listed(list: &[(u32, &str)], offset: u32) -> bool {
    list.iter().any(|(listed, _)| *listed == offset)
}

/// Both devices.
struct Pair {
    ours: Rig,
    theirs: Oracle,
}

impl Pair {
    /// With QEMU's own moderation or without; without it QEMU lacks the registers for it.
    fn start(moderated: bool) -> Option<Self> {
        Some(Self {
            ours: Rig::new(),
            theirs: Oracle::start(moderated)?,
        })
    }

    fn read(&mut self, offset: u32) -> (u32, u32) {
        (self.ours.read(offset), self.theirs.read(offset))
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.ours.write(offset, value);
        self.theirs.write(offset, value);
    }
}

/// Rows of the table, first registers only where alike ones follow, by name.
fn rows() -> impl Iterator<Item = (&'static str, u32, Vec<u32>)> {
    TABLE.iter().map(|spec| {
        let all = (0..spec.count).map(|n| spec.offset + n * spec.stride);
        (spec.name, spec.offset, all.collect())
    })
}

#[test]
fn registers_read_the_same_after_power_on() {
    let Some(mut pair) = Pair::start(true) else { return };
    let mut wrong = Vec::new();
    for (name, first, offsets) in rows() {
        let mut differs = false;
        for offset in offsets {
            let (ours, theirs) = pair.read(offset);
            let listed = is_listed(OTHER_RESETS, first) || (is_listed(NOT_IN_QEMU, first) && theirs == 0);
            differs |= ours != theirs;
            if ours != theirs && !listed {
                wrong.push(format!("{name} at {offset:#x}: {ours:#x} here, {theirs:#x} in QEMU"));
            }
        }
        if is_listed(OTHER_RESETS, first) && !differs {
            wrong.push(format!("{name} is listed, but the same"));
        }
    }
    for spec in statistics::TABLE {
        let (ours, theirs) = pair.read(spec.offset);
        if ours != theirs {
            wrong.push(format!("{}: {ours:#x} here, {theirs:#x} in QEMU", spec.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn registers_keep_the_same_bits() {
    let Some(mut pair) = Pair::start(true) else { return };
    // Written ones mean something else to these; the other tests are about them.
    let special = [
        reg::CTRL,
        reg::EECD,
        reg::EERD,
        reg::MDIC,
        reg::ICR,
        reg::ICS,
        reg::IMS,
        reg::IMC,
        reg::FRTIMER,
    ];
    let mut wrong = Vec::new();
    let kept = rows().filter(|(_, first, _)| !special.contains(first));
    for (name, first, offsets) in kept {
        let (mut differs, mut there) = (false, false);
        for offset in offsets {
            for pattern in [0x5A5A_5A5A, 0xA5A5_A5A5, u32::MAX, 0] {
                pair.write(offset, pattern);
                let (ours, theirs) = pair.read(offset);
                differs |= ours != theirs;
                there |= theirs != 0;
                if ours != theirs
                    && !wrong.iter().any(|w: &String| w.starts_with(&format!("{name} ")))
                    && !is_listed(OTHER_MASKS, first)
                    && !is_listed(NOT_IN_QEMU, first)
                {
                    wrong.push(format!(
                        "{name} at {offset:#x}, {pattern:#x} written: {ours:#x} here, {theirs:#x} in QEMU"
                    ));
                }
            }
        }
        if is_listed(OTHER_MASKS, first) && !differs {
            wrong.push(format!("{name} is listed, but keeps the same"));
        }
        if is_listed(NOT_IN_QEMU, first) && there {
            wrong.push(format!("{name} is listed, but QEMU keeps something"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Words of the image that differ, and why.
const OTHER_WORDS: &[(usize, &str)] = &[
    (0x05, "unused words are erased"),
    (0x06, "unused words are erased"),
    (0x0B, "the subsystem is that of the real card"),
    (0x24, "no wake-up on LAN"),
    (eeprom::CHECKSUM_WORD, "of the others"),
];

#[test]
fn the_eeprom_answers_alike_on_both_its_doors() {
    let Some(mut pair) = Pair::start(true) else { return };
    let mut wrong = Vec::new();
    for address in 0..eeprom::WORDS {
        // While it is not selected, ours lets DO go; QEMU's still shows a bit of the last word.
        pair.write(reg::EECD, eecd::REQ | eecd::SK);
        for bits in [eecd::SK | eecd::CS, eecd::CS] {
            same_wires(&mut pair, bits);
        }
        let command = eeprom::OPCODE_READ << 6 | address as u16;
        for n in (0..9).rev() {
            let data = if command >> n & 1 != 0 { eecd::DI } else { 0 };
            same_wires(&mut pair, eecd::CS | data);
            // After the last edge ours shows the dummy bit that the part puts before the data.
            pair.write(reg::EECD, eecd::CS | data | eecd::SK);
        }
        let mut words = (0, 0);
        for _ in 0..16 {
            pair.write(reg::EECD, eecd::CS);
            pair.write(reg::EECD, eecd::CS | eecd::SK);
            let (ours, theirs) = pair.read(reg::EECD);
            assert_eq!(ours & !eecd::DO, theirs & !eecd::DO);
            let shifted = |word: u16, wires: u32| word << 1 | u16::from(wires & eecd::DO != 0);
            words = (shifted(words.0, ours), shifted(words.1, theirs));
        }
        pair.write(reg::EECD, 0);
        let listed = OTHER_WORDS.iter().any(|(word, _)| *word == address);
        if (words.0 != words.1) != listed {
            wrong.push(format!("word {address:#x}: {words:#x?}"));
        }
        pair.write(reg::EERD, eerd::START | (address as u32) << eerd::ADDRESS_SHIFT);
        let (ours, theirs) = pair.read(reg::EERD);
        assert_eq!((ours >> 16, theirs >> 16), (words.0.into(), words.1.into()));
        assert_eq!(ours & 0xFFFF, theirs & 0xFFFF);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Writes EECD; what it reads must be the same.
fn same_wires(pair: &mut Pair, bits: u32) {
    pair.write(reg::EECD, eecd::REQ | bits);
    let (ours, theirs) = pair.read(reg::EECD);
    assert_eq!(ours, theirs, "after {bits:#x}");
}

/// PHY registers that differ after power-on.
const OTHER_PHY: &[(u8, &str)] = &[
    (
        phy::BMSR,
        "negotiation is over here; in QEMU it begins when a driver asks",
    ),
    (phy::ANLPAR, "for the same reason"),
];

/// PHY registers that QEMU calls an error when they are read.
const NOT_IN_QEMUS_PHY: &[u8] = &[
    0x07, 0x08, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x12, 0x13, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F,
];

#[test]
fn the_phy_answers_alike() {
    let Some(mut pair) = Pair::start(true) else { return };
    let to = |address: u32, register: u8| address << mdic::ADDRESS_SHIFT | u32::from(register) << mdic::REGISTER_SHIFT;
    let mut wrong = Vec::new();
    for register in 0..phy::REGISTERS as u8 {
        pair.write(reg::MDIC, mdic::READ | to(phy::ADDRESS, register));
        let (ours, theirs) = pair.read(reg::MDIC);
        if NOT_IN_QEMUS_PHY.contains(&register) {
            // Hardware has no such error: an unknown register is a register.
            assert_eq!(
                (ours & mdic::ERROR, theirs & mdic::ERROR),
                (0, mdic::ERROR),
                "{register:#x}"
            );
            continue;
        }
        let listed = OTHER_PHY.iter().any(|(other, _)| *other == register);
        if (ours != theirs) != listed {
            wrong.push(format!("register {register:#x}: {ours:#x} here, {theirs:#x} in QEMU"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    pair.write(reg::MDIC, mdic::READ | to(2, 1));
    let (ours, theirs) = pair.read(reg::MDIC);
    assert_eq!(ours & (mdic::READY | mdic::ERROR), theirs & (mdic::READY | mdic::ERROR));
    for register in [phy::ANAR, phy::CTRL_1000T, phy::PSCR, phy::EPSCR] {
        pair.write(reg::MDIC, mdic::WRITE | to(phy::ADDRESS, register) | 0x05A5);
        let (ours, theirs) = pair.read(reg::MDIC);
        assert_eq!(ours, theirs, "after a write of {register:#x}");
        pair.write(reg::MDIC, mdic::READ | to(phy::ADDRESS, register));
        let (ours, theirs) = pair.read(reg::MDIC);
        assert_eq!(
            (ours & 0xFFFF, theirs & 0xFFFF),
            (0x05A5, 0x05A5),
            "register {register:#x}"
        );
    }
    pair.write(reg::MDIC, mdic::READ | mdic::INTERRUPT | to(phy::ADDRESS, 2));
    let (ours, theirs) = pair.read(reg::ICR);
    assert_eq!((ours & cause::MDAC, theirs & cause::MDAC), (cause::MDAC, cause::MDAC));
}

#[test]
fn interrupt_registers_and_the_line_go_the_same_way() {
    let Some(mut pair) = Pair::start(false) else { return };
    let mut random = Random(0x1234_5678);
    for step in 0..3000 {
        // Causes that both know; the bits above them are 0 here.
        let bits = random.next() & random.next() & cause::ALL;
        match random.next() % 6 {
            0 => pair.write(reg::ICS, bits),
            1 => pair.write(reg::IMS, bits),
            2 => pair.write(reg::IMC, bits),
            3 => pair.write(reg::ICR, bits),
            4 => {
                let (ours, theirs) = pair.read(reg::ICR);
                assert_eq!(ours, theirs, "ICR at step {step}");
            }
            _ => pair.write(reg::IMC, u32::MAX),
        }
        for offset in [reg::ICS, reg::IMS] {
            let (ours, theirs) = pair.read(offset);
            assert_eq!(ours, theirs, "{offset:#x} at step {step}");
        }
        assert_eq!(pair.ours.em.irq_level(), pair.theirs.line(), "the line at step {step}");
    }
}

const RX_RING: u64 = 0x1_0000;
const TX_RING: u64 = 0x2_0000;
const FRAME: u64 = 0x3_0000;
const DESCRIPTORS: u32 = 256;

/// QEMU's e1000 sends to itself by its PHY's loopback, where the same filter decides as for frames of a wire.
struct Looped {
    theirs: Oracle,
    tail: u32,
}

impl Looped {
    fn start() -> Option<Self> {
        let mut theirs = Oracle::start(true)?;
        for n in 0..u64::from(DESCRIPTORS) {
            theirs.put(RX_RING + n * 16, &(0x10_0000 + n * 2048).to_le_bytes());
        }
        let to_control = mdic::WRITE | phy::ADDRESS << mdic::ADDRESS_SHIFT;
        for (offset, value) in [
            (reg::MDIC, to_control | 0x4140),
            (reg::RDBAL, RX_RING as u32),
            (reg::RDLEN, DESCRIPTORS * 16),
            (reg::RDT, DESCRIPTORS - 1),
            (reg::TDBAL, TX_RING as u32),
            (reg::TDLEN, DESCRIPTORS * 16),
            (reg::TCTL, tctl::EN),
        ] {
            theirs.write(offset, value);
        }
        Some(Self { theirs, tail: 0 })
    }

    /// Whether a frame comes through.
    fn accepts(&mut self, frame: &[u8]) -> bool {
        let before = self.theirs.read(reg::RDH);
        self.theirs.put(FRAME, frame);
        let descriptor = TxDescriptor::legacy(FRAME, frame.len() as u16, command::EOP | command::IFCS);
        self.theirs
            .put(TX_RING + u64::from(self.tail) * 16, &descriptor.encode());
        self.tail = (self.tail + 1) % DESCRIPTORS;
        self.theirs.write(reg::TDT, self.tail);
        let after = self.theirs.read(reg::RDH);
        self.theirs.write(reg::RDT, (after + DESCRIPTORS - 1) % DESCRIPTORS);
        before != after
    }

    /// QEMU receives nothing for a second of its time after each write of RCTL: waits until a frame passes.
    fn set_control(&mut self, control: u32) {
        self.theirs.write(reg::RCTL, control | rctl::UPE);
        let mut own = broadcast_frame(60, 0);
        own[..6].copy_from_slice(&support::MAC);
        assert!((0..100_000).any(|_| self.accepts(&own)), "QEMU never receives again");
        // Only bits of the filter change now, and the write is followed by the same second.
        self.theirs.write(reg::RCTL, control);
        self.theirs.write(reg::RAL, 0x1200_5452);
        self.theirs.write(reg::RAH, 0x8000_5634);
        assert!((0..100_000).any(|_| self.accepts(&own)), "QEMU never receives again");
    }
}

#[test]
fn filters_accept_the_same_frames() {
    let Some(mut looped) = Looped::start() else { return };
    let mut random = Random(0x9E37_79B9);
    let mut unicast_by_hash = 0;
    let (mut passed, mut dropped) = (0, 0);
    for round in 0..24 {
        let flags = [
            0,
            rctl::BAM,
            rctl::UPE,
            rctl::MPE,
            rctl::VFE,
            rctl::VFE | rctl::BAM | rctl::UPE,
        ];
        let control = rctl::EN | rctl::SECRC | flags[round % flags.len()] | (round as u32 / 6) << rctl::MO_SHIFT;
        looped.set_control(control);
        let mut ours = Rig::started();
        ours.write(reg::RCTL, control);
        ours.post_rx(200, 2048);
        for n in 0..128 {
            let (filled, vlans) = (random.next() & random.next(), random.next());
            for (offset, value) in [(reg::MTA + n * 4, filled), (reg::VFTA + n * 4, vlans)] {
                ours.write(offset, value);
                looped.theirs.write(offset, value);
            }
        }
        let stations: Vec<[u8; 6]> = (1..16).map(|_| random.address()).collect();
        for (n, address) in (1..16).zip(&stations) {
            let [a, b, c, d, e, f] = *address;
            let valid = if n % 3 == 0 { 0 } else { reg::RAH_AV };
            for (offset, value) in [
                (reg::RAL + n * 8, u32::from_le_bytes([a, b, c, d])),
                (reg::RAH + n * 8, u32::from_le_bytes([e, f, 0, 0]) | valid),
            ] {
                ours.write(offset, value);
                looped.theirs.write(offset, value);
            }
        }
        for number in 0..60 {
            let to = match number % 4 {
                0 => [0xFF; 6],
                1 => stations[number / 4],
                2 => support::MAC,
                _ => random.address(),
            };
            let mut frame = broadcast_frame(60, number as u8);
            frame[..6].copy_from_slice(&to);
            if number % 3 == 0 {
                frame[12..14].copy_from_slice(&[0x81, 0x00]);
            }
            let before = ours.read(reg::RDH);
            ours.receive(&[&frame]);
            let here = ours.read(reg::RDH) != before;
            let there = looped.accepts(&frame);
            *(if here { &mut passed } else { &mut dropped }) += 1;
            if here != there {
                // QEMU asks the multicast table about unicast frames, too; the manual speaks of multicast only
                // (SDM chapter 3, packet address filtering).
                assert!(
                    there && to[0] & 1 == 0,
                    "{to:x?} with RCTL {control:#x}: {here} here, {there} in QEMU"
                );
                unicast_by_hash += 1;
            }
        }
    }
    assert!(passed > 200 && dropped > 200, "{passed} passed, {dropped} were dropped");
    assert!(unicast_by_hash > 0, "the difference is listed, but was not seen");
}

/// Numbers that are the same in every run (xorshift).
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn address(&mut self) -> [u8; 6] {
        let ([a, b, c, d], [e, f, ..]) = (self.next().to_le_bytes(), self.next().to_le_bytes());
        [a, b, c, d, e, f]
    }
}

#[test]
fn every_listed_difference_is_of_a_register_and_has_a_reason() {
    for (offset, why) in NOT_IN_QEMU.iter().chain(OTHER_RESETS).chain(OTHER_MASKS) {
        let row = TABLE.iter().find(|spec| spec.offset == *offset).unwrap();
        assert!(!why.is_empty() && row.access != Access::Statistic, "{}", row.name);
    }
}
