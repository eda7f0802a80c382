//! Save and restore: one plain struct, taken apart field by field so that nothing can be forgotten.

use alloc::vec::Vec;

use super::irq::{self, Delay, Interrupts};
use super::mdic::Phy;
use super::nvm::{ADDRESS_MASK, EECD_MASK, Nvm, Phase, Target};
use super::registers::RegisterFile;
use super::rx::Loopback;
use super::tx::Packet;
use super::{Em, Faults};
use crate::spec::descriptors::TxContext;
use crate::spec::registers::cause;

/// Everything that a device remembers. Times are relative to the moment of saving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmState {
    /// The register file, one word per 4 bytes of BAR0.
    pub registers: Vec<u32>,
    /// Interrupts.
    pub irq: IrqState,
    /// The transmitter.
    pub tx: TxState,
    /// Frames in loopback, oldest first.
    pub loopback: Vec<Vec<u8>>,
    /// The EEPROM.
    pub nvm: NvmState,
    /// The PHY.
    pub phy: PhyState,
    /// IOADDR.
    pub io_address: u32,
    /// PCI bus master.
    pub bus_master: bool,
    /// Fault counters.
    pub faults: Faults,
    /// What FRTIMER counts, in nanoseconds.
    pub timer_ns: u64,
}

/// State of the interrupt logic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrqState {
    /// ICR.
    pub causes: u32,
    /// IMS.
    pub mask: u32,
    /// ITR.
    pub interval: u32,
    /// The line.
    pub level: bool,
    /// How long ago the line last rose.
    pub since_rise_ns: Option<u64>,
    /// The delayed receive cause.
    pub receive: DelayState,
    /// The delayed transmit cause.
    pub transmit: DelayState,
}

/// State of a delayed cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayState {
    /// Until the packet timer ends.
    pub packet_in_ns: Option<u64>,
    /// Until the cap ends.
    pub cap_in_ns: Option<u64>,
}

/// State of the transmitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxState {
    /// The packet being collected.
    pub packet: Option<Packet>,
    /// Its bytes so far.
    pub bytes: Vec<u8>,
    /// The context for checksums, and the one for segmentation.
    pub contexts: [TxContext; 2],
}

/// State of the EEPROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvmState {
    /// The image.
    pub words: [u16; crate::spec::eeprom::WORDS],
    /// Writes were enabled.
    pub unlocked: bool,
    /// EECD's writable bits.
    pub wires: u32,
    /// EERD.
    pub eerd: u32,
    /// What the EEPROM is doing.
    pub phase: Phase,
    /// The data-out wire.
    pub data_out: bool,
}

/// State of the PHY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhyState {
    /// Its registers.
    pub registers: [u16; crate::spec::phy::REGISTERS],
    /// Is the other side of the wire up?
    pub cable: bool,
    /// Until auto-negotiation ends.
    pub negotiated_in_ns: Option<u64>,
    /// BMSR's link bit latched low.
    pub link_lost: bool,
}

impl Em {
    /// Everything the device remembers; deadlines become relative to `now_ns`.
    pub fn save(&self, now_ns: u64) -> EmState {
        // `receiver` is scratch memory only.
        let Self {
            registers,
            irq,
            transmitter,
            receiver: _,
            loopback,
            nvm,
            phy,
            io_address,
            bus_master,
            faults,
            timer_ahead_ns,
        } = self;
        let Nvm {
            words,
            policy: _, // the caller's choice, not the guest's doing
            unlocked,
            wires,
            eerd,
            phase,
            data_out,
        } = nvm;
        let Phy {
            registers: phy_registers,
            cable,
            negotiating_until_ns,
            link_lost,
        } = phy;
        EmState {
            registers: registers.words().to_vec(),
            irq: save_irq(irq, now_ns),
            tx: TxState {
                packet: transmitter.packet,
                bytes: transmitter.partial().to_vec(),
                contexts: transmitter.contexts,
            },
            loopback: loopback.frames.iter().cloned().collect(),
            nvm: NvmState {
                words: *words,
                unlocked: *unlocked,
                wires: *wires,
                eerd: *eerd,
                phase: *phase,
                data_out: *data_out,
            },
            phy: PhyState {
                registers: *phy_registers,
                cable: *cable,
                negotiated_in_ns: remaining(*negotiating_until_ns, now_ns),
                link_lost: *link_lost,
            },
            io_address: *io_address,
            bus_master: *bus_master,
            faults: *faults,
            timer_ns: now_ns.wrapping_add(*timer_ahead_ns),
        }
    }

