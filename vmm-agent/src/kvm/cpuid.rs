//! What CPUID tells a vCPU: what KVM supports, with the machine's topology: one package of cores with one thread each.
use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Which vCPU, of how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topology {
    pub(super) index: u8,
    pub(super) vcpus: u8,
    /// KVM_CAP_TSC_DEADLINE_TIMER: the bit of leaf 1 is left to user space (Linux Documentation/virt/kvm/api.rst).
    pub(super) tsc_deadline: bool,
}

// Intel SDM volume 2, CPUID, leaf 1.
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
// AMD64 APM volume 3, appendix E: leaf 0x8000_0001.
const AMD_ECX_CMP_LEGACY: u32 = 1 << 1;
// Intel SDM volume 2, CPUID, leaf 0xb: level types.
const LEVEL_SMT: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// Leaf 0xb and its successor 0x1f list the levels of the topology.
const TOPOLOGY_LEAVES: [u32; 2] = [0xb, 0x1f];

/// The leaves of one vCPU.
pub(super) fn leaves(supported: &[kvm_cpuid_entry2], topology: Topology) -> Vec<kvm_cpuid_entry2> {
    let highest = supported
        .iter()
        .find(|entry| entry.function == 0)
        .map_or(0, |entry| entry.eax);
    let kept = supported
        .iter()
        .filter(|entry| !TOPOLOGY_LEAVES.contains(&entry.function));
    let mut leaves: Vec<_> = kept.map(|entry| topology.adjust(*entry)).collect();
    for leaf in TOPOLOGY_LEAVES.into_iter().filter(|leaf| *leaf <= highest) {
        leaves.extend(topology.levels(leaf));
    }
    leaves
}

impl Topology {
    fn adjust(self, mut entry: kvm_cpuid_entry2) -> kvm_cpuid_entry2 {
        let (id, vcpus) = (u32::from(self.index), u32::from(self.vcpus));
        let several = self.vcpus > 1;
        match entry.function {
            1 => {
                entry.ebx = entry.ebx & 0xffff | id << 24 | vcpus << 16;
                entry.ecx |= LEAF1_ECX_HYPERVISOR;
                set(&mut entry.ecx, LEAF1_ECX_TSC_DEADLINE, self.tsc_deadline);
                set(&mut entry.edx, LEAF1_EDX_HTT, several);
            }
            // Caches (Intel and AMD alike): one core has the first levels for itself, all share the third.
            4 | 0x8000_001d if entry.eax & 0x1f != 0 => {
                let shared = entry.eax >> 5 & 7 >= 3;
                let sharing = if shared { vcpus - 1 } else { 0 };
                let cores = if entry.function == 4 { (self.ids() - 1) << 26 } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14 | cores;
            }
            0x8000_0001 if !several => set(&mut entry.ecx, AMD_ECX_CMP_LEGACY, false),
            // Number of cores less one, and the bits of an APIC id that tell them apart.
            0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | (vcpus - 1) | self.id_bits() << 12,
            // Extended APIC id; core id with one thread; node 0 of one.
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
            // Encrypted memory (AMD64 APM volume 3, appendix E.4.17): KVM tells what the host could do. These guests have none,
            // and Linux reads MSR 0xc001_0131, which they do not have either, as soon as it sees a bit here.
            0x8000_001f => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            _ => {}
        }
        entry
    }

    fn levels(self, function: u32) -> [kvm_cpuid_entry2; 3] {
        let level = |index, eax, ebx, kind| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx: index | kind,
            edx: u32::from(self.index),
            ..Default::default()
        };
        [
            level(0, 0, 1, LEVEL_SMT),
            level(1, self.id_bits(), u32::from(self.vcpus), LEVEL_CORE),
            level(2, 0, 0, 0),
        ]
    }

    /// Number of APIC ids that the package takes: a power of two.
    fn ids(self) -> u32 {
        u32::from(self.vcpus.max(1)).next_power_of_two()
    }

    fn id_bits(self) -> u32 {
        self.ids().trailing_zeros()
    }
}

fn set(register: &mut u32, bit: u32, on: bool) {
    *register = if on { *register | bit } else { *register & !bit };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, eax: u32, ebx: u32, ecx: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            ..Default::default()
        }
    }

    fn of(index: u8, vcpus: u8) -> Vec<kvm_cpuid_entry2> {
        let supported = [
            leaf(0, 0x1f, 0, 0),
            leaf(1, 0, 0x0710_0800, 0),
            leaf(4, 0x1c00_c121, 0, 0),
            leaf(4, 0x1c00_c163, 0, 0),
            leaf(4, 0, 0, 0),
            leaf(0xb, 9, 9, 9),
            leaf(0x8000_0008, 0x3030, 0, 0x400f),
            leaf(0x8000_001e, 7, 0x0107, 3),
            leaf(0x8000_001f, 0x1_780f, 0x4173, 0x1fd),
        ];
        leaves(
            &supported,
            Topology {
                index,
                vcpus,
                tsc_deadline: true,
            },
        )
    }

    fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *leaves
            .iter()
            .find(|leaf| leaf.function == function && leaf.index == index)
            .unwrap()
    }

    #[test]
    fn every_leaf_tells_the_same_topology() {
        let leaves = of(2, 3);
        let one = find(&leaves, 1, 0);
        assert_eq!((one.ebx, one.edx), (0x0203_0800, LEAF1_EDX_HTT));
        assert_eq!(one.ecx, LEAF1_ECX_HYPERVISOR | LEAF1_ECX_TSC_DEADLINE);
        for function in TOPOLOGY_LEAVES {
            assert_eq!(leaves.iter().filter(|leaf| leaf.function == function).count(), 3);
            let core = find(&leaves, function, 1);
            assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (2, 3, 0x201, 2));
        }
        assert_eq!(find(&leaves, 0x8000_0008, 0).ecx, 0x2002);
        let extended = find(&leaves, 0x8000_001e, 0);
        assert_eq!((extended.eax, extended.ebx, extended.ecx), (2, 2, 0));
        let caches: Vec<u32> = leaves
            .iter()
            .filter(|leaf| leaf.function == 4)
            .map(|leaf| leaf.eax)
            .collect();
        assert_eq!(caches, [0x0c00_0121, 0x0c00_8163, 0]);
    }

    #[test]
    fn encrypted_memory_is_not_offered() {
        let leaf = find(&of(0, 1), 0x8000_001f, 0);
        assert_eq!((leaf.eax, leaf.ebx, leaf.ecx, leaf.edx), (0, 0, 0, 0));
    }

    #[test]
    fn a_single_vcpu_has_no_threads() {
        let leaves = of(0, 1);
        assert_eq!((find(&leaves, 1, 0).ebx, find(&leaves, 1, 0).edx), (0x0001_0800, 0));
        assert_eq!(find(&leaves, 0xb, 1).eax, 0);
    }
}
