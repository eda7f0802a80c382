//! One life of a guest: its memory, devices and vCPUs, from boot to stop. A restart makes a new one.
//!
//! ```text
//!            boot            freeze, pause                    stop
//!   nothing ─────► running ◄───────────────► standing still ──────► nothing
//!                    │       thaw, resume         ▲
//!                    └── a vCPU reported ─────────┘  (that vCPU waits, the others run on until the freeze)
//! ```
mod collect;
mod console;
mod control;
mod machine;
mod vcpu_thread;

use std::fmt;
use std::io::{self, Write};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use guest_shim::abi::PanicRecord;
use vmcore::elf::TextMapping;

use crate::boot::{self, BootParts, KernelError, KernelImage};
use crate::detect::Trigger;
use crate::devices::Interrupts;
use crate::devices::fw_cfg::VmcoreinfoPlace;
use crate::devices::guest::{DeviceError, DevicesConfig};
use crate::devices::pci::PciError;
use crate::devices::posted::Posted;
use crate::devices::serial::SERIAL_IRQ;
use crate::devices::worker::Workers;
use crate::freeze::{FrozenState, PauseError};
use crate::kernel::LoadedKernel;
use crate::kvm::{Clock, KvmError, System, Vm};
use crate::limits::{DEVICE_STOP_TIMEOUT, VCPUS_MAX};
use crate::memory::{self, GuestMemory, MemoryError};
use collect::Collected;
use console::Drain;
use control::Control;
use machine::Machine;
use vcpu_thread::VcpuThread;

/// What a guest is made of.
pub struct IncarnationConfig {
    /// The kernel: a Linux bzImage, a PVH kernel, or a plain ELF64 executable.
    pub kernel: KernelImage,
    /// Its initial RAM disk.
    pub initrd: Option<KernelImage>,
    /// Its command line.
    pub append: String,
    /// Memory in MiB.
    pub mem_mib: u64,
    /// Number of vCPUs, from 1 to [`VCPUS_MAX`].
    pub vcpus: u8,
    /// Its network devices and disks.
    pub devices: DevicesConfig,
    /// Where serial output goes.
    pub console: Box<dyn Write + Send>,
    /// Whether a panic line on the serial console is a trigger.
    pub panic_console: bool,
}

/// News from a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmEvent {
    /// A sign of a crash. If [`Trigger::holds_vcpu`], the vCPU that reported it waits for [`Incarnation::thaw`]
    /// or [`Incarnation::stop`]; the others run on until the guest is frozen.
    Trigger(Trigger),
    /// The guest powered off; all vCPUs have stopped for good.
    PoweredOff,
    /// The guest reset itself; all vCPUs have stopped for good.
    Reset,
    /// A vCPU stopped for a reason that this program does not know; it waits.
    VcpuFailed {
        /// Which one.
        vcpu: u8,
        /// What KVM said.
        what: String,
    },
}

