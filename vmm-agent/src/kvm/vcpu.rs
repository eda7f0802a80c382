//! One vCPU: runs the guest until it needs something.
#![allow(
    unsafe_code,
    reason = "reads the union in the kvm_run page by the exit reason that KVM gave"
)]
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_UNINITIALIZED, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmcore::CpuState;

use super::{Kicker, KvmError, Start, entry, msrs, registers};

/// A vCPU; belongs to the thread that runs it.
#[derive(Debug)]
pub struct Vcpu {
    index: u8,
    fd: VcpuFd,
    /// The thread is inside KVM_RUN, which keeps all other ioctls of this vCPU waiting.
    in_kvm: Arc<AtomicBool>,
    spare: Option<SpareVcpu>,
}

/// A second way to a vCPU's registers, for when its thread cannot give them: it hangs in a device, or has ended.
#[derive(Debug)]
pub struct SpareVcpu {
    fd: VcpuFd,
    in_kvm: Arc<AtomicBool>,
}

/// Why the guest stopped (linux/kvm.h, KVM_EXIT_*).
#[derive(Debug, PartialEq, Eq)]
pub enum Exit<'a> {
    /// The guest reads a port; `data` holds one or more accesses of `size` bytes.
    PortRead {
        /// I/O port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        size: usize,
        /// To be filled.
        data: &'a mut [u8],
    },
    /// The guest writes a port; `data` holds one or more accesses of `size` bytes.
    PortWrite {
        /// I/O port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        size: usize,
        /// What it wrote.
        data: &'a [u8],
    },
    /// The guest reads memory that is no RAM.
    MmioRead {
        /// Where.
        gpa: u64,
        /// To be filled; up to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest writes memory that is no RAM.
    MmioWrite {
        /// Where.
        gpa: u64,
        /// What it wrote; up to 8 bytes.
        data: &'a [u8],
    },
    /// Somebody kicked this vCPU, or a signal came.
    Interrupted,
    /// Triple fault.
    Shutdown,
    /// KVM could not go on.
    InternalError {
        /// Suberror; 1 is an instruction that it cannot emulate.
        suberror: u32,
    },
    /// The hardware refused to enter the guest.
    EntryFailed {
        /// Its reason.
        reason: u64,
    },
    /// The guest told KVM about itself.
    SystemEvent {
        /// KVM_SYSTEM_EVENT_*.
        kind: u32,
    },
    /// Anything else; the text names it.
    Other(String),
}

/// An exit without its data, so that the page it lies in can be looked at again.
enum Kind {
    Port { port: u16, write: bool },
    Mmio { gpa: u64, write: bool },
    InternalError,
}

impl Vcpu {
    /// A vCPU; `spare` is a second descriptor of the same one.
    pub(super) fn new(index: u8, fd: VcpuFd, spare: VcpuFd) -> Vcpu {
        let in_kvm = Arc::new(AtomicBool::new(false));
        let spare = SpareVcpu {
            fd: spare,
            in_kvm: Arc::clone(&in_kvm),
        };
        Vcpu {
            index,
            fd,
            in_kvm,
            spare: Some(spare),
        }
    }

    pub(super) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// The second way to its registers; there is one.
    pub fn take_spare(&mut self) -> Option<SpareVcpu> {
        self.spare.take()
    }

    /// Which vCPU this is, from 0.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Sets the state in which it starts, and the registers that firmware would have set.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`].
    pub fn start(&self, start: &Start) -> Result<(), KvmError> {
        msrs::set(&self.fd)?;
        match start {
            Start::LongMode(entry) => entry::enter_long_mode(&self.fd, entry),
            Start::ProtectedMode(entry) => entry::enter_protected_mode(&self.fd, entry),
            Start::WaitForSipi => Ok(()),
        }
    }

    /// A kicker for this vCPU, made by the thread that runs it.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`] if the signal cannot be set up.
    pub fn kicker(&mut self) -> Result<Kicker, KvmError> {
        let immediate_exit = &raw mut self.fd.get_kvm_run().immediate_exit;
        Kicker::for_this_thread(immediate_exit).map_err(|source| KvmError::Ioctl {
            what: "set up the kick signal",
            source,
        })
    }

