//! Virtio over PCI (4.1): the capabilities, the one BAR with all structures in it, reset and activation.
//!
//! | offset in BAR 0 | structure |
//! | --- | --- |
//! | 0x0000 | common configuration |
//! | 0x1000 | ISR |
//! | 0x2000 | device configuration |
//! | 0x3000 | notifications, four bytes per queue |
//! | 0x4000, 0x5000 | MSI-X table and pending bits |
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError, Weak};

use super::common::{COMMON_LEN, Common, Effect, STATUS_AT, status};
use super::device::{F_EVENT_IDX, F_INDIRECT, F_VERSION_1, Identity, VirtioDevice};
use super::interrupt::VirtioInterrupt;
use super::orders::{Order, Orders};
use super::queue::{Broken, QueueSetup, VirtQueue};
use crate::devices::bus::{Shared, lock};
use crate::devices::pci::intx::{IntxLines, STATUS_INTERRUPT};
use crate::devices::pci::msix::{CONTROL_OFFSET, MSIX_CAPABILITY, Msix};
use crate::devices::pci::{Bar, CONFIG_SPACE_LEN, Capability, FunctionConfig, PciFunction};
use crate::devices::worker::{After, Job, Waker};
use crate::devices::{Interrupts, IoOutcome, get, put};
use crate::memory::GuestMemory;

/// Vendor of all virtio functions (4.1.2).
const VENDOR: u16 = 0x1af4;
/// Device id of type 0 (4.1.2.1).
const DEVICE_BASE: u16 = 0x1040;
/// Vendor-specific capability (PCI Local Bus Specification 3.0, appendix H).
const VENDOR_CAPABILITY: u8 = 0x09;

const BAR_LEN: u64 = 0x8000;
const COMMON_AT: u32 = 0x0000;
const ISR_AT: u32 = 0x1000;
const DEVICE_AT: u32 = 0x2000;
const NOTIFY_AT: u32 = 0x3000;
const TABLE_AT: u32 = 0x4000;
const PENDING_AT: u32 = 0x5000;
/// Each structure has a page of its own.
const STRUCTURE_LEN: u64 = 0x1000;
/// Bytes from one queue's notification address to the next.
const NOTIFY_MULTIPLIER: u32 = 4;

/// Where the capabilities come to lie: MSI-X first, then those of virtio, the window last.
const MSIX_AT: usize = 0x40;
const WINDOW_AT: usize = 0x90;
/// Offsets in the window's capability (4.1.4.9).
const WINDOW_BAR: usize = WINDOW_AT + 4;
const WINDOW_OFFSET: usize = WINDOW_AT + 8;
const WINDOW_LEN: usize = WINDOW_AT + 12;
const WINDOW_DATA: usize = WINDOW_AT + 16;

/// Structure types (4.1.4).
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_ISR: u8 = 3;
const TYPE_DEVICE: u8 = 4;
const TYPE_WINDOW: u8 = 5;

/// Command register: the function may access memory.
const COMMAND_BUS_MASTER: u16 = 1 << 2;

/// A virtio device as a PCI function.
#[derive(Debug)]
pub struct VirtioPci {
    identity: Identity,
    common: Common,
    config: Vec<u8>,
    power_on_config: Vec<u8>,
    config_writable: std::ops::Range<usize>,
    queues: u16,
    interrupt: Arc<VirtioInterrupt>,
    flags: Arc<Flags>,
    /// The worker owns it, so that wires and disks close when it ends.
    backend: Weak<Mutex<Backend>>,
    waker: Waker,
    window: Window,
}

/// Where the window into the BAR stands (4.1.4.9).
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    bar: u8,
    offset: u32,
    len: u32,
}

/// What transport and worker tell each other without a lock.
#[derive(Debug, Default)]
struct Flags {
    bus_master: AtomicBool,
    needs_reset: AtomicBool,
    orders: Orders,
}

/// The device with its queues, as the worker has it.
pub(super) struct Backend {
    device: Box<dyn VirtioDevice>,
    queues: Vec<VirtQueue>,
    active: bool,
    memory: Arc<GuestMemory>,
    interrupt: Arc<VirtioInterrupt>,
    flags: Arc<Flags>,
}

