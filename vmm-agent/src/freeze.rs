//! What a frozen guest is: every vCPU out of the guest, its pending I/O completed, its registers read. Evidence comes first: what
//! does not stop in time is named, and the freeze holds without it.
use std::time::Duration;

use vmcore::{CpuState, VcpuStop};

use crate::kvm::Clock;
use crate::limits::VCPU_STOP_TIMEOUT;

/// A guest that stands still. Its memory does not change until it is thawed, but for what `troubles` tells.
#[derive(Clone, Debug)]
pub struct FrozenState {
    /// Registers of every vCPU, in vCPU order; zeroes stand for those that could not be read, so that the order holds.
    pub cpus: Vec<CpuState>,
    /// How every vCPU was stopped, in vCPU order: `reported`, `running`, `halted`, `wait-for-sipi` or `failed`.
    pub stops: Vec<VcpuStop>,
    /// What did not stop in time, or could not be read, as sentences.
    pub troubles: Vec<String>,
    /// The guest's clock, if KVM told it.
    pub clock: Option<Clock>,
    /// How long it took until the last vCPU had stopped.
    pub took: Duration,
}

/// A guest cannot be paused; it runs on.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// A vCPU did not leave the guest.
    #[error("vCPU {vcpus:?} did not leave the guest within {VCPU_STOP_TIMEOUT:?}")]
    Stuck {
        /// Which ones.
        vcpus: Vec<usize>,
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
