//! Registers as a driver sees them: reset values, masks, reset, interrupts, odd accesses.
#![cfg(feature = "device")]

mod support;

use nic_emu::spec::registers::{self as reg, Access, TABLE, cause, ctrl, mdic, statistics, status};
use nic_emu::spec::{eeprom, phy};
use nic_emu::{Actions, limits};
use support::{MAC, Rig};

#[test]
fn power_on_values_are_those_of_the_real_part() {
    let mut rig = Rig::new();
    let golden = [
        (reg::CTRL, 0x0014_0240),
        (0x0004, 0x0014_0240),
        (reg::STATUS, 0x8008_0783),
        (reg::EECD, 0x188),
        (reg::EERD, 0),
        (reg::CTRL_EXT, 0),
        (reg::MDIC, 0),
        (reg::VET, 0x8100),
        (reg::ICS, 0),
        (reg::ITR, 0),
        (reg::IMS, 0),
        (reg::IMC, 0),
        (reg::RCTL, 0),
        (reg::TCTL, 0),
        (reg::LEDCTL, 0x602),
        (reg::PBA, 0x0010_0030),
        (reg::RXDCTL, 0x0101_0000),
        (reg::TSPMT, 0x0100_0400),
        (reg::MANC, 0x0022_2300),
        (reg::RAL, 0x1200_5452),
        (reg::RAH, 0x8000_5634),
        (reg::RAL + 8, 0),
        (reg::RAH + 15 * 8, 0),
        (0x1_0000, 0),
        (0x1_FFFC, 0),
    ];
    for (offset, value) in golden {
        assert_eq!(rig.read(offset), value, "register {offset:#x}");
    }
}

#[test]
fn storage_keeps_exactly_its_mask() {
    let mut rig = Rig::new();
    for spec in TABLE
        .iter()
        .filter(|spec| matches!(spec.access, Access::Storage | Access::ReadOnly))
    {
        for n in 0..spec.count {
            let offset = spec.offset + n * spec.stride;
            let constant = rig.read(offset) & !spec.mask;
            for pattern in [0x5A5A_5A5A, 0xA5A5_A5A5, u32::MAX, 0] {
                rig.write(offset, pattern);
                assert_eq!(
                    rig.read(offset),
                    (pattern & spec.mask) | constant,
                    "{} ({offset:#x})",
                    spec.name
                );
            }
        }
    }
}

#[test]
fn registers_of_the_linux_self_test_keep_its_masks() {
    // The masks that the e1000 driver's offline register test expects.
    let expected = [
        (reg::FCAL, u32::MAX),
        (reg::FCAH, 0xFFFF),
        (reg::FCT, 0xFFFF),
        (reg::VET, 0xFFFF),
        (reg::RDTR, 0xFFFF),
        (reg::RDBAH, u32::MAX),
        (reg::RDLEN, 0xF_FF80),
        (reg::RDH, 0xFFFF),
        (reg::RDT, 0xFFFF),
        (reg::FCRTH, 0xFFF8),
        (reg::FCTTV, 0xFFFF),
        (reg::TIPG, 0x3FFF_FFFF),
        (reg::TDBAH, u32::MAX),
        (reg::TDLEN, 0xF_FF80),
        (reg::RDBAL, 0xFFFF_FFF0),
        (reg::TXCW, 0xC000_FFFF),
        (reg::TDBAL, 0xFFFF_FFF0),
        (reg::TIDV, 0xFFFF),
        (reg::RAH + 15 * 8, 0x8003_FFFF),
        (reg::MTA + 127 * 4, u32::MAX),
    ];
    let mut rig = Rig::new();
    for (offset, mask) in expected {
        for pattern in [0x5A5A_5A5A, 0xA5A5_A5A5, 0, u32::MAX] {
            rig.write(offset, pattern);
            assert_eq!(rig.read(offset), pattern & mask, "register {offset:#x}");
        }
    }
    rig.write(reg::STATUS, 0);
    assert_eq!(rig.read(reg::STATUS), 0x8008_0783);
    rig.write(reg::RCTL, 0x06DF_B3FE);
    assert_eq!(rig.read(reg::RCTL), 0x06DF_B3FE);
}