    /// Runs the guest until it stops. After an I/O exit the next call completes it.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`] if KVM_RUN itself fails.
    pub fn run(&mut self) -> Result<Exit<'_>, KvmError> {
        self.in_kvm.store(true, Ordering::Release);
        let stopped = self.fd.run();
        self.in_kvm.store(false, Ordering::Release);
        let kind = match stopped {
            Ok(VcpuExit::IoIn(port, _)) => Kind::Port { port, write: false },
            Ok(VcpuExit::IoOut(port, _)) => Kind::Port { port, write: true },
            Ok(VcpuExit::MmioRead(gpa, _)) => Kind::Mmio { gpa, write: false },
            Ok(VcpuExit::MmioWrite(gpa, _)) => Kind::Mmio { gpa, write: true },
            Ok(VcpuExit::InternalError) => Kind::InternalError,
            Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
            Ok(VcpuExit::FailEntry(reason, _)) => return Ok(Exit::EntryFailed { reason }),
            Ok(VcpuExit::SystemEvent(kind, _)) => return Ok(Exit::SystemEvent { kind }),
            Ok(VcpuExit::Intr) => return Ok(Exit::Interrupted),
            Ok(other) => return Ok(Exit::Other(format!("{other:?}"))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return Ok(Exit::Interrupted),
            Err(error) => return Err(KvmError::ioctl("run a vCPU")(error)),
        };
        Ok(look_again(self.fd.get_kvm_run(), &kind))
    }

    /// Makes the next [`Vcpu::run`] finish what is pending and return [`Exit::Interrupted`] without running the guest.
    pub fn set_immediate_exit(&mut self, immediate: bool) {
        self.fd.set_kvm_immediate_exit(u8::from(immediate));
    }

    /// Reads all registers. Only right when no I/O is pending.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`].
    pub fn cpu_state(&self) -> Result<CpuState, KvmError> {
        registers::cpu_state(&self.fd)
    }

    /// What the vCPU does when it is not in an exit: `running`, `halted` or `wait-for-sipi` (KVM_GET_MP_STATE).
    #[must_use]
    pub fn activity(&self) -> &'static str {
        match self.fd.get_mp_state().map(|state| state.mp_state) {
            Ok(KVM_MP_STATE_HALTED) => "halted",
            Ok(KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED) => "wait-for-sipi",
            _ => "running",
        }
    }

    /// Queues a non-maskable interrupt (KVM_NMI).
    ///
    /// # Errors
    /// [`KvmError::Ioctl`].
    pub fn nmi(&self) -> Result<(), KvmError> {
        self.fd.nmi().map_err(KvmError::ioctl("inject an NMI"))
    }

    /// Tells a guest with kvmclock that it was stopped, so that its watchdogs do not fire (KVM_KVMCLOCK_CTRL). Guests
    /// without kvmclock make KVM refuse, which is fine.
    pub fn note_stopped_clock(&self) {
        if let Err(error) = self.fd.kvmclock_ctrl() {
            tracing::trace!(vcpu = self.index, %error, "no kvmclock to tell of the stop");
        }
    }
}

impl SpareVcpu {
    /// The registers as they are now: in the middle of an access to a device, if that is where its thread is. Nothing if
    /// KVM holds the vCPU or refuses.
    #[must_use]
    pub fn cpu_state(&self) -> Option<CpuState> {
        // Whoever enters KVM_RUN after this look comes out at once: registers are only asked for of vCPUs that shall stop.
        if self.in_kvm.load(Ordering::Acquire) {
            return None;
        }
        registers::cpu_state(&self.fd).ok()
    }
}

/// Builds the exit out of the kvm_run page.
fn look_again<'a>(run: &'a mut kvm_run, kind: &Kind) -> Exit<'a> {
    match *kind {
        Kind::InternalError => {
            // SAFETY: KVM's exit reason was KVM_EXIT_INTERNAL_ERROR, so this field of the union is the valid one.
            let internal = unsafe { run.__bindgen_anon_1.internal };
            Exit::InternalError {
                suberror: internal.suberror,
            }
        }
        Kind::Mmio { gpa, write } => {
            // SAFETY: KVM's exit reason was KVM_EXIT_MMIO, so this field of the union is the valid one.
            let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
            let len = usize::try_from(mmio.len).unwrap_or(0).min(mmio.data.len());
            let data = mmio.data.split_at_mut(len).0;
            if write {
                Exit::MmioWrite { gpa, data }
            } else {
                Exit::MmioRead { gpa, data }
            }
        }
        Kind::Port { port, write } => {
            // SAFETY: KVM's exit reason was KVM_EXIT_IO, so this field of the union is the valid one.
            let io = unsafe { run.__bindgen_anon_1.io };
            let size = usize::from(io.size).max(1);
            let len = size * usize::try_from(io.count).unwrap_or(0);
            let page = std::ptr::from_mut(run).cast::<u8>();
            let offset = usize::try_from(io.data_offset).unwrap_or(0);
            // SAFETY: KVM puts `count` accesses of `size` bytes at `data_offset` of the mapping that starts with kvm_run
            // (Linux Documentation/virt/kvm/api.rst, KVM_EXIT_IO); the borrow of the page keeps others away.
            let data = unsafe { slice::from_raw_parts_mut(page.add(offset), len) };
            if write {
                Exit::PortWrite { port, size, data }
            } else {
                Exit::PortRead { port, size, data }
            }
        }
    }
}