/// A guest could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Too few or too many vCPUs.
    #[error("{vcpus} vCPUs: must be from 1 to {max}, which is what this program and this host's KVM can do")]
    Vcpus {
        /// What was asked for.
        vcpus: u8,
        /// The bound.
        max: usize,
    },
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The PCI bus.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// A network device or disk.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The host had no thread or event left.
    #[error("cannot make a {what}")]
    Resource {
        /// What.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A guest that was started.
#[derive(Debug)]
pub struct Incarnation {
    control: Arc<Control>,
    machine: Arc<Machine>,
    vm: Vm,
    threads: Vec<JoinHandle<()>>,
    clock_at_freeze: Mutex<Option<Clock>>,
    identity_mapped: bool,
    kernel: Option<LoadedKernel>,
    drain: Drain,
    workers: Workers,
}

impl Incarnation {
    /// Makes a guest and starts it. News comes through `events`.
    ///
    /// # Errors
    /// [`BootError`]: its text and its sources say what to do.
    pub fn boot(config: IncarnationConfig, events: Sender<VmEvent>) -> Result<Incarnation, BootError> {
        let system = System::open()?;
        let max = system.vcpus_max().min(usize::from(VCPUS_MAX));
        if config.vcpus == 0 || usize::from(config.vcpus) > max {
            return Err(BootError::Vcpus {
                vcpus: config.vcpus,
                max,
            });
        }
        memory::deny_core_dumps()?;
        let memory = Arc::new(GuestMemory::create(config.mem_mib)?);
        let initrd = config.initrd.as_ref().map(KernelImage::bytes).transpose()?;
        let kernel = config.kernel.load()?;
        let parts = BootParts {
            kernel: &kernel.bytes,
            initrd: initrd.as_deref(),
            command_line: &config.append,
            vcpus: config.vcpus,
        };
        let boot = boot::load(&memory, parts)?;
        let vm = Vm::create(system, Arc::clone(&memory))?;
        let resource = |what| move |source| BootError::Resource { what, source };
        let serial_irq = machine::irq_event().map_err(resource("event"))?;
        vm.connect_irq(&serial_irq, SERIAL_IRQ)?;
        let (console, drain) = console::queued(config.console).map_err(resource("thread"))?;
        let interrupts: Arc<dyn Interrupts> = Arc::new(vm.interrupts());
        let (machine, workers) = Machine::new(
            memory,
            Box::new(console),
            config.panic_console,
            serial_irq,
            &config.devices,
            &interrupts,
            Arc::new(Posted::new(Arc::new(vm.zones()))),
        )?;
        let machine = Arc::new(machine);
        let control = Arc::new(Control::new(config.vcpus));

        let mut vcpus = Vec::new();
        for (index, start) in (0..).zip(&boot.starts) {
            let vcpu = vm.create_vcpu(index, config.vcpus)?;
            vcpu.start(start)?;
            vcpus.push(vcpu);
        }
        match vcpus.first().map(|vcpu| vm.posted_ring(vcpu)) {
            Some(Ok(ring)) => machine.connect(ring),
            Some(Err(error)) => tracing::debug!(%error, "every write of a register stops its vCPU"),
            None => {}
        }
        let mut incarnation = Incarnation {
            control,
            machine,
            vm,
            threads: Vec::new(),
            clock_at_freeze: Mutex::new(None),
            identity_mapped: boot.identity_mapped,
            kernel: Some(kernel),
            drain,
            workers,
        };
        let thread = VcpuThread {
            control: Arc::clone(&incarnation.control),
            machine: Arc::clone(&incarnation.machine),
            events,
        };
        for vcpu in vcpus {
            let thread = thread.clone();
            let handle = thread::Builder::new()
                .name(format!("vcpu{}", vcpu.index()))
                .spawn(move || thread.run(vcpu))
                .map_err(resource("thread"))?;
            incarnation.threads.push(handle);
        }
        Ok(incarnation)
    }

    /// Stops all vCPUs in a clean state and reads their registers. Freezing a frozen guest gives the same again.
    ///
    /// Takes a bounded time and never fails: what does not stop is told in [`FrozenState::troubles`], because a core with one
    /// vCPU's registers missing is worth more than none.
    #[must_use]
    pub fn freeze(&self) -> FrozenState {
        let started = Instant::now();
        self.control.order(|orders| orders.frozen = true);
        drop(self.control.wait_all_parked());
        let stuck_devices = self.pause_workers();
        // After the devices: what held up a vCPU may have ended meanwhile.
        let Collected {
            cpus,
            stops,
            mut troubles,
        } = collect::collect(&self.control.lock());
        troubles.extend(stuck_devices);
        let took = started.elapsed();
        let mut kept = self.clock_at_freeze.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            *kept = self
                .vm
                .clock()
                .inspect_err(|error| tracing::debug!(%error, "no clock to keep"))
                .ok();
        }
        FrozenState {
            cpus,
            stops,
            troubles,
            clock: *kept,
            took,
        }
    }

    /// Lets a frozen guest go on, its clock where it stood at the freeze. Paused guests stay paused.
    pub fn thaw(&self) {
        let kept = self
            .clock_at_freeze
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Err(error)) = kept.map(|clock| self.vm.set_clock(clock)) {
            tracing::warn!(%error, "the guest's clock jumps over the freeze");
        }
        self.control.release(kept.is_some());
        self.resume_workers();
    }

    /// Injects a non-maskable interrupt into every vCPU (before it next runs, if it stands still).
    pub fn nmi(&self) {
        self.control.nmi();
    }

    /// Stops the vCPUs until [`Incarnation::resume`].
    ///
    /// # Errors
    /// [`PauseError`]; the guest then runs on.
    pub fn pause(&self) -> Result<(), PauseError> {
        self.control.order(|orders| orders.paused = true);
        let orders = self.control.wait_all_parked();
        let vcpus: Vec<usize> = orders.moving().map(|(index, _)| index).collect();
        drop(orders);
        if !vcpus.is_empty() {
            self.control.order(|orders| orders.paused = false);
            return Err(PauseError::Stuck { vcpus });
        }
        self.pause_workers();
        Ok(())
    }

    /// Ends a pause. Nothing happens to a guest that is not paused, and a frozen one stays frozen.
    /// The guest's clock goes on during a pause; its watchdogs are told of the stop.
    pub fn resume(&self) {
        self.control.unpause();
        self.resume_workers();
    }

    /// Whether somebody paused it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.control.lock().paused
    }

    /// Ends the guest and lets go of its wires and disks, so that another incarnation can have them. Memory and what was last
    /// said stay.
    pub fn halt(&mut self) {
        self.stop_threads();
    }

    /// Ends the guest. Its memory lives on as long as somebody holds it.
    pub fn stop(mut self) {
        self.stop_threads();
    }

    /// The guest's memory; it may outlive the guest.
    #[must_use]
    pub fn memory(&self) -> Arc<GuestMemory> {
        Arc::clone(&self.machine.memory)
    }

    /// The kernel that it was started from; only the first who asks gets it, for it may be long.
    #[must_use]
    pub fn take_kernel(&mut self) -> Option<LoadedKernel> {
        self.kernel.take()
    }

    /// What the guest-shim wrote, if it is whole.
    #[must_use]
    pub fn panic_record(&self) -> Option<PanicRecord> {
        self.machine.panic_record()
    }

    /// Where the guest said by fw_cfg that its VMCOREINFO lies.
    #[must_use]
    pub fn vmcoreinfo_place(&self) -> Option<VmcoreinfoPlace> {
        self.machine.vmcoreinfo_place()
    }

    /// Where the kernel's memory is mapped, so that debuggers read it by virtual address, if the way it was started says so:
    /// plain guests start with all RAM below the device hole mapped one to one.
    #[must_use]
    pub fn text_mapping(&self) -> Option<TextMapping> {
        if !self.identity_mapped {
            return None;
        }
        let low = self.machine.memory.ranges().first()?;
        Some(TextMapping {
            va: low.gpa,
            gpa: low.gpa,
            len_bytes: low.len_bytes,
        })
    }

    /// The last serial output.
    #[must_use]
    pub fn console_tail(&self) -> Vec<u8> {
        self.machine.console_tail.bytes()
    }

    /// Number of vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> usize {
        self.control.lock().slots.len()
    }

    /// Threads that hang in a device are left behind, with all that they use: the policy must run.
    fn stop_threads(&mut self) {
        self.control.order(|orders| orders.stop = true);
        let gone: Vec<bool> = if self.threads.is_empty() {
            Vec::new()
        } else {
            // Slots beyond the threads are those of a boot that failed half-way.
            let started = self.threads.len();
            let orders = self.control.wait_all_gone(started);
            orders.slots.iter().map(|slot| slot.gone).collect()
        };
        for ((vcpu, thread), gone) in self.threads.drain(..).enumerate().zip(gone) {
            if !gone {
                tracing::error!(vcpu, "a vCPU's thread hangs and is left behind");
            } else if thread.join().is_err() {
                tracing::error!(vcpu, "a vCPU's thread panicked: this is a bug");
            }
        }
        self.workers.stop(DEVICE_STOP_TIMEOUT);
        self.drain.wait();
    }

    /// No device touches memory from here on, but for those that hang (a disk that does not answer): what is to be said of them.
    fn pause_workers(&self) -> Option<String> {
        let stuck = self.workers.pause(DEVICE_STOP_TIMEOUT).err()?;
        let sentence = format!(
            "{} did not stop within {DEVICE_STOP_TIMEOUT:?}; what it still writes is written into memory that is being dumped",
            stuck.join(", ")
        );
        tracing::warn!("{sentence}");
        Some(sentence)
    }

    /// Lets devices work again, unless somebody else wants the guest to stand still.
    fn resume_workers(&self) {
        let orders = self.control.lock();
        if !orders.frozen && !orders.paused {
            self.workers.resume();
        }
    }
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

impl fmt::Debug for IncarnationConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncarnationConfig")
            .field("kernel", &self.kernel)
            .field("initrd", &self.initrd)
            .field("append", &self.append)
            .field("mem_mib", &self.mem_mib)
            .field("vcpus", &self.vcpus)
            .field("devices", &self.devices)
            .field("panic_console", &self.panic_console)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
