//! The registers of one virtual CPU, as notes carry them.

/// State of one x86-64 vCPU at the freeze. Names follow the kernel's `struct kvm_regs` and `struct kvm_sregs`
/// (linux/kvm.h).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuState {
    /// General register rax.
    pub rax: u64,
    /// General register rbx.
    pub rbx: u64,
    /// General register rcx.
    pub rcx: u64,
    /// General register rdx.
    pub rdx: u64,
    /// General register rsi.
    pub rsi: u64,
    /// General register rdi.
    pub rdi: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Frame pointer.
    pub rbp: u64,
    /// General register r8.
    pub r8: u64,
    /// General register r9.
    pub r9: u64,
    /// General register r10.
    pub r10: u64,
    /// General register r11.
    pub r11: u64,
    /// General register r12.
    pub r12: u64,
    /// General register r13.
    pub r13: u64,
    /// General register r14.
    pub r14: u64,
    /// General register r15.
    pub r15: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Code segment.
    pub cs: SegmentRegister,
    /// Data segment ds.
    pub ds: SegmentRegister,
    /// Data segment es.
    pub es: SegmentRegister,
    /// Data segment fs; its base is FS.base.
    pub fs: SegmentRegister,
    /// Data segment gs; its base is GS.base (the per-CPU area while in the Linux kernel).
    pub gs: SegmentRegister,
    /// Stack segment.
    pub ss: SegmentRegister,
    /// Local descriptor table register.
    pub ldt: SegmentRegister,
    /// Task register.
    pub tr: SegmentRegister,
    /// Global descriptor table.
    pub gdt: DescriptorTable,
    /// Interrupt descriptor table; its base lets crash find KASLR's offset without VMCOREINFO.
    pub idt: DescriptorTable,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 2, the last page fault's address.
    pub cr2: u64,
    /// Control register 3, the page-table root.
    pub cr3: u64,
    /// Control register 4; bit 12 says five-level paging.
    pub cr4: u64,
    /// MSR_KERNEL_GS_BASE, the GS base that `swapgs` would bring in.
    pub kernel_gs_base: u64,
}

/// One segment register with its hidden part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentRegister {
    /// Visible selector.
    pub selector: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Attributes as [`SegmentFlags::bits`] packs them.
    pub flags: u32,
    /// Base address.
    pub base: u64,
}

/// Base and limit of a descriptor table (GDTR, IDTR).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, the length minus one.
    pub limit: u16,
}

/// Attributes of a segment, one field each as in `struct kvm_segment` (linux/kvm.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentFlags {
    /// Segment type, four bits.
    pub kind: u8,
    /// Code or data (S), as opposed to a system segment.
    pub code_or_data: bool,
    /// Descriptor privilege level, 0 to 3.
    pub privilege: u8,
    /// Present (P).
    pub present: bool,
    /// Available to software (AVL).
    pub available: bool,
    /// 64-bit code (L).
    pub long_mode: bool,
    /// Default operand size (D/B).
    pub default_big: bool,
    /// Limit counts pages (G).
    pub granular: bool,
}

impl SegmentFlags {
    /// The attributes at their places in the second word of a descriptor (AMD64 APM vol. 2, 4.8), which is how QEMU's
    /// note stores them.
    #[must_use]
    pub fn bits(&self) -> u32 {
        u32::from(self.kind & 0xf) << 8
            | u32::from(self.code_or_data) << 12
            | u32::from(self.privilege & 3) << 13
            | u32::from(self.present) << 15
            | u32::from(self.available) << 20
            | u32::from(self.long_mode) << 21
            | u32::from(self.default_big) << 22
            | u32::from(self.granular) << 23
    }
}
