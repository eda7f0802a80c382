//! The device: [`Em`], a pure state machine.
//!
//! - `dispatch`: one access in, the right part called
//! - `registers`: the register file, filled from the table of [`crate::spec::registers`]
//! - `tx`, `send`, `offload`: the transmit ring; what leaves it; checksums and segmentation as functions on bytes
//! - `rx`, `filter`, `verify`: the receive ring; which frames are for us; whether their checksums are right
//! - `irq`: causes, mask, moderation; `stats`: counters; `nvm`: EEPROM; `mdic`: PHY; `ring`: checked index math
//! - `state`: save and restore; `snapshot`: what is saved as bytes

mod dispatch;
mod effects;
mod filter;
mod irq;
mod mdic;
mod nvm;
mod offload;
mod registers;
mod ring;
mod rx;
mod send;
mod snapshot;
mod state;
mod stats;
mod tx;
mod verify;

pub use effects::{
    Actions, ChecksumOffload, Dma, DmaError, FrameSink, Offload, Offloads, Segmentation, SegmentationKind, TxFrame,
};
pub use nvm::{EepromWrites, Phase as EepromPhase, Target as EepromTarget};
pub use snapshot::{STATE_VERSION, StateError};
pub use state::{DelayState, EmState, IrqState, NvmState, PhyState, TxState};
pub use tx::Packet as TxPacket;

use crate::spec::registers::{self as reg, cause, rctl, status, tctl};
use irq::Interrupts;
use mdic::Phy;
use nvm::Nvm;
use registers::RegisterFile;
use ring::Ring;
use rx::{Loopback, Outcome, Receiver};
use tx::{Exit, Transmitter};

/// What a device is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmConfig {
    /// Station address; must be unicast and not zero, or drivers refuse it.
    pub mac: [u8; 6],
    /// What a guest's writes to the EEPROM do.
    pub eeprom_writes: EepromWrites,
}

impl EmConfig {
    /// A device with this address, whose EEPROM a guest cannot change.
    pub const fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            eeprom_writes: EepromWrites::Ignored,
        }
    }
}

/// The device. Times are nanoseconds of one monotonic clock of the caller's.
#[derive(Debug)]
pub struct Em {
    registers: RegisterFile,
    irq: Interrupts,
    transmitter: Transmitter,
    receiver: Receiver,
    loopback: Loopback,
    nvm: Nvm,
    phy: Phy,
    io_address: u32,
    bus_master: bool,
    faults: Faults,
    /// FRTIMER is this much ahead of the caller's clock, modulo 2^64.
    timer_ahead_ns: u64,
}

/// What went wrong by the guest's doing; for a log line or a metric, never for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Register accesses that were not aligned and 4 or 8 bytes long.
    pub accesses: u64,
    /// Memory accesses that failed.
    pub dma: u64,
    /// Outgoing packets that were dropped: too short, too long, unreadable, or with offsets outside their header.
    pub tx_dropped: u64,
}

impl Em {
    /// A device after power-on: link up, bus master off.
    pub fn new(config: EmConfig) -> Self {
        let mut em = Self {
            registers: RegisterFile::new(),
            irq: Interrupts::default(),
            transmitter: Transmitter::new(),
            receiver: Receiver::new(),
            loopback: Loopback::default(),
            nvm: Nvm::new(config),
            phy: Phy::new(),
            io_address: 0,
            bus_master: false,
            faults: Faults::default(),
            timer_ahead_ns: 0,
        };
        em.load_station_address();
        em
    }

    /// A reset of the PCI bus: everything as after power-on, but the wire's link, and the fault counters, stay.
    pub fn bus_reset(&mut self) {
        let cable = self.phy.cable;
        self.phy = Phy::new();
        self.phy.cable = cable;
        self.registers = RegisterFile::new();
        self.io_address = 0;
        self.bus_master = false;
        self.reset();
    }

