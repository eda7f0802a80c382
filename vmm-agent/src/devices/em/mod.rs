//! The guest's em (Intel 82540EM) as a PCI function: registers from `nic_emu`, memory through the guest's RAM, frames
//! through a wire.
//!
//! ```text
//!  vCPU: register access ──► EmFunction (lock) ──kick──► worker: ring ──► outbox │ wire ──► network
//!                                       ▲                        (lock)  │ (no lock)
//!                                       └── frames, timers ◄─────────────┴────────── network
//! ```
//!
//! A vCPU that writes the tail register only kicks the worker. The wire is the worker's alone, and the function's lock is
//! never held while the wire works: a network that is slow costs frames, not a vCPU's time.
mod job;
mod link;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nic_emu::device::{Actions, Dma, DmaError, Em, EmConfig};
use nic_emu::spec::registers as reg;

pub use job::EmJob;
pub use link::LinkJob;

use super::bus::Shared;
use super::pci::intx::{IntxPin, STATUS_INTERRUPT};
use super::pci::{Bar, CONFIG_SPACE_LEN, FunctionConfig, PciFunction};
use super::posted::Posted;
use super::worker::Waker;
use super::{IoOutcome, put};
use crate::memory::{Bytes, GuestAddress, GuestMemory};
use crate::net::Wire;

/// Intel 82540EM (82540EM SDM, 4.1).
const VENDOR: u16 = 0x8086;
const DEVICE: u16 = 0x100e;
/// "PRO/1000 MT Desktop"; the EEPROM names the same subsystem.
const SUBSYSTEM: u16 = 0x001e;
const REVISION: u8 = 2;
/// Registers, and the I/O BAR with IOADDR and IODATA, as long as other emulations make it; drivers look for the first BAR
/// in I/O space.
const REGISTERS_BAR: usize = 0;
const REGISTERS_LEN: u64 = 128 << 10;
const IO_LEN: u64 = 64;

/// Command register: the function answers in memory space, and may access memory (PCI 3.0, 6.2.2).
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;

/// Registers whose writes may wait until the device is looked at: nobody sees their effect before. RDT gives buffers, which are
/// looked for when a frame comes; ITR spaces later interrupts; the rest are tables of filters. TDT is a doorbell and the masks decide
/// whether the line rises, so these stop the vCPU.
const POSTED: [Range<u32>; 4] = [
    reg::ITR..reg::ITR + 4,
    reg::RDT..reg::RDT + 4,
    // Up to the 16 receive addresses, which follow the 128 words of the multicast table.
    reg::MTA..reg::RAL + 16 * 8,
    reg::VFTA..reg::VFTA + 128 * 4,
];

/// The em as a PCI function.
pub struct EmFunction {
    em: Em,
    ram: RamDma,
    pin: IntxPin,
    waker: Waker,
    started: Instant,
    worker: Worker,
    posted: Arc<Posted>,
    /// Where the registers are while their writes wait.
    posted_at: Option<u64>,
}

/// What the worker does. A worker that is at work looks at everything before it waits, so it is not woken: a guest that sends a
/// thousand frames meanwhile costs no call.
#[derive(Clone, Copy, Debug)]
enum Worker {
    /// It is in a round, or about to be; whether the guest gave buffers meanwhile.
    Busy { buffers: bool },
    /// It waits until then at the longest; whether it waits for buffers, too.
    Waits { until_ns: Option<u64>, for_buffers: bool },
}

/// Memory as the device sees it: RAM, and nothing else.
#[derive(Debug)]
struct RamDma(Arc<GuestMemory>);

impl EmFunction {
    /// An em as `config` says on `wire`, as a function, and the job that its worker does, woken by `waker`.
    #[must_use]
    pub fn new(
        wire: Box<dyn Wire>,
        config: EmConfig,
        memory: Arc<GuestMemory>,
        pin: IntxPin,
        waker: Waker,
        posted: Arc<Posted>,
    ) -> (Shared<EmFunction>, EmJob) {
        let function = Arc::new(Mutex::new(EmFunction {
            em: Em::new(config),
            ram: RamDma(memory),
            pin,
            waker,
            started: Instant::now(),
            // Its first round comes at once.
            worker: Worker::Busy { buffers: false },
            posted: Arc::clone(&posted),
            posted_at: None,
        }));
        let job = EmJob::new(Arc::clone(&function), wire, posted);
        (function, job)
    }