#[test]
fn reset_by_memory_and_by_io_clear_the_same_and_spare_pba_and_phy() {
    for by_io in [false, true] {
        let mut rig = Rig::started();
        rig.write(reg::PBA, 0x28);
        rig.write(reg::MTA + 4, 7);
        rig.write(reg::VFTA, 7);
        rig.write(reg::RAL, 0xDEAD);
        rig.write(reg::RAH + 8, reg::RAH_AV);
        rig.write(reg::ITR, 100);
        rig.write(reg::ICS, cause::LSC);
        rig.write(
            reg::MDIC,
            mdic::WRITE | 1 << mdic::ADDRESS_SHIFT | u32::from(phy::PSCR) << mdic::REGISTER_SHIFT | 0xB60,
        );
        assert!(rig.em.irq_level());
        let value = rig.read(reg::CTRL) | ctrl::RST | ctrl::VME;
        if by_io {
            rig.em.io_write(0, 0, &reg::CTRL.to_le_bytes());
            rig.em.io_write(0, 4, &value.to_le_bytes());
        } else {
            rig.write(reg::CTRL, value);
        }
        assert!(!rig.em.irq_level() && !rig.em.can_receive() && !rig.em.transmit_pending());
        assert_eq!(rig.read(reg::CTRL), 0x0014_0240, "RST reads back 0 at once");
        for offset in [
            reg::IMS,
            reg::ICR,
            reg::ITR,
            reg::RCTL,
            reg::TCTL,
            reg::TDBAL,
            reg::TDLEN,
            reg::RDLEN,
            reg::VFTA,
        ] {
            assert_eq!(rig.read(offset), 0, "register {offset:#x}");
        }
        assert_eq!((rig.read(reg::MTA + 4), rig.read(reg::RAH + 8)), (0, 0));
        assert_eq!(
            (rig.read(reg::RAL), rig.read(reg::RAH)),
            (0x1200_5452, 0x8000_5634),
            "station address is back"
        );
        assert_eq!(rig.read(reg::PBA), 0x0018_0028, "PBA survives");
        assert_eq!(rig.read(reg::STATUS) & status::LU, status::LU, "link survives");
        rig.write(
            reg::MDIC,
            mdic::READ | 1 << mdic::ADDRESS_SHIFT | u32::from(phy::PSCR) << mdic::REGISTER_SHIFT,
        );
        assert_eq!(rig.read(reg::MDIC) & 0xFFFF, 0xB60, "PHY survives");
    }
}

#[test]
fn iodata_has_the_side_effects_of_the_register_it_names() {
    let mut rig = Rig::new();
    rig.write(reg::ICS, cause::LSC);
    rig.em.io_write(0, 0, &reg::ICR.to_le_bytes());
    let mut data = [0; 4];
    rig.em.io_read(0, 0, &mut data);
    assert_eq!(u32::from_le_bytes(data), reg::ICR);
    rig.em.io_read(0, 4, &mut data);
    assert_eq!(u32::from_le_bytes(data), cause::LSC);
    assert_eq!(rig.read(reg::ICS), 0, "cleared by the read");
    rig.em.io_write(0, 0, &0x2_0000_u32.to_le_bytes());
    rig.em.io_read(0, 4, &mut data);
    assert_eq!(data, [0; 4], "undefined window");
}