    /// Sends what waits in the transmit ring; returns how many descriptors were taken. A bounded amount per call: while
    /// [`transmit_pending`](Self::transmit_pending), call again. Without link, frames are taken and lost.
    pub fn transmit(&mut self, now_ns: u64, dma: &mut dyn Dma, sink: &mut dyn FrameSink) -> usize {
        let Some(ring) = self.transmit_ring() else { return 0 };
        let looped = self.is_looped();
        let exit = if looped {
            Exit::Loopback(&mut self.loopback)
        } else if self.phy.link() {
            let offloads = sink.offloads();
            Exit::Sink(sink, offloads)
        } else {
            Exit::Nowhere
        };
        let mut path = tx::Path {
            registers: &mut self.registers,
            irq: &mut self.irq,
            faults: &mut self.faults,
            now_ns,
            dma: &mut *dma,
            exit,
        };
        let taken = self.transmitter.run(&mut path, ring);
        self.irq.evaluate(now_ns);
        if looped {
            self.receive(now_ns, dma, &[]);
        }
        taken
    }

    /// Is there anything that [`transmit`](Self::transmit) would do?
    pub fn transmit_pending(&self) -> bool {
        self.transmit_ring().is_some()
    }

    /// Offers frames, without CRC, of any length. Returns how many of them, from the first on, the device is done with:
    /// stored, or not for us. For the rest there are no buffers now: offer them again after [`Actions::receive`], or
    /// drop them and say so with [`missed`](Self::missed).
    pub fn receive(&mut self, now_ns: u64, dma: &mut dyn Dma, frames: &[&[u8]]) -> usize {
        let Some(mut ring) = self.receive_ring() else { return 0 };
        let looped = self.is_looped();
        let ready = self.can_receive();
        let mut path = rx::Path {
            registers: &mut self.registers,
            irq: &mut self.irq,
            faults: &mut self.faults,
            now_ns,
            dma,
        };
        let (mut done, mut stored) = (0, false);
        while let Some(frame) = self.loopback.frames.front().filter(|_| looped) {
            match self.receiver.deliver(&mut path, &mut ring, frame) {
                Outcome::NoRoom => break,
                outcome => stored |= outcome == Outcome::Stored,
            }
            self.loopback.pop();
        }
        for frame in frames.iter().filter(|_| ready) {
            match self.receiver.deliver(&mut path, &mut ring, frame) {
                Outcome::NoRoom => break,
                outcome => stored |= outcome == Outcome::Stored,
            }
            done += 1;
        }
        path.registers.set(reg::RDH, ring.head);
        if stored {
            rx::after_batch(&mut path, &ring);
        }
        self.irq.evaluate(now_ns);
        done
    }

    /// Would [`receive`](Self::receive) look at a frame now?
    pub fn can_receive(&self) -> bool {
        self.phy.link() && !self.is_looped() && self.receive_ring().is_some()
    }

    /// Is the receiver on, with all of its buffers full?
    pub fn lacks_buffers(&self) -> bool {
        let on = self.bus_master && self.registers.has(reg::RCTL, rctl::EN);
        on && Ring::receive(&self.registers).is_some_and(|ring| ring.available() == 0)
    }

    /// Do looped frames wait for which there are buffers? Offering no frames at all to [`receive`](Self::receive) brings them in.
    pub fn loopback_pending(&self) -> bool {
        self.is_looped() && !self.loopback.frames.is_empty() && self.receive_ring().is_some()
    }

    /// The caller dropped frames because the device could not take them: counted and reported as an overrun.
    pub fn missed(&mut self, now_ns: u64, frames: u32) {
        if frames > 0 && self.registers.has(reg::RCTL, rctl::EN) {
            rx::count_missed(&mut self.registers, &mut self.irq, frames);
            self.irq.evaluate(now_ns);
        }
    }

