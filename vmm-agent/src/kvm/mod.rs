//! The only place that names kvm-ioctls: thin wrappers, each with one job and no policy.
//!
//! - [`System`]: `/dev/kvm` and what it can do
//! - [`Vm`]: memory slots, interrupt controllers, the guest's clock
//! - [`Vcpu`]: entry state, the run loop's exits, registers; [`SpareVcpu`]: registers of one whose thread hangs
//! - [`VmZones`]: writes that wait in a ring instead of stopping a vCPU
//! - [`Kicker`]: gets a vCPU's thread out of the guest from another thread
mod cpuid;
mod entry;
mod kick;
mod msrs;
mod posted;
mod registers;
mod system;
mod vcpu;
mod vm;

pub use entry::{LongModeEntry, ProtectedModeEntry, Start};
pub use kick::Kicker;
pub use posted::VmZones;
pub use system::System;
pub use vcpu::{Exit, SpareVcpu, Vcpu};
pub use vm::{Clock, Vm, VmInterrupts};

/// An ioctl of KVM failed.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no `/dev/kvm`.
    #[error(
        "there is no /dev/kvm: load the module kvm_amd or kvm_intel, switch virtualisation on in the firmware, or, inside \
         a virtual machine or container, have the host pass /dev/kvm on"
    )]
    NoDevice,
    /// `/dev/kvm` may not be opened by this user.
    #[error("no right to open /dev/kvm: add this user to the group that owns it (usually `kvm`), or run as root")]
    NoRight,
    /// `/dev/kvm` speaks another API version (linux/kvm.h, KVM_API_VERSION).
    #[error("/dev/kvm has API version {found}, this program needs 12")]
    ApiVersion {
        /// What it has.
        found: i32,
    },
    /// Something that this program cannot do without.
    #[error("this host's KVM lacks {what}")]
    Lacks {
        /// The capability.
        what: &'static str,
    },
    /// An ioctl failed.
    #[error("KVM: cannot {what}")]
    Ioctl {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl KvmError {
    fn ioctl(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
        move |error| KvmError::Ioctl {
            what,
            source: error.into(),
        }
    }
}