#[test]
fn interrupt_registers_follow_their_algebra() {
    let mut rig = Rig::new();
    rig.write(reg::ICS, cause::LSC | cause::RXT0);
    assert!(!rig.em.irq_level(), "masked");
    assert_eq!(
        rig.read(reg::ICS),
        cause::LSC | cause::RXT0,
        "ICS shows without clearing"
    );
    let actions = rig.write(reg::IMS, cause::LSC);
    assert_eq!(
        actions,
        Actions {
            irq_changed: true,
            ..Actions::default()
        }
    );
    assert!(rig.em.irq_level(), "unmasking a pending cause raises the line");
    assert!(rig.write(reg::IMC, cause::LSC).irq_changed);
    assert!(!rig.em.irq_level(), "masking it lowers the line");
    rig.write(reg::IMS, cause::LSC | cause::RXT0);
    rig.write(reg::ICR, cause::LSC);
    assert!(rig.em.irq_level(), "one cause is left");
    assert_eq!(rig.read(reg::ICR), cause::RXT0);
    assert!(!rig.em.irq_level());
    assert_eq!(rig.read(reg::ICR), 0, "a sibling's handler reads 0");
    assert_eq!((rig.read(reg::IMS), rig.read(reg::IMC)), (cause::LSC | cause::RXT0, 0));
    rig.write(reg::ICS, u32::MAX);
    assert_ne!(rig.read(reg::ICR), u32::MAX, "never looks like an ejected card");
}

#[test]
fn throttled_line_rises_at_its_deadline() {
    let mut rig = Rig::new();
    rig.write(reg::ITR, 488);
    rig.write(reg::IMS, cause::RXT0);
    rig.write(reg::ICS, cause::RXT0);
    assert!(rig.em.irq_level(), "the first interrupt is not delayed");
    rig.now_ns = 1000;
    rig.read(reg::ICR);
    rig.write(reg::ICS, cause::RXT0);
    assert!(!rig.em.irq_level());
    assert_eq!(rig.em.poll_timeout(), Some(488 * 256));
    assert!(!rig.em.handle_timeout(488 * 256 - 1).irq_changed);
    assert!(rig.em.handle_timeout(488 * 256).irq_changed && rig.em.irq_level());
    assert_eq!(rig.em.poll_timeout(), None);
}