    /// The level of INTA#: true is asserted. The PCI command register's INTx disable is the caller's.
    pub fn irq_level(&self) -> bool {
        self.irq.level
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<u64> {
        irq::earliest(self.irq.deadline(), self.phy.negotiating_until_ns)
    }

    /// Does what is due at `now_ns`; early calls are harmless.
    pub fn handle_timeout(&mut self, now_ns: u64) -> Actions {
        self.watch(now_ns, |em| {
            em.phy.handle_timeout(now_ns);
            em.irq.handle_timeout(now_ns);
        })
    }

    /// The wire's link went up or down. Link up is the state after power-on.
    pub fn set_link(&mut self, now_ns: u64, up: bool) -> Actions {
        self.watch(now_ns, |em| em.phy.set_cable(up))
    }

    /// PCI command register bit 2: without it there is no DMA, so nothing is sent or received. Off after power-on.
    pub fn set_bus_master(&mut self, on: bool) -> Actions {
        self.bus_master = on;
        Actions {
            transmit: self.transmit_pending(),
            receive: self.wants_frames(),
            irq_changed: false,
        }
    }

    /// The EEPROM's contents: what a caller keeps if the guest may write.
    pub fn eeprom(&self) -> &[u16; crate::spec::eeprom::WORDS] {
        &self.nvm.words
    }

    /// The station address in the EEPROM.
    pub fn mac(&self) -> [u8; 6] {
        self.nvm.mac()
    }

    /// What went wrong so far by the guest's doing.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// CTRL.RST: everything but PCI, PBA, PHY, EEPROM contents and IOADDR.
    fn reset(&mut self) {
        self.registers.reset();
        self.irq = Interrupts::default();
        self.transmitter.reset();
        self.loopback = Loopback::default();
        self.nvm.reset();
        self.load_station_address();
        self.show_link();
    }

    /// Loads RAR0 from the EEPROM.
    fn load_station_address(&mut self) {
        let [a, b, c, d, e, f] = self.nvm.mac();
        self.registers.set(reg::RAL, u32::from_le_bytes([a, b, c, d]));
        self.registers
            .set(reg::RAH, u32::from_le_bytes([e, f, 0, 0]) | reg::RAH_AV);
    }

    /// Makes STATUS.LU follow the PHY; true if it changed.
    fn show_link(&mut self) -> bool {
        let before = self.registers.get(reg::STATUS);
        let after = if self.phy.link() {
            before | status::LU
        } else {
            before & !status::LU
        };
        self.registers.set(reg::STATUS, after);
        before != after
    }

    /// Runs `change`, then everything that any change may entail; says what the caller should do about it.
    fn watch(&mut self, now_ns: u64, change: impl FnOnce(&mut Self)) -> Actions {
        let level = self.irq.level;
        let (sending, receiving) = (self.transmit_pending(), self.wants_frames());
        change(self);
        if self.show_link() {
            self.irq.raise(cause::LSC);
        }
        self.irq.evaluate(now_ns);
        Actions {
            transmit: self.transmit_pending() && !sending,
            receive: self.wants_frames() && !receiving,
            irq_changed: self.irq.level != level,
        }
    }

    /// Could [`receive`](Self::receive) make progress if there were a frame?
    fn wants_frames(&self) -> bool {
        self.can_receive() || (!self.loopback.frames.is_empty() && self.receive_ring().is_some())
    }

    /// Do outgoing frames come back?
    fn is_looped(&self) -> bool {
        self.registers.has(reg::RCTL, rctl::LBM) || self.phy.loopback()
    }

    /// The transmit ring while it may be worked on and is not empty.
    fn transmit_ring(&self) -> Option<Ring> {
        let on = self.bus_master && self.registers.has(reg::TCTL, tctl::EN);
        Ring::transmit(&self.registers).filter(|ring| on && ring.available() > 0)
    }

    /// The receive ring while it may be worked on and is not empty.
    fn receive_ring(&self) -> Option<Ring> {
        let on = self.bus_master && self.registers.has(reg::RCTL, rctl::EN);
        Ring::receive(&self.registers).filter(|ring| on && ring.available() > 0)
    }
}
