//! From the boot protocol to ring 3, and back to ring 0 for interrupts and exceptions.
//!
//! Each CPU gets a task state with a stack for ring 0 and an I/O bitmap that allows every port to ring 3. Which CPU runs
//! is read off the stack pointer: stacks lie in one array and are aligned to their length.
use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU64;

use guest_shim::boot::BootNote;

/// Asks the host for the boot protocol of plain guests.
#[used]
#[unsafe(link_section = ".note.coreferry")]
static BOOT_NOTE: BootNote = BootNote::THIS;

/// Most CPUs; further ones stop.
pub const CPUS_MAX: usize = 8;
/// Length of a ring-3 stack, and its alignment.
pub const STACK_LEN: usize = 1 << 16;
/// Length of a ring-0 stack, and its alignment.
const RING0_STACK_LEN: usize = 1 << 13;
/// A task state of 104 bytes and an I/O bitmap of 8193 (AMD64 APM volume 2, 12.2.4), in whole pages.
const TASK_LEN: usize = 3 * 4096;

/// Memory that assembly code writes.
#[repr(C, align(65536))]
pub struct Raw<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: Rust code takes only the address.
unsafe impl<const N: usize> Sync for Raw<N> {}

impl<const N: usize> Raw<N> {
    /// Zeros.
    pub const fn new() -> Self {
        Raw(UnsafeCell::new([0; N]))
    }

    /// Where it starts.
    pub fn address(&self) -> usize {
        self.0.get().addr()
    }
}

#[unsafe(no_mangle)]
pub static STACKS: Raw<{ STACK_LEN * CPUS_MAX }> = Raw::new();
#[unsafe(no_mangle)]
static RING0_STACKS: Raw<{ RING0_STACK_LEN * CPUS_MAX }> = Raw::new();
#[unsafe(no_mangle)]
static TASKS: Raw<{ TASK_LEN * CPUS_MAX }> = Raw::new();
#[unsafe(no_mangle)]
static IDT: Raw<{ 64 * 16 }> = Raw::new();

/// Timer interrupts of each CPU.
#[unsafe(no_mangle)]
pub static TICKS: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(0) }; CPUS_MAX];

/// What `rax` holds when `ud2` is a request to ring 0 and not an accident.
pub const REQUEST: u64 = 0x5249_4e47_3052_4551;
/// Request: wait for the next interrupt.
pub const REQUEST_HALT: u64 = 1;
/// Request: cause a triple fault.
pub const REQUEST_TRIPLE_FAULT: u64 = 2;
/// Request: no timer interrupts on this CPU any more.
pub const REQUEST_MASK_TIMER: u64 = 4;
/// Request: stop this CPU for good and count it in `STOPPED_CPUS`, as the last thing that it writes.
pub const REQUEST_STOP: u64 = 5;
/// Request: go on where there are only devices, which KVM cannot emulate.
pub const REQUEST_RUN_DEVICE: u64 = 3;

/// CPUs that have stopped for good.
#[unsafe(no_mangle)]
pub static STOPPED_CPUS: AtomicU64 = AtomicU64::new(0);

