//! The "QEMU" note: control registers and descriptor tables (`QEMUCPUState`, QEMU target/i386/arch_dump.c).
//!
//! The only help that crash has to find a randomised kernel when VMCOREINFO is missing: it takes CR3, CR4 and the IDT.

use crate::bytes::{Writer, u32_le, u64_le};
use crate::cpu::{CpuState, DescriptorTable, SegmentRegister};

/// Name of the note, without its NUL.
pub const NAME: &[u8] = b"QEMU";
/// Type of the note.
pub const TYPE: u32 = 0;
/// Length since `kernel_gs_base` was added (QEMU 5 and later).
pub const DESCRIPTOR_LEN: usize = 440;

/// Length before that; still read.
const DESCRIPTOR_LEN_OLD: usize = 432;
/// `version` of the structure.
const VERSION: u32 = 1;
const SEGMENTS_AT: usize = 152;
const SEGMENT_LEN: usize = 24;
const CONTROL_AT: usize = 392;

/// The state of one vCPU as the note carries it.
#[must_use]
pub fn encode(cpu: &CpuState) -> Vec<u8> {
    let mut out = Writer::with_capacity(DESCRIPTOR_LEN);
    out.u32_le(VERSION);
    out.u32_le(u32::try_from(DESCRIPTOR_LEN).unwrap_or_default());
    for value in [cpu.rax, cpu.rbx, cpu.rcx, cpu.rdx, cpu.rsi, cpu.rdi, cpu.rsp, cpu.rbp] {
        out.u64_le(value);
    }
    for value in [
        cpu.r8, cpu.r9, cpu.r10, cpu.r11, cpu.r12, cpu.r13, cpu.r14, cpu.r15, cpu.rip, cpu.rflags,
    ] {
        out.u64_le(value);
    }
    for segment in [&cpu.cs, &cpu.ds, &cpu.es, &cpu.fs, &cpu.gs, &cpu.ss, &cpu.ldt, &cpu.tr] {
        put_segment(&mut out, segment);
    }
    for table in [&cpu.gdt, &cpu.idt] {
        let limit = u32::from(table.limit);
        put_segment(
            &mut out,
            &SegmentRegister {
                limit,
                base: table.base,
                ..SegmentRegister::default()
            },
        );
    }
    for value in [cpu.cr0, 0, cpu.cr2, cpu.cr3, cpu.cr4] {
        out.u64_le(value);
    }
    out.u64_le(cpu.kernel_gs_base);
    out.into_vec()
}

fn put_segment(out: &mut Writer, segment: &SegmentRegister) {
    out.u32_le(u32::from(segment.selector));
    out.u32_le(segment.limit);
    out.u32_le(segment.flags);
    out.u32_le(0);
    out.u64_le(segment.base);
}

/// Reads a descriptor; nothing if it is too short or of another version.
#[must_use]
pub fn decode(descriptor: &[u8]) -> Option<CpuState> {
    if descriptor.len() < DESCRIPTOR_LEN_OLD || u32_le(descriptor, 0)? != VERSION {
        return None;
    }
    let general = |index: usize| u64_le(descriptor, 8 + 8 * index);
    let segment = |index: usize| read_segment(descriptor, SEGMENTS_AT + SEGMENT_LEN * index);
    let table = |index: usize| {
        let entry = segment(index)?;
        Some(DescriptorTable {
            base: entry.base,
            limit: u16::try_from(entry.limit & 0xffff).ok()?,
        })
    };
    let control = |index: usize| u64_le(descriptor, CONTROL_AT + 8 * index);
    Some(CpuState {
        rax: general(0)?,
        rbx: general(1)?,
        rcx: general(2)?,
        rdx: general(3)?,
        rsi: general(4)?,
        rdi: general(5)?,
        rsp: general(6)?,
        rbp: general(7)?,
        r8: general(8)?,
        r9: general(9)?,
        r10: general(10)?,
        r11: general(11)?,
        r12: general(12)?,
        r13: general(13)?,
        r14: general(14)?,
        r15: general(15)?,
        rip: general(16)?,
        rflags: general(17)?,
        cs: segment(0)?,
        ds: segment(1)?,
        es: segment(2)?,
        fs: segment(3)?,
        gs: segment(4)?,
        ss: segment(5)?,
        ldt: segment(6)?,
        tr: segment(7)?,
        gdt: table(8)?,
        idt: table(9)?,
        cr0: control(0)?,
        cr2: control(2)?,
        cr3: control(3)?,
        cr4: control(4)?,
        kernel_gs_base: control(5).unwrap_or_default(),
    })
}

fn read_segment(descriptor: &[u8], at: usize) -> Option<SegmentRegister> {
    Some(SegmentRegister {
        selector: u16::try_from(u32_le(descriptor, at)? & 0xffff).ok()?,
        limit: u32_le(descriptor, at + 4)?,
        flags: u32_le(descriptor, at + 8)?,
        base: u64_le(descriptor, at + 16)?,
    })
}