    /// Continues from a saved state; the caller then looks at [`irq_level`](Self::irq_level),
    /// [`poll_timeout`](Self::poll_timeout), [`transmit_pending`](Self::transmit_pending) and
    /// [`can_receive`](Self::can_receive). A state that is not one of ours is bent to fit, never trusted.
    pub fn restore(&mut self, now_ns: u64, state: EmState) {
        let EmState {
            registers,
            irq,
            tx,
            loopback,
            nvm,
            phy,
            io_address,
            bus_master,
            faults,
            timer_ns,
        } = state;
        let TxState {
            packet,
            mut bytes,
            contexts,
        } = tx;
        let NvmState {
            words,
            unlocked,
            wires,
            eerd,
            phase,
            data_out,
        } = nvm;
        let PhyState {
            registers: phy_registers,
            cable,
            negotiated_in_ns,
            link_lost,
        } = phy;
        bytes.truncate(packet.map_or(0, |packet| packet.len_max()));
        self.registers = RegisterFile::from_words(&registers);
        self.irq = restore_irq(&irq, now_ns);
        self.transmitter.restore(packet, &bytes, contexts);
        self.loopback = Loopback::default();
        loopback.iter().for_each(|frame| self.loopback.push(frame));
        self.nvm = Nvm {
            words,
            policy: self.nvm.policy,
            unlocked,
            wires: wires & EECD_MASK,
            eerd,
            phase: sound_phase(phase),
            data_out,
        };
        self.phy = Phy {
            registers: phy_registers,
            cable,
            negotiating_until_ns: negotiated_in_ns.map(|rest| now_ns.saturating_add(rest)),
            link_lost,
        };
        (self.io_address, self.bus_master, self.faults) = (io_address, bus_master, faults);
        self.timer_ahead_ns = timer_ns.wrapping_sub(now_ns);
        self.show_link();
    }
}

fn save_irq(irq: &Interrupts, now_ns: u64) -> IrqState {
    let Interrupts {
        causes,
        mask,
        interval,
        level,
        rose_ns,
        receive,
        transmit,
    } = *irq;
    IrqState {
        causes,
        mask,
        interval,
        level,
        since_rise_ns: rose_ns.map(|rose| u64::try_from(irq::signed(now_ns).saturating_sub(rose)).unwrap_or(0)),
        receive: save_delay(receive, now_ns),
        transmit: save_delay(transmit, now_ns),
    }
}

fn restore_irq(state: &IrqState, now_ns: u64) -> Interrupts {
    let IrqState {
        causes,
        mask,
        interval,
        level,
        since_rise_ns,
        receive,
        transmit,
    } = *state;
    Interrupts {
        causes: causes & cause::ALL,
        mask: mask & cause::ALL,
        interval: interval & 0xFFFF,
        level: level && causes & mask & cause::ALL != 0,
        rose_ns: since_rise_ns.map(|since| irq::signed(now_ns).saturating_sub(irq::signed(since))),
        receive: restore_delay(receive, now_ns),
        transmit: restore_delay(transmit, now_ns),
    }
}

fn save_delay(delay: Delay, now_ns: u64) -> DelayState {
    let Delay { packet_ns, cap_ns } = delay;
    DelayState {
        packet_in_ns: remaining(packet_ns, now_ns),
        cap_in_ns: remaining(cap_ns, now_ns),
    }
}

fn restore_delay(state: DelayState, now_ns: u64) -> Delay {
    let DelayState {
        packet_in_ns,
        cap_in_ns,
    } = state;
    let at = |rest: Option<u64>| rest.map(|rest| now_ns.saturating_add(rest));
    Delay {
        packet_ns: at(packet_in_ns),
        cap_ns: at(cap_in_ns),
    }
}

fn remaining(deadline: Option<u64>, now_ns: u64) -> Option<u64> {
    deadline.map(|deadline| deadline.saturating_sub(now_ns))
}

/// A phase whose counts a running EEPROM can have.
fn sound_phase(phase: Phase) -> Phase {
    match phase {
        Phase::Command { bits, count } => Phase::Command {
            bits,
            count: count.min(crate::spec::eeprom::COMMAND_BITS - 1),
        },
        Phase::Data { word, left } => Phase::Data {
            word: word & ADDRESS_MASK,
            left: left.clamp(1, 16),
        },
        Phase::Program { target, value, left } => Phase::Program {
            target: match target {
                Target::Word(word) => Target::Word(word & ADDRESS_MASK),
                Target::All => Target::All,
            },
            value,
            left: left.min(16),
        },
        Phase::Ignored => Phase::Ignored,
    }
}
