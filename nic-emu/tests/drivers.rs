//! The order in which the Linux `e1000` and FreeBSD `lem` drivers bring the device up, register by register.
#![cfg(feature = "device")]

mod support;

use nic_emu::limits::NEGOTIATION_NS;
use nic_emu::spec::descriptors::{TxDescriptor, command, rx_status};
use nic_emu::spec::registers::{self as reg, cause, mdic, status};
use support::{MAC, RING, RX_BUFFERS_AT, RX_RING_AT, Rig, TX_BUFFERS_AT, TX_RING_AT, broadcast_frame};

/// What both drivers do to reset the device: quiet it, reset through the I/O BAR, quiet it again.
fn reset_block(rig: &mut Rig) {
    rig.write(reg::IMC, u32::MAX);
    rig.write(reg::RCTL, 0);
    rig.write(reg::TCTL, reg::tctl::PSP);
    let control = rig.read(reg::CTRL);
    rig.em.io_write(rig.now_ns, 0, &reg::CTRL.to_le_bytes());
    rig.em
        .io_write(rig.now_ns, 4, &(control | reg::ctrl::RST).to_le_bytes());
    let manc = rig.read(reg::MANC);
    rig.write(reg::MANC, manc & !(1 << 13));
    rig.write(reg::IMC, u32::MAX);
    assert_eq!(rig.read(reg::ICR), 0);
}

fn phy(rig: &mut Rig, register: u32, write: Option<u32>) -> u32 {
    let to = 1 << mdic::ADDRESS_SHIFT | register << mdic::REGISTER_SHIFT;
    rig.write(
        reg::MDIC,
        write.map_or(mdic::READ | to, |value| mdic::WRITE | to | value),
    );
    let answer = rig.read(reg::MDIC);
    assert_eq!(answer & (mdic::READY | mdic::ERROR), mdic::READY);
    assert_eq!(answer >> mdic::REGISTER_SHIFT & 0x1F, register);
    answer & 0xFFFF
}

#[test]
fn linux_probe_open_and_first_frames() {
    let mut rig = Rig::new();
    reset_block(&mut rig);
    rig.write(reg::PBA, 0x30);
    reset_block(&mut rig);
    assert_eq!(rig.read(reg::MANC) & 1, 0, "SMBUS_EN");
    rig.write(reg::WUC, 0);
    rig.write(reg::VET, 0);
    for n in 0..128 {
        rig.write(reg::VFTA + n * 4, 0);
        rig.write(reg::MTA + n * 4, 0);
    }
    assert_eq!(
        (phy(&mut rig, 2, None), phy(&mut rig, 3, None) & 0xFFF0),
        (0x0141, 0x0C20)
    );
    assert_eq!(phy(&mut rig, 16, None), 0x360);
    phy(&mut rig, 16, Some(0xB60));
    phy(&mut rig, 20, Some(0x170));
    phy(&mut rig, 0, Some(0x9140));
    phy(&mut rig, 0, Some(0x1340));
    assert_eq!(phy(&mut rig, 1, None) & 0x24, 0, "negotiating");
    for offset in (0x4000..0x4100).step_by(4) {
        rig.read(offset);
    }
    rig.write(reg::VET, 0x8100);
    rig.write(reg::CTRL, 0x4014_0240);
    let at = |gpa: u64| u32::try_from(gpa).unwrap_or(0);
    for (offset, value) in [
        (reg::TDLEN, RING * 16),
        (reg::TDBAH, 0),
        (reg::TDBAL, at(TX_RING_AT)),
        (reg::TDT, 0),
        (reg::TDH, 0),
        (reg::TIPG, 0x0060_2008),
        (reg::TIDV, 8),
        (reg::TADV, 0x20),
        (reg::TCTL, 0x0100_00F8),
        (reg::RDTR, 0),
        (reg::ITR, 0xC3),
        (reg::RDLEN, RING * 16),
        (reg::RDBAH, 0),
        (reg::RDBAL, at(RX_RING_AT)),
        (reg::RDT, 0),
        (reg::RDH, 0),
        (reg::RXCSUM, 0x200),
        (reg::RCTL, 0x8002),
    ] {
        rig.write(offset, value);
    }
    rig.post_rx(0xFE, 2048);
    rig.write(reg::IMS, 0x9D);
    rig.write(reg::ICS, cause::LSC);
    assert!(rig.em.irq_level());
    assert_eq!(rig.read(reg::ICR) & 0x9D, cause::LSC);
    assert_eq!(rig.read(reg::STATUS) & status::LU, 0, "still negotiating: no frame yet");
    rig.now_ns = NEGOTIATION_NS;
    rig.em.handle_timeout(rig.now_ns);
    assert_eq!(rig.read(reg::ICR) & cause::LSC, cause::LSC);
    phy(&mut rig, 1, None);
    assert_eq!(phy(&mut rig, 1, None) & 0x24, 0x24);
    rig.write(reg::TCTL, 0x0103_F0FA);

    let frame = broadcast_frame(200, 3);
    assert_eq!(rig.receive(&[&frame]), 1);
    let done = rig.rx_writeback(0);
    assert_eq!(
        (done.len_bytes, done.status & rx_status::EOP),
        (204, rx_status::EOP),
        "with CRC, as SECRC is clear"
    );
    assert_eq!(rig.ram.get(RX_BUFFERS_AT, 200), frame);
    rig.ram.put(TX_BUFFERS_AT, &frame);
    let commands = command::EOP | command::IFCS | command::RS | command::IDE;
    assert_eq!(rig.send(&[TxDescriptor::legacy(TX_BUFFERS_AT, 200, commands)]), [frame]);
    rig.now_ns += 1_000_000;
    rig.em.handle_timeout(rig.now_ns);
    assert!(rig.em.irq_level());
    assert_eq!(rig.read(reg::ICR) & 0x9D, cause::RXT0 | cause::TXDW);
}

#[test]
fn freebsd_attach_finds_its_address_and_enables_receive_last() {
    let mut rig = Rig::new();
    reset_block(&mut rig);
    let extended = rig.read(reg::CTRL_EXT);
    rig.write(reg::CTRL_EXT, extended | 1 << 28);
    assert_eq!(rig.read(reg::CTRL_EXT), 1 << 28, "DRV_LOAD stays");
    rig.write(reg::WUFC, 0);
    let (low, high) = (rig.read(reg::RAL).to_le_bytes(), rig.read(reg::RAH).to_le_bytes());
    assert_eq!([low[0], low[1], low[2], low[3], high[0], high[1]], MAC);
    rig.write(reg::RDLEN, RING * 16);
    rig.write(reg::RDBAL, u32::try_from(RX_RING_AT).unwrap_or(0));
    rig.write(reg::RDH, 0);
    rig.write(reg::RDT, 0);
    rig.write(reg::RCTL, 0x0400_8002);
    rig.read(reg::ICR);
    rig.write(reg::ICS, cause::LSC);
    rig.write(reg::IMS, 0x9D);
    assert!(rig.em.irq_level(), "the mask comes after the cause");
    rig.post_rx(100, 2048);
    let frame = broadcast_frame(60, 1);
    assert_eq!(rig.receive(&[&frame]), 1);
    assert_eq!(rig.rx_bytes(0, 2048), frame, "without CRC, as SECRC is set");
}
