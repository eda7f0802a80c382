//! Posted writes: zones whose writes KVM keeps in a ring of the machine (Linux Documentation/virt/kvm/api.rst,
//! KVM_REGISTER_COALESCED_MMIO).
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};

use crate::devices::posted::{PostedRing, PostedWrite, PostedZones};
use crate::memory::GuestMemory;

/// The zones of a machine. Keeps the machine and its memory alive.
pub struct VmZones {
    // In this order: the machine goes before its memory.
    pub(super) fd: Arc<VmFd>,
    pub(super) _memory: Arc<GuestMemory>,
}

/// The ring, by a descriptor of its own of one of the machine's vCPUs: each of them shows the same one.
pub(super) struct VmRing {
    pub(super) vcpu: VcpuFd,
    pub(super) _memory: Arc<GuestMemory>,
}

impl PostedZones for VmZones {
    fn set(&self, gpas: Range<u64>, posted: bool) {
        let len_bytes = u32::try_from(gpas.end.saturating_sub(gpas.start)).unwrap_or(0);
        let zone = IoEventAddress::Mmio(gpas.start);
        let set = if posted {
            self.fd.register_coalesced_mmio(zone, len_bytes)
        } else {
            self.fd.unregister_coalesced_mmio(zone, len_bytes)
        };
        if let Err(error) = set {
            tracing::debug!(gpas = format_args!("{gpas:#x?}"), posted, %error, "writes cannot be posted");
        }
    }
}

impl PostedRing for VmRing {
    fn take(&mut self) -> Option<PostedWrite> {
        let write = self.vcpu.coalesced_mmio_read().ok()??;
        let len = usize::try_from(write.len).unwrap_or(0).min(write.data.len());
        Some(PostedWrite {
            gpa: write.phys_addr,
            data: write.data,
            len,
        })
    }
}

impl fmt::Debug for VmZones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmZones").finish_non_exhaustive()
    }
}
