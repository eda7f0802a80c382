//! NT_PRSTATUS: the registers that every core reader knows (`struct elf_prstatus`, linux/elfcore.h; the register order is
//! `struct user_regs_struct`, asm/user_64.h).

use crate::bytes::{Writer, u32_le, u64_le};
use crate::cpu::CpuState;

/// Name of the note, without its NUL.
pub const NAME: &[u8] = b"CORE";
/// Type of the note, NT_PRSTATUS.
pub const TYPE: u32 = 1;
/// `sizeof(struct elf_prstatus)` on x86-64.
pub const DESCRIPTOR_LEN: usize = 336;

/// `pr_pid`: behind signal information (16), pending and held signals (16).
const PID_AT: usize = 32;
/// `pr_reg`: behind four ids and four times.
const REGISTERS_AT: usize = 112;

/// Registers of one vCPU as the note carries them. `pid` must be the vCPU's index plus one: drgn looks for that, gdb
/// shows it as the thread's id.
#[must_use]
pub fn encode(pid: u32, cpu: &CpuState) -> Vec<u8> {
    let mut out = Writer::with_capacity(DESCRIPTOR_LEN);
    out.fill_to(PID_AT, 0);
    out.u32_le(pid);
    out.fill_to(REGISTERS_AT, 0);
    for value in [
        cpu.r15, cpu.r14, cpu.r13, cpu.r12, cpu.rbp, cpu.rbx, cpu.r11, cpu.r10, cpu.r9, cpu.r8,
    ] {
        out.u64_le(value);
    }
    // orig_rax -1: not within a system call (arch/x86/include/asm/syscall.h).
    for value in [cpu.rax, cpu.rcx, cpu.rdx, cpu.rsi, cpu.rdi, u64::MAX, cpu.rip] {
        out.u64_le(value);
    }
    out.u64_le(u64::from(cpu.cs.selector));
    out.u64_le(cpu.rflags);
    out.u64_le(cpu.rsp);
    out.u64_le(u64::from(cpu.ss.selector));
    out.u64_le(cpu.fs.base);
    out.u64_le(cpu.gs.base);
    for segment in [&cpu.ds, &cpu.es, &cpu.fs, &cpu.gs] {
        out.u64_le(u64::from(segment.selector));
    }
    out.fill_to(DESCRIPTOR_LEN, 0); // pr_fpvalid: no floating-point note follows
    out.into_vec()
}

/// A PRSTATUS note read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prstatus {
    /// `pr_pid`; vCPU index plus one in our cores and in QEMU's.
    pub pid: u32,
    /// What the note holds: general registers, selectors, FS and GS base. The rest is zero.
    pub registers: CpuState,
}

/// Reads a descriptor; nothing if it is too short for x86-64.
#[must_use]
pub fn decode(descriptor: &[u8]) -> Option<Prstatus> {
    if descriptor.len() < DESCRIPTOR_LEN {
        return None;
    }
    let at = |index: usize| u64_le(descriptor, REGISTERS_AT + 8 * index);
    // A selector has 16 bits; the note widens it.
    let selector = |index: usize| at(index).map(|value| u16::try_from(value & 0xffff).unwrap_or_default());
    let mut cpu = CpuState {
        r15: at(0)?,
        r14: at(1)?,
        r13: at(2)?,
        r12: at(3)?,
        rbp: at(4)?,
        rbx: at(5)?,
        r11: at(6)?,
        r10: at(7)?,
        r9: at(8)?,
        r8: at(9)?,
        rax: at(10)?,
        rcx: at(11)?,
        rdx: at(12)?,
        rsi: at(13)?,
        rdi: at(14)?,
        rip: at(16)?,
        rflags: at(18)?,
        rsp: at(19)?,
        ..CpuState::default()
    };
    cpu.cs.selector = selector(17)?;
    cpu.ss.selector = selector(20)?;
    cpu.fs.base = at(21)?;
    cpu.gs.base = at(22)?;
    cpu.ds.selector = selector(23)?;
    cpu.es.selector = selector(24)?;
    cpu.fs.selector = selector(25)?;
    cpu.gs.selector = selector(26)?;
    Some(Prstatus {
        pid: u32_le(descriptor, PID_AT)?,
        registers: cpu,
    })
}
