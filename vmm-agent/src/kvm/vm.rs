//! One virtual machine: memory slots, interrupt controllers, clock.
#![allow(
    unsafe_code,
    reason = "KVM_SET_USER_MEMORY_REGION hands host memory to the guest; a descriptor is given to a second owner of a vCPU"
)]
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::sync::Arc;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_clock_data, kvm_msi, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::posted::{VmRing, VmZones};
use super::{KvmError, System, Vcpu};
use crate::devices::Interrupts;
use crate::devices::posted::PostedRing;
use crate::memory::{GuestMemory, GuestMemoryBackend, GuestMemoryRegion};

/// Three pages that KVM on Intel hosts needs for real mode; in the hole for devices, below the firmware's place
/// (Linux Documentation/virt/kvm/api.rst, KVM_SET_TSS_ADDR).
const TSS_GPA: usize = 0xfffb_d000;
/// One page, likewise (KVM_SET_IDENTITY_MAP_ADDR).
const IDENTITY_MAP_GPA: u64 = 0xfffb_c000;

/// A virtual machine with its memory, which lives as long as the machine does.
#[derive(Debug)]
pub struct Vm {
    fd: Arc<VmFd>,
    system: System,
    memory: Arc<GuestMemory>,
}

/// The machine's interrupt controllers, for its devices. Keeps the machine and its memory alive.
#[derive(Clone)]
pub struct VmInterrupts {
    // In this order: the machine goes before its memory.
    fd: Arc<VmFd>,
    _memory: Arc<GuestMemory>,
}

impl Interrupts for VmInterrupts {
    fn set_line(&self, gsi: u32, asserted: bool) {
        if let Err(error) = self.fd.set_irq_line(gsi, asserted) {
            tracing::warn!(gsi, asserted, %error, "an interrupt line cannot be set");
        }
    }

    fn signal_msi(&self, address: u64, data: u32) {
        let low = |wide: u64| u32::try_from(wide & 0xffff_ffff).unwrap_or(0);
        let msi = kvm_msi {
            address_lo: low(address),
            address_hi: low(address >> 32),
            data,
            ..Default::default()
        };
        // An error is the guest's doing: an address that is no interrupt controller's.
        if let Err(error) = self.fd.signal_msi(msi) {
            tracing::debug!(address = format_args!("{address:#x}"), data, %error, "no such interrupt");
        }
    }
}

impl fmt::Debug for VmInterrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmInterrupts").finish_non_exhaustive()
    }
}

/// The guest's clock at one moment (KVM_GET_CLOCK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// kvmclock in nanoseconds.
    pub nanoseconds: u64,
}

impl Vm {
    /// Makes a machine with `memory`, the in-kernel interrupt controllers and the PIT.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`].
    pub fn create(system: System, memory: Arc<GuestMemory>) -> Result<Vm, KvmError> {
        let fd = system
            .kvm
            .create_vm()
            .map_err(KvmError::ioctl("create a virtual machine"))?;
        fd.set_identity_map_address(IDENTITY_MAP_GPA)
            .map_err(KvmError::ioctl("place its identity map"))?;
        fd.set_tss_address(TSS_GPA)
            .map_err(KvmError::ioctl("place its task state"))?;
        fd.create_irq_chip()
            .map_err(KvmError::ioctl("create interrupt controllers"))?;
        // With the port by which guests measure the processor's speed against it (0x61).
        let timer = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        fd.create_pit2(timer).map_err(KvmError::ioctl("create a timer (PIT)"))?;
        for (slot, region) in (0..).zip(memory.ram().iter()) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: address and size are those of a mapping that `memory` owns; the machine keeps `memory` alive, and
            // the fields are dropped in order, the machine before its memory.
            unsafe { fd.set_user_memory_region(slot) }.map_err(KvmError::ioctl("give it memory"))?;
        }
        Ok(Vm {
            fd: Arc::new(fd),
            system,
            memory,
        })
    }

    /// The interrupt controllers, for devices.
    #[must_use]
    pub fn interrupts(&self) -> VmInterrupts {
        VmInterrupts {
            fd: Arc::clone(&self.fd),
            _memory: Arc::clone(&self.memory),
        }
    }

    /// Says which writes of the guest wait in a ring.
    #[must_use]
    pub fn zones(&self) -> VmZones {
        VmZones {
            fd: Arc::clone(&self.fd),
            _memory: Arc::clone(&self.memory),
        }
    }

    /// The ring in which they wait, by way of any vCPU.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`] if KVM has none.
    pub fn posted_ring(&self, vcpu: &Vcpu) -> Result<Box<dyn PostedRing>, KvmError> {
        let mut vcpu = self.spare(vcpu.fd())?;
        vcpu.map_coalesced_mmio_ring()
            .map_err(KvmError::ioctl("map the ring of posted writes"))?;
        Ok(Box::new(VmRing {
            vcpu,
            _memory: Arc::clone(&self.memory),
        }))
    }

    /// Makes vCPU number `index` of `vcpus`. The first is runnable at once, the others wait for INIT and SIPI unless they are
    /// given a state to start in.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`].
    pub fn create_vcpu(&self, index: u8, vcpus: u8) -> Result<Vcpu, KvmError> {
        let fd = self
            .fd
            .create_vcpu(u64::from(index))
            .map_err(KvmError::ioctl("create a vCPU"))?;
        let cpuid = self.system.cpuid_of(index, vcpus)?;
        fd.set_cpuid2(&cpuid).map_err(KvmError::ioctl("set a vCPU's CPUID"))?;
        let spare = self.spare(&fd)?;
        Ok(Vcpu::new(index, fd, spare))
    }

    /// A second descriptor of a vCPU.
    fn spare(&self, fd: &VcpuFd) -> Result<VcpuFd, KvmError> {
        // SAFETY: `fd` is open as long as it is borrowed.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        let second = borrowed.try_clone_to_owned().map_err(|source| KvmError::Ioctl {
            what: "duplicate a vCPU's descriptor",
            source,
        })?;
        // SAFETY: the descriptor is a vCPU's of this machine and was made just now, so nobody else has it.
        unsafe { self.fd.create_vcpu_from_rawfd(second.into_raw_fd()) }.map_err(KvmError::ioctl("map a vCPU again"))
    }

    /// Connects an event to an interrupt line: each write to `event` is one edge.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`].
    pub fn connect_irq(&self, event: &EventFd, irq: u32) -> Result<(), KvmError> {
        self.fd
            .register_irqfd(event, irq)
            .map_err(KvmError::ioctl("connect an interrupt line"))
    }

    /// Reads the guest's clock.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`].
    pub fn clock(&self) -> Result<Clock, KvmError> {
        let clock = self.fd.get_clock().map_err(KvmError::ioctl("read the guest's clock"))?;
        Ok(Clock {
            nanoseconds: clock.clock,
        })
    }

    /// Sets the guest's clock, so that it goes on from there.
    ///
    /// # Errors
    /// [`KvmError::Ioctl`].
    pub fn set_clock(&self, clock: Clock) -> Result<(), KvmError> {
        let data = kvm_clock_data {
            clock: clock.nanoseconds,
            ..Default::default()
        };
        self.fd
            .set_clock(&data)
            .map_err(KvmError::ioctl("set the guest's clock"))
    }
}
