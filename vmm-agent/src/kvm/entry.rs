//! Puts a vCPU straight into 64-bit or 32-bit mode, without real mode and without INIT and SIPI.
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use super::KvmError;

/// Where and how a vCPU starts in 64-bit mode. The tables must already lie in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongModeEntry {
    /// First instruction.
    pub rip: u64,
    /// First argument.
    pub rdi: u64,
    /// Second argument.
    pub rsi: u64,
    /// Guest-physical address of the top page table.
    pub page_table_gpa: u64,
    /// Guest-physical address of the descriptor table.
    pub gdt_gpa: u64,
    /// Limit of the descriptor table in bytes.
    pub gdt_limit: u16,
    /// Selector of the 64-bit code segment.
    pub code_selector: u16,
    /// Selector of the data segment.
    pub data_selector: u16,
}

/// Where and how a vCPU starts in 32-bit protected mode without paging, with flat segments (Xen, docs/misc/pvh.pandoc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtectedModeEntry {
    /// First instruction.
    pub eip: u32,
    /// Argument.
    pub ebx: u32,
}

/// The state in which a vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// In 64-bit mode.
    LongMode(LongModeEntry),
    /// In 32-bit protected mode.
    ProtectedMode(ProtectedModeEntry),
    /// When another vCPU sends INIT and SIPI.
    WaitForSipi,
}

// AMD64 APM volume 2, 3.1.1, 3.1.3 and 3.1.7.
const CR0_PE: u64 = 1 << 0;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
/// Bit 1 of rflags always reads as one; interrupts are off.
const RFLAGS_RESERVED: u64 = 2;

pub(super) fn enter_protected_mode(fd: &VcpuFd, entry: &ProtectedModeEntry) -> Result<(), KvmError> {
    let mut sregs = fd
        .get_sregs()
        .map_err(KvmError::ioctl("read a vCPU's system registers"))?;
    let code = kvm_segment {
        limit: 0xffff_ffff,
        type_: 0xb, // execute, read, accessed
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { type_: 0x3, ..code };
    let task = kvm_segment {
        limit: 0x67,
        type_: 0xb, // 32-bit task state, busy
        present: 1,
        ..Default::default()
    };
    sregs.cs = code;
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    sregs.tr = task;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    fd.set_sregs(&sregs)
        .map_err(KvmError::ioctl("set a vCPU's system registers"))?;
    let regs = kvm_regs {
        rip: u64::from(entry.eip),
        rbx: u64::from(entry.ebx),
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    fd.set_regs(&regs).map_err(KvmError::ioctl("set a vCPU's registers"))
}

pub(super) fn enter_long_mode(fd: &VcpuFd, entry: &LongModeEntry) -> Result<(), KvmError> {
    let mut sregs = fd
        .get_sregs()
        .map_err(KvmError::ioctl("read a vCPU's system registers"))?;
    let code = kvm_segment {
        selector: entry.code_selector,
        limit: 0xffff_ffff,
        type_: 0xb, // execute, read, accessed
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: entry.data_selector,
        type_: 0x3,
        db: 1,
        l: 0,
        ..code
    };
    sregs.cs = code;
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    sregs.gdt.base = entry.gdt_gpa;
    sregs.gdt.limit = entry.gdt_limit;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    sregs.cr3 = entry.page_table_gpa;
    sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    sregs.efer = EFER_LME | EFER_LMA | EFER_NXE;
    fd.set_sregs(&sregs)
        .map_err(KvmError::ioctl("set a vCPU's system registers"))?;
    let regs = kvm_regs {
        rip: entry.rip,
        rdi: entry.rdi,
        rsi: entry.rsi,
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    fd.set_regs(&regs).map_err(KvmError::ioctl("set a vCPU's registers"))?;
    // All but the first wait for INIT otherwise.
    fd.set_mp_state(kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    })
    .map_err(KvmError::ioctl("make a vCPU runnable"))
}
