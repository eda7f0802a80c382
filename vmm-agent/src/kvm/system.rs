//! `/dev/kvm` itself.
use std::ffi::CStr;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

use super::{KvmError, cpuid};

/// Version that every KVM since Linux 2.6.22 has (linux/kvm.h, KVM_API_VERSION).
const API_VERSION: i32 = 12;

/// An open `/dev/kvm` that has what a guest needs.
#[derive(Debug)]
pub struct System {
    pub(super) kvm: Kvm,
}

impl System {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// [`KvmError`]: its text says what to do.
    pub fn open() -> Result<System, KvmError> {
        System::open_path(c"/dev/kvm")
    }

    fn open_path(path: &CStr) -> Result<System, KvmError> {
        let kvm = Kvm::new_with_path(path).map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::NoDevice,
            libc::EACCES | libc::EPERM => KvmError::NoRight,
            _ => KvmError::ioctl("open /dev/kvm")(error),
        })?;
        let found = kvm.get_api_version();
        if found != API_VERSION {
            return Err(KvmError::ApiVersion { found });
        }
        let needed = [
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
            (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
            (Cap::Irqfd, "KVM_CAP_IRQFD"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
        ];
        for (capability, what) in needed {
            if !kvm.check_extension(capability) {
                return Err(KvmError::Lacks { what });
            }
        }
        Ok(System { kvm })
    }

    /// Most vCPUs of one guest (KVM_CAP_MAX_VCPUS).
    #[must_use]
    pub fn vcpus_max(&self) -> usize {
        self.kvm.get_max_vcpus()
    }

    /// The CPUID leaves that KVM supports, made those of vCPU `index` of `vcpus`.
    pub(super) fn cpuid_of(&self, index: u8, vcpus: u8) -> Result<CpuId, KvmError> {
        let supported = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::ioctl("read the CPUID leaves it supports"))?;
        let topology = cpuid::Topology {
            index,
            vcpus,
            tsc_deadline: self.kvm.check_extension(Cap::TscDeadlineTimer),
        };
        CpuId::from_entries(&cpuid::leaves(supported.as_slice(), topology)).map_err(|_| KvmError::Lacks {
            what: "room for a vCPU's CPUID leaves",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_device_the_error_says_what_to_do() {
        let text = System::open_path(c"/nonexistent/kvm").unwrap_err().to_string();
        assert!(
            text.contains("no /dev/kvm") && text.contains("load the module"),
            "{text}"
        );
    }
}
