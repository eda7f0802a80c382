//! Model-specific registers as firmware leaves them behind: memory is write-back, the hole for devices is uncached.
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use super::KvmError;
use crate::limits::LOW_RAM_MAX_BYTES;

// Intel SDM volume 4, table 2-2, and volume 3, 12.11.
const MISC_ENABLE: u32 = 0x1a0;
const MTRR_PHYS_BASE0: u32 = 0x200;
const MTRR_PHYS_MASK0: u32 = 0x201;
const MTRR_DEF_TYPE: u32 = 0x2ff;
/// IA32_MISC_ENABLE: fast string operations.
const FAST_STRINGS: u64 = 1;
/// IA32_MTRR_DEF_TYPE: enabled, default write-back.
const ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;
/// IA32_MTRR_PHYSMASKn: the pair counts. Type 0 in the base is uncached.
const VALID: u64 = 1 << 11;

/// Sets them. What KVM does not know is left out with a warning: guests find other values than on a PC, but boot.
pub(super) fn set(fd: &VcpuFd) -> Result<(), KvmError> {
    let address_bits = address_bits(fd)?;
    let hole_len = (4 << 30) - LOW_RAM_MAX_BYTES;
    let mask = ((1_u64 << address_bits) - 1) & !(hole_len - 1);
    let entries = [
        (MISC_ENABLE, FAST_STRINGS),
        (MTRR_PHYS_BASE0, LOW_RAM_MAX_BYTES),
        (MTRR_PHYS_MASK0, mask | VALID),
        (MTRR_DEF_TYPE, ENABLED_WRITE_BACK),
    ];
    for (index, data) in entries {
        let entry = kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        let msrs = Msrs::from_entries(&[entry]).map_err(|_| KvmError::Lacks {
            what: "room for one MSR",
        })?;
        match fd.set_msrs(&msrs) {
            Ok(1) => {}
            Ok(_) => tracing::debug!(msr = format_args!("{index:#x}"), "KVM does not know this MSR"),
            Err(error) => return Err(KvmError::ioctl("set a vCPU's MSRs")(error)),
        }
    }
    Ok(())
}

/// Bits of a physical address as the guest's CPUID says (leaf 0x8000_0008); 36 where it does not (Intel SDM volume 3, 12.11.3).
fn address_bits(fd: &VcpuFd) -> Result<u32, KvmError> {
    let leaves = fd
        .get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(KvmError::ioctl("read a vCPU's CPUID"))?;
    let leaf = leaves.as_slice().iter().find(|leaf| leaf.function == 0x8000_0008);
    Ok(leaf.map_or(36, |leaf| leaf.eax & 0xff).clamp(36, 52))
}