    /// The line that the function's pin is wired to.
    pub fn connect(&mut self, gsi: u32) {
        self.pin.connect(gsi);
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Does what an access or an event entails; what takes time is the worker's.
    fn act(&mut self, actions: Actions) {
        self.pin.set(self.em.irq_level());
        match &mut self.worker {
            Worker::Busy { buffers } => *buffers |= actions.receive,
            Worker::Waits { until_ns, for_buffers } => {
                let deadline = self.em.poll_timeout();
                let sooner = deadline.is_some_and(|due| until_ns.is_none_or(|until| due < until));
                let buffers = actions.receive && (*for_buffers || self.em.loopback_pending());
                if actions.transmit || buffers || sooner {
                    self.worker = Worker::Busy { buffers: false };
                    self.waker.wake();
                }
            }
        }
    }

    /// The registers answer here now, or nowhere.
    fn post_writes(&mut self, registers_gpa: Option<u64>) {
        let zones = |base: u64| POSTED.map(|zone| base + u64::from(zone.start)..base + u64::from(zone.end));
        if registers_gpa != self.posted_at {
            if let Some(before) = self.posted_at.take() {
                self.posted.set(zones(before), false);
            }
            self.posted_at = registers_gpa.filter(|base| self.posted.set(zones(*base), true));
        }
    }

    /// The guest may give buffers and nobody hears of it: somebody has to look.
    fn buffers_may_come_unheard(&self) -> bool {
        self.posted_at.is_some() && self.em.lacks_buffers()
    }

    /// The worker looks at everything from now on.
    fn begin_round(&mut self) {
        self.worker = Worker::Busy { buffers: false };
    }

    /// The worker would wait now, for buffers or not, and holds frames that need some or not. Returns until when, at the longest;
    /// nothing if there is still something to do.
    fn end_round(&mut self, for_buffers: bool, holds_frames: bool) -> Option<Option<u64>> {
        let gave_buffers = matches!(self.worker, Worker::Busy { buffers: true });
        if self.em.transmit_pending() || (gave_buffers && (holds_frames || self.em.loopback_pending())) {
            return None;
        }
        let until_ns = self.em.poll_timeout();
        self.worker = Worker::Waits { until_ns, for_buffers };
        Some(until_ns)
    }
}

impl PciFunction for EmFunction {
    fn config(&self) -> FunctionConfig {
        FunctionConfig {
            vendor: VENDOR,
            device: DEVICE,
            // Network controller, Ethernet.
            class: 0x02_00_00,
            revision: REVISION,
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM,
            bars: [
                Some(Bar::Memory {
                    len_bytes: REGISTERS_LEN,
                }),
                Some(Bar::Io { len_bytes: IO_LEN }),
                None,
                None,
                None,
                None,
            ],
            interrupt_pin: true,
            ..FunctionConfig::default()
        }
    }

    fn bar_read(&mut self, bar: usize, offset: u64, data: &mut [u8]) -> IoOutcome {
        let Ok(offset) = u32::try_from(offset) else {
            return put(data, 0);
        };
        let now_ns = self.now_ns();
        let actions = if bar == REGISTERS_BAR {
            self.em.mmio_read(now_ns, offset, data)
        } else {
            self.em.io_read(now_ns, offset, data)
        };
        self.act(actions);
        IoOutcome::Done
    }

    fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]) -> IoOutcome {
        let Ok(offset) = u32::try_from(offset) else {
            return IoOutcome::Done;
        };
        let now_ns = self.now_ns();
        let actions = if bar == REGISTERS_BAR {
            self.em.mmio_write(now_ns, offset, data)
        } else {
            self.em.io_write(now_ns, offset, data)
        };
        self.act(actions);
        IoOutcome::Done
    }

    fn config_written(&mut self, _offset: usize, space: &[u8; CONFIG_SPACE_LEN]) -> IoOutcome {
        let command = u16::from_le_bytes([space[4], space[5]]);
        self.pin.set_command(command);
        let base = u32::from_le_bytes([space[0x10], space[0x11], space[0x12], space[0x13]]) & !0xf;
        self.post_writes((command & COMMAND_MEMORY != 0).then_some(base.into()));
        let actions = self.em.set_bus_master(command & COMMAND_BUS_MASTER != 0);
        self.act(actions);
        IoOutcome::Done
    }

    fn config_read(&mut self, offset: usize, data: &mut [u8; 4]) {
        if offset == 4 && self.pin.is_wanted() {
            data[2] |= STATUS_INTERRUPT.to_le_bytes()[0];
        }
    }
}

impl Dma for RamDma {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        let len_bytes = buf.len();
        let read = self.0.ram().read_slice(buf, GuestAddress(gpa));
        read.map_err(|_| DmaError { gpa, len_bytes })
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), DmaError> {
        let len_bytes = bytes.len();
        let written = self.0.ram().write_slice(bytes, GuestAddress(gpa));
        written.map_err(|_| DmaError { gpa, len_bytes })
    }
}

impl fmt::Debug for EmFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmFunction")
            .field("mac", &self.em.mac())
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}
