//! What a frozen guest is: every vCPU out of the guest, its pending I/O completed, its registers read.
use std::time::Duration;

use vmcore::{CpuState, VcpuStop};

use crate::kvm::Clock;
use crate::limits::VCPU_STOP_TIMEOUT;

/// A guest that stands still. Its memory does not change until it is thawed.
#[derive(Clone, Debug)]
pub struct FrozenState {
    /// Registers of every vCPU, in vCPU order.
    pub cpus: Vec<CpuState>,
    /// How every vCPU was stopped, in vCPU order: `reported`, `running`, `halted`, `wait-for-sipi` or `failed`.
    pub stops: Vec<VcpuStop>,
    /// The guest's clock, if KVM told it.
    pub clock: Option<Clock>,
    /// How long it took until the last vCPU had stopped.
    pub took: Duration,
}

/// A guest could not be frozen; it runs on.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// A vCPU did not leave the guest.
    #[error("vCPU {vcpus:?} did not leave the guest within {VCPU_STOP_TIMEOUT:?}")]
    Stuck {
        /// Which ones.
        vcpus: Vec<u8>,
    },
    /// A vCPU's registers could not be read.
    #[error("the registers of vCPU {vcpu} cannot be read: {why}")]
    Registers {
        /// Which one.
        vcpu: u8,
        /// What KVM said.
        why: String,
    },
    /// A vCPU's thread has ended.
    #[error("the thread of vCPU {vcpu} has ended")]
    Gone {
        /// Which one.
        vcpu: u8,
    },
}

impl FrozenState {
    /// Index of the vCPU that reported the crash, if one did.
    #[must_use]
    pub fn reporting_vcpu(&self) -> Option<u32> {
        self.stops
            .iter()
            .find(|stop| stop.state == "reported")
            .map(|stop| stop.index)
    }
}