/// The worker's side of a device; its owner.
#[derive(Debug)]
pub struct VirtioJob(Shared<Backend>);

impl VirtioPci {
    /// A device as a function, and the job that its worker does, woken by `waker`.
    ///
    /// # Errors
    /// [`Broken`] if the device's queue sizes are no powers of two: a bug.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        lines: &Arc<IntxLines>,
        messages: Arc<dyn Interrupts>,
        waker: Waker,
    ) -> Result<(VirtioPci, VirtioJob), Broken> {
        let sizes = device.queue_sizes();
        let queues = u16::try_from(sizes.len()).unwrap_or(0);
        let msix = Msix::new(messages, queues.saturating_add(1));
        let interrupt = Arc::new(VirtioInterrupt::new(lines.pin(), msix, sizes.len()));
        let flags = Arc::new(Flags::default());
        let make_queue = |(index, size): (u16, &u16)| VirtQueue::new(index, *size, Arc::clone(&interrupt));
        let virtqueues = (0..).zip(&sizes).map(make_queue).collect::<Result<Vec<_>, _>>()?;
        let offered = device.features() | F_VERSION_1 | F_INDIRECT | F_EVENT_IDX;
        let (identity, config) = (device.identity(), device.config());
        let config_writable = device.config_writable();
        let backend = Arc::new(Mutex::new(Backend {
            device,
            queues: virtqueues,
            active: false,
            memory,
            interrupt: Arc::clone(&interrupt),
            flags: Arc::clone(&flags),
        }));
        let function = VirtioPci {
            identity,
            common: Common::new(offered, &sizes),
            power_on_config: config.clone(),
            config,
            config_writable,
            queues,
            interrupt,
            flags,
            backend: Arc::downgrade(&backend),
            waker,
            window: Window::default(),
        };
        Ok((function, VirtioJob(backend)))
    }

    /// The line that the function's pin is wired to.
    pub fn connect(&self, gsi: u32) {
        self.interrupt.connect(gsi);
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Reset => self.reset(),
            Effect::Start => self.order(Order::Start(self.common.features())),
            Effect::Enable(index, setup) => {
                let event_idx = self.common.features() & F_EVENT_IDX != 0;
                self.order(Order::Enable {
                    index,
                    setup,
                    event_idx,
                });
            }
            Effect::ConfigVector(vector) => {
                self.interrupt.set_config_vector(vector);
            }
            Effect::QueueVector(index, vector) => {
                self.interrupt.set_queue_vector(index, vector);
            }
        }
    }

    /// Lets the worker follow an order: at once if it is idle, else after its present round. It is never waited for, because
    /// a vCPU that waits for a disk cannot be frozen.
    fn order(&self, order: Order) {
        let Some(backend) = self.backend.upgrade() else {
            // The worker has ended, so there is nobody who would touch anything.
            return;
        };
        self.flags.orders.give(order);
        match backend.try_lock() {
            Ok(mut idle) => idle.follow_orders(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().follow_orders(),
            Err(TryLockError::WouldBlock) => {}
        }
        self.waker.wake();
    }

    /// Everything as after power-on. Until the worker has followed, the status does not read as zero.
    fn reset(&mut self) {
        self.order(Order::Reset);
        self.config.clone_from(&self.power_on_config);
        self.interrupt.reset();
        self.common.reset();
    }

    fn read_common(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        let resetting = self.flags.orders.is_resetting();
        if resetting && (offset, data.len()) == (STATUS_AT, 1) {
            return put(data, status::NEEDS_RESET.into());
        }
        if !resetting && self.flags.needs_reset.load(Ordering::Acquire) {
            self.common.need_reset();
        }
        let vectors = self.interrupt.vectors(self.common.queue_select());
        match self.common.read(offset, data.len(), vectors) {
            Some(value) => put(data, value),
            None => IoOutcome::BadAccess("no common configuration field of that width"),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) -> IoOutcome {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (slot, byte) in data
            .iter_mut()
            .zip(self.config.iter().skip(from).chain(std::iter::repeat(&0)))
        {
            *slot = *byte;
        }
        IoOutcome::Done
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in (from..).zip(data) {
            if self.config_writable.contains(&index)
                && let Some(slot) = self.config.get_mut(index)
            {
                *slot = *byte;
            }
        }
        IoOutcome::Done
    }
}

/// Which structure of the BAR an offset falls into.
fn structure(offset: u64) -> (u32, u64) {
    let page = u32::try_from(offset / STRUCTURE_LEN * STRUCTURE_LEN).unwrap_or(u32::MAX);
    (page, offset % STRUCTURE_LEN)
}

/// The capability of a structure in BAR 0 (4.1.4).
fn capability(kind: u8, at: u32, len: u64, more: &[u8]) -> Capability {
    let len_of_all = u8::try_from(16 + more.len()).unwrap_or(u8::MAX);
    let mut body = vec![len_of_all, kind, 0, 0, 0, 0];
    body.extend(at.to_le_bytes());
    body.extend(u32::try_from(len).unwrap_or(0).to_le_bytes());
    body.extend(more);
    Capability {
        id: VENDOR_CAPABILITY,
        body,
        writable: Vec::new(),
    }
}

impl PciFunction for VirtioPci {
    fn config(&self) -> FunctionConfig {
        let vectors = self.queues.saturating_add(1);
        let (body, writable) = Msix::capability(vectors, 0, TABLE_AT, PENDING_AT);
        let msix = Capability {
            id: MSIX_CAPABILITY,
            body,
            writable,
        };
        let notify_len = u64::from(self.queues) * u64::from(NOTIFY_MULTIPLIER);
        let config_len = u64::try_from(self.config.len()).unwrap_or(0);
        let mut window = capability(TYPE_WINDOW, 0, 0, &[0; 4]);
        // Everything from the BAR's number on, but for the id and the padding.
        window.writable = vec![0, 0, 0xff, 0, 0, 0];
        window.writable.resize(window.body.len(), 0xff);
        FunctionConfig {
            vendor: VENDOR,
            device: DEVICE_BASE + self.identity.device_type,
            class: self.identity.class,
            revision: 1,
            subsystem_vendor: VENDOR,
            subsystem: 0x1100,
            bars: [Some(Bar::Memory { len_bytes: BAR_LEN }), None, None, None, None, None],
            capabilities: vec![
                msix,
                capability(TYPE_COMMON, COMMON_AT, COMMON_LEN, &[]),
                capability(TYPE_ISR, ISR_AT, 1, &[]),
                capability(TYPE_DEVICE, DEVICE_AT, config_len.max(4), &[]),
                capability(TYPE_NOTIFY, NOTIFY_AT, notify_len, &NOTIFY_MULTIPLIER.to_le_bytes()),
                window,
            ],
            interrupt_pin: true,
        }
    }

    fn bar_read(&mut self, _bar: usize, offset: u64, data: &mut [u8]) -> IoOutcome {
        match structure(offset) {
            (COMMON_AT, offset) => self.read_common(offset, data),
            (ISR_AT, 0) => put(data, self.interrupt.take_isr().into()),
            (DEVICE_AT, offset) => self.read_config(offset, data),
            (NOTIFY_AT, _) => put(data, 0),
            (TABLE_AT, offset) => self.interrupt.read_table(offset, data),
            (PENDING_AT, offset) => self.interrupt.read_pending(offset, data),
            _ => IoOutcome::BadAccess("no virtio structure there"),
        }
    }

    fn bar_write(&mut self, _bar: usize, offset: u64, data: &[u8]) -> IoOutcome {
        match structure(offset) {
            // A driver must wait for the end of a reset (4.1.4.3.2).
            (COMMON_AT, _) if self.flags.orders.is_resetting() => {}
            (COMMON_AT, offset) => match self.common.write(offset, data.len(), get(data)) {
                Some(effect) => self.apply(effect),
                None => return IoOutcome::BadAccess("no common configuration field of that width"),
            },
            (DEVICE_AT, offset) => return self.write_config(offset, data),
            (NOTIFY_AT, _) => self.waker.wake(),
            (TABLE_AT, offset) => return self.interrupt.write_table(offset, data),
            _ => return IoOutcome::BadAccess("no writable virtio structure there"),
        }
        IoOutcome::Done
    }

    fn config_written(&mut self, offset: usize, space: &[u8; CONFIG_SPACE_LEN]) -> IoOutcome {
        let command = u16::from_le_bytes([space[4], space[5]]);
        let control = u16::from_le_bytes([space[MSIX_AT + CONTROL_OFFSET], space[MSIX_AT + CONTROL_OFFSET + 1]]);
        self.interrupt.set_config_space(command, control);
        let master = command & COMMAND_BUS_MASTER != 0;
        if !self.flags.bus_master.swap(master, Ordering::AcqRel) && master {
            self.waker.wake();
        }
        let word = |at: usize| u32::from_le_bytes([space[at], space[at + 1], space[at + 2], space[at + 3]]);
        self.window = Window {
            bar: space[WINDOW_BAR],
            offset: word(WINDOW_OFFSET),
            len: word(WINDOW_LEN),
        };
        if (WINDOW_DATA..WINDOW_DATA + 4).contains(&offset)
            && let Some((offset, len)) = self.window.place()
        {
            let data = word(WINDOW_DATA).to_le_bytes();
            return self.bar_write(0, offset, data.get(..len).unwrap_or_default());
        }
        IoOutcome::Done
    }

    fn config_read(&mut self, offset: usize, data: &mut [u8; 4]) {
        if offset == 4 && self.interrupt.is_line_wanted() {
            data[2] |= STATUS_INTERRUPT.to_le_bytes()[0];
        }
        if offset == WINDOW_DATA
            && let Some((offset, len)) = self.window.place()
        {
            let mut bytes = [0; 4];
            if let Some(wanted) = bytes.get_mut(..len)
                && self.bar_read(0, offset, wanted) == IoOutcome::Done
            {
                *data = bytes;
            }
        }
    }
}

impl Window {
    /// Where in the BAR an access through the window goes: aligned, 1, 2 or 4 bytes.
    fn place(self) -> Option<(u64, usize)> {
        let proper = matches!(self.len, 1 | 2 | 4) && self.offset.is_multiple_of(self.len) && self.bar == 0;
        let len = usize::try_from(self.len).ok()?;
        (proper && u64::from(self.offset) < BAR_LEN).then_some((u64::from(self.offset), len))
    }
}

impl Backend {
    /// Does what the driver has ordered since the last time.
    fn follow_orders(&mut self) {
        while let Some(order) = self.flags.orders.take() {
            match order {
                Order::Reset => self.reset(),
                Order::Start(features) => {
                    self.device.start(features);
                    self.active = true;
                }
                Order::Enable {
                    index,
                    setup,
                    event_idx,
                } => self.enable(index, &setup, event_idx),
            }
        }
    }

    fn enable(&mut self, index: u16, setup: &QueueSetup, event_idx: bool) {
        let Some(queue) = self.queues.get_mut(usize::from(index)) else {
            return;
        };
        if let Err(broken) = queue.start(self.memory.ram(), setup, event_idx) {
            tracing::debug!(device = self.device.identity().device_type, %broken, "not set up");
            self.flags.needs_reset.store(true, Ordering::Release);
        }
    }

    fn reset(&mut self) {
        self.active = false;
        self.device.reset();
        for queue in &mut self.queues {
            queue.reset();
        }
        // What the last round raised after the driver's order is nothing to it.
        self.interrupt.reset();
        self.flags.needs_reset.store(false, Ordering::Release);
        self.flags.orders.reset_is_done();
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("device", &self.device.identity())
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl Job for VirtioJob {
    fn round(&mut self) -> After {
        let mut backend = lock(&self.0);
        backend.follow_orders();
        let Backend {
            device,
            queues,
            active,
            memory,
            interrupt,
            flags,
        } = &mut *backend;
        if !*active || !flags.bus_master.load(Ordering::Acquire) {
            return After::KICK;
        }
        match device.work(queues, memory) {
            Ok(after) => after,
            Err(broken) => {
                tracing::warn!(device = device.identity().device_type, %broken, "the guest broke a virtio device; it needs a reset");
                *active = false;
                flags.needs_reset.store(true, Ordering::Release);
                interrupt.config_changed();
                After::KICK
            }
        }
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        lock(&self.0).device.descriptor()
    }
}