#[test]
fn odd_accesses_have_no_side_effects_and_are_counted() {
    let mut rig = Rig::new();
    rig.write(reg::ICS, 0x8F);
    let mut byte = [0; 1];
    rig.em.mmio_read(0, reg::ICR, &mut byte);
    assert_eq!(byte, [0x8F]);
    let mut two = [0; 2];
    rig.em.mmio_read(0, reg::STATUS + 2, &mut two);
    assert_eq!(two, [0x08, 0x80]);
    rig.em.mmio_write(0, reg::ICR, &[0xFF]);
    rig.em.mmio_write(0, 0x3A, &[0xFF, 0xFF]);
    rig.em.mmio_write(0, reg::FCT, &[]);
    let mut nothing: [u8; 0] = [];
    rig.em.mmio_read(0, u32::MAX, &mut nothing);
    let mut far = [1; 16];
    rig.em.mmio_read(0, u32::MAX - 1, &mut far);
    assert_eq!(far, [0; 16]);
    assert_eq!(rig.em.faults().accesses, 7);
    assert_eq!(rig.read(reg::ICR), 0x8F);
    let mut eight = [0; 8];
    rig.em.mmio_read(0, reg::RAL, &mut eight);
    assert_eq!(
        eight,
        [0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0x80],
        "8 bytes are two registers"
    );
    rig.em.mmio_write(0, reg::RDBAL, &[0x10, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!((rig.read(reg::RDBAL), rig.read(reg::RDBAH)), (0x10, 1));
}

#[test]
fn aliases_reach_the_registers_behind_them() {
    let mut rig = Rig::new();
    rig.write(0x0040 + 15 * 8, 0x1234);
    assert_eq!(rig.read(reg::RAL + 15 * 8), 0x1234);
    rig.write(0x0200 + 127 * 4, 5);
    assert_eq!(rig.read(reg::MTA + 127 * 4), 5);
    rig.write(0x0600, 6);
    assert_eq!(rig.read(reg::VFTA), 6);
}

#[test]
fn eeprom_wires_work_through_the_register() {
    use reg::eecd::{CS, DI, DO, SK};
    let mut rig = Rig::new();
    let image = eeprom::image(MAC);
    for (address, expected) in (0_u16..).zip(image) {
        rig.write(reg::EECD, SK);
        rig.write(reg::EECD, SK | CS);
        rig.write(reg::EECD, CS);
        let command = eeprom::OPCODE_READ << 6 | address;
        for n in (0..9).rev() {
            let data = if command >> n & 1 != 0 { DI } else { 0 };
            rig.write(reg::EECD, CS | data);
            rig.write(reg::EECD, CS | data | SK);
            rig.write(reg::EECD, CS | data);
        }
        let mut word = 0;
        for _ in 0..16 {
            rig.write(reg::EECD, CS | SK);
            word = word << 1 | u16::from(rig.read(reg::EECD) & DO != 0);
            rig.write(reg::EECD, CS);
        }
        rig.write(reg::EECD, 0);
        rig.write(
            reg::EERD,
            reg::eerd::START | u32::from(address) << reg::eerd::ADDRESS_SHIFT,
        );
        let by_eerd = rig.read(reg::EERD) >> reg::eerd::DATA_SHIFT;
        assert_eq!((word, by_eerd), (expected, u32::from(expected)), "word {address:#x}");
    }
}

#[test]
fn link_change_shows_everywhere_and_interrupts() {
    let mut rig = Rig::new();
    rig.write(reg::IMS, cause::LSC);
    assert!(rig.em.set_link(0, false).irq_changed);
    assert_eq!(rig.read(reg::STATUS) & status::LU, 0);
    assert_eq!(rig.read(reg::ICR), cause::LSC);
    assert!(rig.em.set_link(0, true).irq_changed);
    assert_eq!(rig.read(reg::STATUS) & status::LU, status::LU);
    assert!(!rig.em.set_link(0, true).irq_changed, "no change, no interrupt");
}

#[test]
fn negotiation_takes_its_time_and_ends_in_a_link_interrupt() {
    let mut rig = Rig::new();
    rig.write(reg::IMS, cause::LSC);
    rig.write(reg::MDIC, mdic::WRITE | 1 << mdic::ADDRESS_SHIFT | 0x1340);
    assert_eq!(rig.read(reg::STATUS) & status::LU, 0);
    rig.read(reg::ICR);
    assert_eq!(rig.em.poll_timeout(), Some(limits::NEGOTIATION_NS));
    assert!(rig.em.handle_timeout(limits::NEGOTIATION_NS).irq_changed);
    assert_eq!(rig.read(reg::STATUS) & status::LU, status::LU);
    rig.write(reg::CTRL, ctrl::PHY_RST);
    assert_eq!(rig.read(reg::STATUS) & status::LU, 0);
    assert_eq!(rig.read(reg::CTRL) & ctrl::PHY_RST, 0);
}

#[test]
fn statistics_ignore_writes() {
    let mut rig = Rig::new();
    for offset in (statistics::FIRST..=statistics::LAST).step_by(4) {
        rig.write(offset, u32::MAX);
        assert_eq!(rig.read(offset), 0);
    }
}

#[test]
fn bus_reset_forgets_everything_but_the_cable() {
    let mut rig = Rig::started();
    rig.em.set_link(0, false);
    rig.write(reg::PBA, 0x10);
    rig.em.io_write(0, 0, &8_u32.to_le_bytes());
    rig.em.bus_reset();
    let mut fresh = nic_emu::Em::new(nic_emu::EmConfig::new(MAC));
    fresh.set_link(0, false);
    let mut expected = fresh.save(0);
    expected.irq.causes = 0;
    let mut actual = rig.em.save(0);
    // That the link is down is no news after a reset.
    (actual.phy.link_lost, expected.phy.link_lost) = (true, true);
    assert_eq!(actual, expected);
}