// Local APIC registers: Intel SDM volume 3, 11.4.1. The timer runs at 1 GHz in KVM; divided by 16, 10 ms a tick.
global_asm!(
    r#"
    .section .text.entry, "ax"
    .global _start
_start:
    cli
    cld
    cmp rdi, {cpus_max}
    jae 9f
    mov r12, rdi
    mov r13, rsi
    lea rax, [r12 + 1]
    shl rax, 13
    lea rsp, [rax + RING0_STACKS]

    # Task state: stack for ring 0, I/O bitmap behind the 104 bytes.
    imul rdi, r12, {task_len}
    add rdi, offset TASKS
    mov [rdi + 4], rsp
    mov word ptr [rdi + 102], 104

    # Its descriptor: limit 104 + 8192, available 64-bit task state.
    mov rbx, 0x0000890000002068
    mov rax, rdi
    and rax, 0xffffff
    shl rax, 16
    or rbx, rax
    shr rdi, 24
    shl rdi, 56
    or rbx, rdi
    mov rcx, r12
    shl rcx, 4
    mov [rcx + GDT + 40], rbx
    lgdt [GDT_POINTER]
    push 0x08
    lea rax, [rip + 2f]
    push rax
    retfq
2:
    mov eax, 0x1b
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov eax, 0x10
    mov ss, eax
    add ecx, 0x28
    ltr cx

    # 64 interrupt gates; all CPUs write the same ones.
    xor ecx, ecx
    mov rdi, offset IDT
    mov rax, offset STUBS
3:
    mov rbx, rax
    and ebx, 0xffff
    or ebx, 0x00080000
    mov [rdi], ebx
    mov rbx, rax
    and ebx, 0xffff0000
    or ebx, 0x8e00
    mov [rdi + 4], ebx
    mov qword ptr [rdi + 8], 0
    add rdi, 16
    add rax, 16
    inc ecx
    cmp ecx, 64
    jb 3b
    lidt [IDT_POINTER]

    mov eax, 0xfee00000
    mov dword ptr [rax + 0xf0], 0x13f
    mov dword ptr [rax + 0x3e0], 0x3
    mov dword ptr [rax + 0x320], 0x20020
    mov dword ptr [rax + 0x380], 625000

    # To ring 3: data segment, stack, flags with interrupts on, code segment, address.
    lea rax, [r12 + 1]
    shl rax, 16
    lea rax, [rax + STACKS - 8]
    push 0x1b
    push rax
    push 0x3202
    push 0x23
    lea rax, [rip + guest_main]
    push rax
    mov rdi, r12
    mov rsi, r13
    xor ebp, ebp
    iretq
9:
    hlt
    jmp 9b

    # One stub of 16 bytes for each vector. Those without an error code push a zero.
    .balign 16
STUBS:
    .set vector, 0
    .rept 64
    .balign 16
    .if (vector != 8) && (vector != 17) && (vector != 21) && ((vector < 10) || (vector > 14))
    push 0
    .endif
    push vector
    jmp interrupt
    .set vector, vector + 1
    .endr

    # Stack: vector, error code, rip, cs, rflags, rsp, ss.
    .balign 16
interrupt:
    push rax
    push rcx
    mov rax, [rsp + 16]
    cmp rax, 0x20
    je 2f
    cmp rax, 2
    je 3f
    cmp rax, 0x3f
    je 8f
    cmp rax, 6
    je 4f
    jmp 5f

2:  # Timer: count and acknowledge.
    mov rcx, rsp
    sub rcx, offset RING0_STACKS
    shr rcx, 13
    lock inc qword ptr [rcx*8 + TICKS]
    mov eax, 0xfee00000
    mov dword ptr [rax + 0xb0], 0
    jmp 8f

3:  # NMI: say so. If the console stays taken, perhaps by what was interrupted here, say it into the middle.
    push rdx
    push rsi
    mov ecx, 2000
22:
    mov al, 1
    xchg al, [CONSOLE_LOCK]
    test al, al
    jz 23f
    dec ecx
    jnz 22b
23:
    movzx esi, al
    push rsi
    mov edx, 0x3f8
    mov rsi, offset NMI_TEXT
    mov ecx, offset NMI_TEXT_LEN
    rep outsb
    mov rax, rsp
    sub rax, offset RING0_STACKS
    shr rax, 13
    add al, 0x30
    out dx, al
    mov al, 10
    out dx, al
    pop rax
    mov [CONSOLE_LOCK], al
    pop rsi
    pop rdx

8:  # Back to what was interrupted.
    pop rcx
    pop rax
    add rsp, 16
    iretq

4:  # Invalid instruction: a request if the interrupted rax says so.
    movabs rcx, {request}
    cmp [rsp + 8], rcx
    jne 5f
    cmp rdi, {halt}
    jne 6f
    add qword ptr [rsp + 32], 2
    sti
    hlt
    cli
    jmp 8b
6:
    cmp rdi, {run_device}
    je 24f
    cmp rdi, {mask_timer}
    je 25f
    cmp rdi, {stop}
    je 26f
    lidt [NO_IDT_POINTER]
    ud2
24:
    mov eax, 0xfe000000
    jmp rax
25:
    mov eax, 0xfee00000
    mov dword ptr [rax + 0x320], 0x30020
    add qword ptr [rsp + 32], 2
    jmp 8b
26:
    mov eax, 0xfee00000
    mov dword ptr [rax + 0x320], 0x30020
    lock inc qword ptr [STOPPED_CPUS]
27:
    cli
    hlt
    jmp 27b

5:  # Any other exception. In ring 3: go on there, in exception(vector, error code, rip, cr2).
    test byte ptr [rsp + 40], 3
    jz 7f
    mov rdi, [rsp + 16]
    mov rsi, [rsp + 24]
    mov rdx, [rsp + 32]
    mov rax, [rsp + 56]
    sub rax, 128
    and rax, -16
    sub rax, 8
    mov [rax], rdx
    mov [rsp + 56], rax
    mov rcx, offset exception
    mov [rsp + 32], rcx
    mov rcx, cr2
    add rsp, 32
    iretq
7:  # In ring 0: there is nobody left to ask.
    mov al, 1
    mov dx, 0x505
    out dx, al
9:
    hlt
    jmp 9b

    .section .rodata.entry, "a"
NMI_TEXT:
    .ascii "NMI on CPU "
    .set NMI_TEXT_LEN, . - NMI_TEXT
    .balign 8
GDT_POINTER:
    .word 5 * 8 + {cpus_max} * 16 - 1
    .quad GDT
    .balign 8
IDT_POINTER:
    .word 64 * 16 - 1
    .quad IDT
    .balign 8
NO_IDT_POINTER:
    .word 0
    .quad 0

    # Null, ring-0 code and data, ring-3 data and code, then a task state of 16 bytes for each CPU.
    .section .data.entry, "aw"
    .balign 16
GDT:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cff3000000ffff
    .quad 0x00affb000000ffff
    .zero {cpus_max} * 16
    .text
"#,
    cpus_max = const CPUS_MAX,
    task_len = const TASK_LEN,
    request = const REQUEST,
    halt = const REQUEST_HALT,
    run_device = const REQUEST_RUN_DEVICE,
    mask_timer = const REQUEST_MASK_TIMER,
    stop = const REQUEST_STOP,
);
