//! One access in, the right part called.

use super::{Actions, Em, stats};
use crate::bits::{index, len32, low32};
use crate::spec::registers::{self as reg, BAR0_LEN, cause, ctrl, ctrl_ext, mdic, statistics};

impl Em {
    /// Reads registers of BAR0 into `data`. Only aligned accesses of 4 bytes, or of 8 as two of them, have side effects;
    /// any other shows the bytes that lie there.
    pub fn mmio_read(&mut self, now_ns: u64, offset: u32, data: &mut [u8]) -> Actions {
        if !is_proper(offset, data.len()) {
            self.faults.accesses += 1;
            for (at, byte) in (0..).zip(data) {
                let at: u32 = offset.saturating_add(at);
                let word = self.peek(now_ns, canonical(at & !3)).to_le_bytes();
                *byte = word.get(index(at & 3)).copied().unwrap_or(0);
            }
            return Actions::default();
        }
        self.watch(now_ns, |em| {
            for (n, word) in (0..).step_by(4).zip(data.chunks_exact_mut(4)) {
                let value = em.read_register(now_ns, canonical(offset.saturating_add(n)));
                word.copy_from_slice(&value.to_le_bytes());
            }
        })
    }

    /// Writes registers of BAR0. An access that is not aligned and 4 or 8 bytes long is ignored and counted.
    pub fn mmio_write(&mut self, now_ns: u64, offset: u32, data: &[u8]) -> Actions {
        if !is_proper(offset, data.len()) {
            self.faults.accesses += 1;
            return Actions::default();
        }
        let (words, _) = data.as_chunks::<4>();
        let mut doorbells = Actions::default();
        let actions = self.watch(now_ns, |em| {
            for (n, word) in (0..).step_by(4).zip(words) {
                let offset = canonical(offset.saturating_add(n));
                em.write_register(now_ns, offset, u32::from_le_bytes(*word));
                doorbells.transmit |= offset == reg::TDT && em.transmit_pending();
                doorbells.receive |= offset == reg::RDT && em.wants_frames();
            }
        });
        Actions {
            transmit: actions.transmit || doorbells.transmit,
            receive: actions.receive || doorbells.receive,
            irq_changed: actions.irq_changed,
        }
    }

    /// Reads the I/O BAR: IOADDR, or the register that it names (SDM chapter 13).
    pub fn io_read(&mut self, now_ns: u64, offset: u32, data: &mut [u8]) -> Actions {
        match (offset, data.len()) {
            (reg::IOADDR, 4) => {
                data.copy_from_slice(&self.io_address.to_le_bytes());
                Actions::default()
            }
            (reg::IODATA, 4) if self.io_address < BAR0_LEN => self.mmio_read(now_ns, self.io_address, data),
            _ => {
                data.fill(0);
                Actions::default()
            }
        }
    }

    /// Writes the I/O BAR: IOADDR, or the register that it names, with the same side effects (SDM chapter 13).
    pub fn io_write(&mut self, now_ns: u64, offset: u32, data: &[u8]) -> Actions {
        match (offset, data.first_chunk::<4>(), data.len()) {
            (reg::IOADDR, Some(address), 4) => {
                self.io_address = u32::from_le_bytes(*address);
                Actions::default()
            }
            (reg::IODATA, Some(_), 4) if self.io_address < BAR0_LEN => self.mmio_write(now_ns, self.io_address, data),
            _ => Actions::default(),
        }
    }

    /// A register's value, with what reading it does.
    fn read_register(&mut self, now_ns: u64, offset: u32) -> u32 {
        match offset {
            reg::STATUS => self.registers.get(offset),
            reg::ICR => self.irq.take(),
            _ if statistics::contains(offset) => stats::read(&mut self.registers, offset),
            _ => self.peek(now_ns, offset),
        }
    }

    /// A register's value, and nothing happens.
    fn peek(&self, now_ns: u64, offset: u32) -> u32 {
        match offset {
            reg::EECD => self.nvm.read_eecd(),
            reg::EERD => self.nvm.eerd,
            reg::ICR | reg::ICS => self.irq.causes,
            reg::IMS => self.irq.mask,
            reg::ITR => self.irq.interval,
            reg::FRTIMER => low32(now_ns.wrapping_add(self.timer_ahead_ns) / 1000),
            _ => self.registers.get(offset),
        }
    }

    /// A guest's write to a register.
    fn write_register(&mut self, now_ns: u64, offset: u32, value: u32) {
        match offset {
            reg::CTRL => self.write_ctrl(now_ns, value),
            reg::EECD => self.nvm.write_eecd(value),
            reg::EERD => self.nvm.write_eerd(value),
            reg::CTRL_EXT => {
                self.registers.write(offset, value);
                if value & ctrl_ext::EE_RST != 0 {
                    self.load_station_address();
                }
            }
            reg::MDIC => {
                let answer = self.phy.execute(now_ns, value);
                self.registers.set(offset, answer);
                if value & mdic::INTERRUPT != 0 {
                    self.irq.raise(cause::MDAC);
                }
            }
            reg::ICR => self.irq.causes &= !value,
            reg::ICS => self.irq.raise(value),
            reg::IMS => self.irq.mask |= value & cause::ALL,
            reg::IMC => self.irq.mask &= !value,
            reg::ITR => self.irq.interval = value & 0xFFFF,
            reg::PBA => {
                let receive = (value & 0xFFFF).min(PACKET_BUFFER_KIB);
                self.registers
                    .set(offset, receive | (PACKET_BUFFER_KIB - receive) << 16);
            }
            reg::RDTR => {
                self.registers.write(offset, value);
                if value & FLUSH != 0 {
                    self.irq.flush_receive();
                }
            }
            _ if statistics::contains(offset) => {}
            _ => self.registers.write(offset, value),
        }
    }

    fn write_ctrl(&mut self, now_ns: u64, value: u32) {
        if value & ctrl::PHY_RST != 0 {
            self.phy.reset(now_ns);
        }
        if value & ctrl::RST != 0 {
            self.reset();
        } else {
            self.registers.write(reg::CTRL, value);
        }
    }
}

/// Is this an access that the device defines: one aligned register, or two?
fn is_proper(offset: u32, len: usize) -> bool {
    offset.is_multiple_of(4) && (len == 4 || len == 8) && offset <= BAR0_LEN - len32(len)
}

/// The register behind an alias: CTRL_DUP, and the places of RA, MTA and VFTA in the 82542 (SDM chapter 13).
fn canonical(offset: u32) -> u32 {
    match offset {
        0x0004 => reg::CTRL,
        0x0040..=0x00BF => offset - 0x0040 + reg::RAL,
        0x0200..=0x03FF => offset - 0x0200 + reg::MTA,
        0x0600..=0x07FF => offset - 0x0600 + reg::VFTA,
        _ => offset,
    }
}

/// The packet buffer that PBA splits, in KiB.
const PACKET_BUFFER_KIB: u32 = 64;

/// RDTR.FPD: deliver the delayed receive cause now.
const FLUSH: u32 = 1 << 31;
