//! The devices of one machine on their buses, and what an exit of a vCPU means to them.
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use guest_shim::abi::{PanicRecord, RECORD_LEN};
use guest_shim::port;
use vmm_sys_util::eventfd::EventFd;

use super::BootError;
use crate::detect::Trigger;
use crate::devices::bus::{MmioBus, PioBus, Shared};
use crate::devices::console::{ConsoleSink, ConsoleTail};
use crate::devices::fw_cfg::{FW_CFG_PORT, FW_CFG_PORTS, FwCfg, VmcoreinfoPlace};
use crate::devices::guest::{self, DevicesConfig};
use crate::devices::pci::{CONFIG_ADDRESS_PORT, CONFIG_DATA_PORT, PciRoot};
use crate::devices::posted::{Posted, PostedRing};
use crate::devices::power::{KEYBOARD_COMMAND_PORT, KEYBOARD_PORT, Keyboard, PM1A_EVENT_PORT, POWER_PORTS};
use crate::devices::power::{PowerManagement, RESET_PORT, ResetControl};
use crate::devices::pvpanic::{PVPANIC_PORT, Pvpanic};
use crate::devices::rtc::{RTC_PORT, RTC_PORTS, Rtc};
use crate::devices::serial::{SERIAL_PORT, SERIAL_PORTS, Serial};
use crate::devices::shim::Shim;
use crate::devices::worker::Workers;
use crate::devices::{Interrupts, Signal};
use crate::kvm::Exit;
use crate::memory::GuestMemory;

/// Everything that vCPUs talk to.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) pio: PioBus,
    pub(super) mmio: MmioBus,
    pci: Shared<PciRoot>,
    posted: Arc<Posted>,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) console_tail: ConsoleTail,
    shim: Shim,
    fw_cfg: FwCfg,
    /// CRASHLOADED was passed on. It does not hold its vCPU, so a guest could fill the queue of events with it.
    crash_loaded: AtomicBool,
}

/// What came of an exit, beyond the devices.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Happening {
    Trigger(Trigger),
    PoweredOff,
    Reset,
    Failed(String),
}

// linux/kvm.h, KVM_SYSTEM_EVENT_*.
const SYSTEM_EVENT_SHUTDOWN: u32 = 1;
const SYSTEM_EVENT_RESET: u32 = 2;
const SYSTEM_EVENT_CRASH: u32 = 3;

impl Machine {
    /// Builds the machine and the workers of its devices; `serial_irq` raises the serial port's interrupt line.
    pub(super) fn new(
        memory: Arc<GuestMemory>,
        console: Box<dyn Write + Send>,
        panic_console: bool,
        serial_irq: EventFd,
        devices: &DevicesConfig,
        interrupts: &Arc<dyn Interrupts>,
        posted: Arc<Posted>,
    ) -> Result<(Machine, Workers), BootError> {
        let console_tail = ConsoleTail::default();
        let sink = ConsoleSink::new(console, console_tail.clone(), panic_console);
        let shim = Shim::new(Arc::clone(&memory));
        let mut pci = PciRoot::new()?;
        pci.add(Arc::new(Mutex::new(Pvpanic::default())))?;
        pci.add(Arc::new(Mutex::new(shim.clone())))?;
        let workers = guest::attach(devices, &memory, &mut pci, interrupts, &posted)?;
        let pci = Arc::new(Mutex::new(pci));

        let mut pio = PioBus::default();
        let serial = Arc::new(Mutex::new(Serial::new(serial_irq, sink)));
        pio.add(SERIAL_PORT..SERIAL_PORT + SERIAL_PORTS, serial);
        pio.add(PVPANIC_PORT..PVPANIC_PORT + 1, Arc::new(Mutex::new(Pvpanic::default())));
        pio.add(
            port::IO_BASE..port::IO_BASE + port::REGISTERS_LEN,
            Arc::new(Mutex::new(shim.clone())),
        );
        pio.add(
            PM1A_EVENT_PORT..PM1A_EVENT_PORT + POWER_PORTS,
            Arc::new(Mutex::new(PowerManagement::default())),
        );
        let fw_cfg = FwCfg::new(Arc::clone(&memory));
        pio.add(
            FW_CFG_PORT..FW_CFG_PORT + FW_CFG_PORTS,
            Arc::new(Mutex::new(fw_cfg.clone())),
        );
        pio.add(RTC_PORT..RTC_PORT + RTC_PORTS, Arc::new(Mutex::new(Rtc::default())));
        // Before PCI, whose address register it overlaps with accesses of another width.
        pio.add(
            RESET_PORT..RESET_PORT + 1,
            Arc::new(Mutex::new(ResetControl::default())),
        );
        pio.add(KEYBOARD_PORT..KEYBOARD_COMMAND_PORT + 1, Arc::new(Mutex::new(Keyboard)));
        pio.add(
            CONFIG_ADDRESS_PORT..CONFIG_DATA_PORT + 4,
            Arc::new(Mutex::new(Arc::clone(&pci))),
        );
        pio.set_pci(pci.clone());
        let mut mmio = MmioBus::default();
        mmio.set_pci(Arc::clone(&pci));
        let machine = Machine {
            pio,
            mmio,
            pci,
            posted,
            memory,
            console_tail,
            shim,
            fw_cfg,
            crash_loaded: AtomicBool::new(false),
        };
        Ok((machine, workers))
    }

