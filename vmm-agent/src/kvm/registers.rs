//! A vCPU's registers as the dump wants them.
use kvm_bindings::{Msrs, kvm_dtable, kvm_msr_entry, kvm_segment};
use kvm_ioctls::VcpuFd;
use vmcore::{CpuState, DescriptorTable, SegmentFlags, SegmentRegister};

use super::KvmError;

/// AMD64 APM volume 2, appendix A.
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

pub(super) fn cpu_state(fd: &VcpuFd) -> Result<CpuState, KvmError> {
    let regs = fd.get_regs().map_err(KvmError::ioctl("read a vCPU's registers"))?;
    let sregs = fd
        .get_sregs()
        .map_err(KvmError::ioctl("read a vCPU's system registers"))?;
    Ok(CpuState {
        rax: regs.rax,
        rbx: regs.rbx,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        rsp: regs.rsp,
        rbp: regs.rbp,
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rip: regs.rip,
        rflags: regs.rflags,
        cs: segment(&sregs.cs),
        ds: segment(&sregs.ds),
        es: segment(&sregs.es),
        fs: segment(&sregs.fs),
        gs: segment(&sregs.gs),
        ss: segment(&sregs.ss),
        ldt: segment(&sregs.ldt),
        tr: segment(&sregs.tr),
        gdt: table(&sregs.gdt),
        idt: table(&sregs.idt),
        cr0: sregs.cr0,
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        kernel_gs_base: kernel_gs_base(fd)?,
    })
}

fn kernel_gs_base(fd: &VcpuFd) -> Result<u64, KvmError> {
    let wanted = kvm_msr_entry {
        index: MSR_KERNEL_GS_BASE,
        ..Default::default()
    };
    let mut msrs = Msrs::from_entries(&[wanted]).map_err(|_| KvmError::Lacks {
        what: "room for one MSR",
    })?;
    fd.get_msrs(&mut msrs)
        .map_err(KvmError::ioctl("read a vCPU's MSR_KERNEL_GS_BASE"))?;
    Ok(msrs.as_slice().first().map_or(0, |entry| entry.data))
}

fn segment(from: &kvm_segment) -> SegmentRegister {
    let flags = SegmentFlags {
        kind: from.type_,
        code_or_data: from.s != 0,
        privilege: from.dpl,
        present: from.present != 0,
        available: from.avl != 0,
        long_mode: from.l != 0,
        default_big: from.db != 0,
        granular: from.g != 0,
    };
    SegmentRegister {
        selector: from.selector,
        limit: from.limit,
        flags: flags.bits(),
        base: from.base,
    }
}

fn table(from: &kvm_dtable) -> DescriptorTable {
    DescriptorTable {
        base: from.base,
        limit: from.limit,
    }
}
