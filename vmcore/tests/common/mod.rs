//! What the tests of this crate share.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::cast_possible_truncation)] // the low bits are wanted

use proptest::prelude::*;
use vmcore::{CoreferryNote, CpuState, DescriptorTable, MemoryRange, SegmentRegister, VcpuStop};

/// A vCPU with a different value in every register.
pub(crate) fn cpu(seed: u64) -> CpuState {
    let mut next = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value = move || {
        next = next
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        next ^ (next >> 29)
    };
    let mut short = value;
    let mut segment = move || SegmentRegister {
        selector: (short() >> 48) as u16,
        limit: (short() >> 32) as u32,
        flags: (short() >> 32) as u32,
        base: short(),
    };
    let (cs, ds, es, fs, gs) = (segment(), segment(), segment(), segment(), segment());
    let (ss, ldt, tr) = (segment(), segment(), segment());
    CpuState {
        rax: value(),
        rbx: value(),
        rcx: value(),
        rdx: value(),
        rsi: value(),
        rdi: value(),
        rsp: value(),
        rbp: value(),
        r8: value(),
        r9: value(),
        r10: value(),
        r11: value(),
        r12: value(),
        r13: value(),
        r14: value(),
        r15: value(),
        rip: value(),
        rflags: value(),
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        ldt,
        tr,
        gdt: DescriptorTable {
            base: value(),
            limit: 0x7f,
        },
        idt: DescriptorTable {
            base: value(),
            limit: 0xfff,
        },
        cr0: value(),
        cr2: value(),
        cr3: value(),
        cr4: value(),
        kernel_gs_base: value(),
    }
}

/// A note with something in every field.
pub(crate) fn note() -> CoreferryNote {
    CoreferryNote {
        dump_id: "0193b0c5-7a1e-7000-8000-000000000001".into(),
        vm: "web-3".into(),
        trigger: "pvpanic".into(),
        panic: Some("sysrq triggered crash".into()),
        os: Some("linux".into()),
        release: Some("6.1.0".into()),
        crashed_cpu: Some(1),
        triggered_at: Some("2026-01-02T03:04:05Z".into()),
        frozen_at: Some("2026-01-02T03:04:05.010Z".into()),
        vcpus: vec![VcpuStop {
            index: 0,
            state: "running".into(),
        }],
        build_id: Some("3b43".into()),
        console_tail: "Kernel panic - not syncing\r\n".into(),
        ..CoreferryNote::default()
    }
}

/// Sorted, disjoint ranges of 1 to 600 pages with gaps of 0 to 5 pages.
pub(crate) fn ranges(count_max: usize) -> impl Strategy<Value = Vec<MemoryRange>> {
    prop::collection::vec((0u64..6, 1u64..600), 1..count_max).prop_map(|parts| {
        let mut at = 0;
        let mut ranges = Vec::new();
        for (gap, pages) in parts {
            at += gap * 4096;
            ranges.push(MemoryRange {
                gpa: at,
                len_bytes: pages * 4096,
            });
            at += pages * 4096;
        }
        ranges
    })
}