    /// From where posted writes come.
    pub(super) fn connect(&self, ring: Box<dyn PostedRing>) {
        self.posted.connect(ring, &self.pci);
    }

    /// Lets the devices do their part of an exit.
    pub(super) fn handle(&self, exit: Exit<'_>) -> Vec<Happening> {
        self.posted.catch_up();
        let signals = match exit {
            Exit::PortRead { port, size, data } => self.pio.read(port, size, data),
            Exit::PortWrite { port, size, data } => self.pio.write(port, size, data),
            Exit::MmioRead { gpa, data } => self.mmio.read(gpa, data),
            Exit::MmioWrite { gpa, data } => self.mmio.write(gpa, data),
            Exit::Interrupted => Vec::new(),
            Exit::Shutdown => return vec![Happening::Trigger(Trigger::TripleFault)],
            Exit::InternalError { suberror } => {
                return vec![Happening::Trigger(Trigger::InternalError { suberror })];
            }
            Exit::EntryFailed { reason } => return vec![Happening::Trigger(Trigger::EntryFailed { reason })],
            Exit::SystemEvent {
                kind: SYSTEM_EVENT_SHUTDOWN,
            } => return vec![Happening::PoweredOff],
            Exit::SystemEvent {
                kind: SYSTEM_EVENT_RESET,
            } => return vec![Happening::Reset],
            Exit::SystemEvent {
                kind: SYSTEM_EVENT_CRASH,
            } => {
                return vec![Happening::Trigger(Trigger::SystemEventCrash)];
            }
            Exit::SystemEvent { kind } => return vec![Happening::Failed(format!("system event {kind}"))],
            Exit::Other(what) => return vec![Happening::Failed(what)],
        };
        signals
            .into_iter()
            .filter_map(|signal| self.happening(signal))
            .collect()
    }

    /// The panic record, if the guest registered one and it is whole.
    pub(super) fn panic_record(&self) -> Option<PanicRecord> {
        let gpa = self.shim.record_gpa()?;
        let mut bytes = [0; RECORD_LEN];
        if let Err(error) = self.memory.read_at(gpa, &mut bytes) {
            tracing::warn!(%error, "the panic record cannot be read");
            return None;
        }
        PanicRecord::parse(&bytes)
            .inspect_err(|error| tracing::debug!(%error, gpa = format_args!("{gpa:#x}"), "no panic record"))
            .ok()
    }

    /// Where the guest said by fw_cfg that its VMCOREINFO lies.
    pub(super) fn vmcoreinfo_place(&self) -> Option<VmcoreinfoPlace> {
        self.fw_cfg.vmcoreinfo()
    }

    /// What a device's signal means to the guest's owner; nothing if it says again what needs saying once.
    fn happening(&self, signal: Signal) -> Option<Happening> {
        let trigger = match signal {
            Signal::PowerOff => return Some(Happening::PoweredOff),
            Signal::Reset => return Some(Happening::Reset),
            Signal::CrashLoaded if self.crash_loaded.swap(true, Ordering::Relaxed) => return None,
            Signal::CrashLoaded => Trigger::CrashLoaded,
            Signal::PanicLine(line) => Trigger::PanicConsole { line },
            Signal::Panicked => match self.panic_record() {
                Some(record) => Trigger::PanicRecord {
                    message: record.message.as_str().to_owned(),
                    crashed_cpu: record.crashed_cpu,
                },
                None => Trigger::Pvpanic,
            },
        };
        Some(Happening::Trigger(trigger))
    }
}

/// An event to raise an interrupt line with.
pub(super) fn irq_event() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::pci::intx::Recorder;

    #[test]
    fn a_guest_that_says_crashloaded_for_ever_is_heard_once() {
        let memory = Arc::new(GuestMemory::create(8).unwrap());
        let interrupts: Arc<dyn Interrupts> = Arc::new(Recorder::default());
        let devices = DevicesConfig::default();
        let (machine, mut workers) = Machine::new(
            memory,
            Box::new(io::sink()),
            false,
            irq_event().unwrap(),
            &devices,
            &interrupts,
            Arc::default(),
        )
        .unwrap();
        let write = |data: &mut [u8]| {
            machine.handle(Exit::PortWrite {
                port: PVPANIC_PORT,
                size: 1,
                data,
            })
        };
        assert_eq!(write(&mut [2, 2, 2]), [Happening::Trigger(Trigger::CrashLoaded)]);
        assert_eq!(write(&mut [2]), []);
        assert_eq!(write(&mut [1]), [Happening::Trigger(Trigger::Pvpanic)]);
        workers.stop(std::time::Duration::from_secs(5));
    }
}
