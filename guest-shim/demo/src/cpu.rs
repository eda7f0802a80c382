//! What only single instructions can do.
use core::arch::asm;

use crate::entry::{
    REQUEST, REQUEST_HALT, REQUEST_MASK_TIMER, REQUEST_RUN_DEVICE, REQUEST_STOP, REQUEST_TRIPLE_FAULT, STACK_LEN,
    STACKS, TICKS,
};

/// Writes a byte to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: the I/O bitmap allows it; the host's devices do not touch memory. The compiler must take memory as read,
    // because the host may look at it in this very instruction.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Writes a word to a port.
pub fn out16(port: u16, value: u16) {
    // SAFETY: as in `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// Writes a double word to a port.
pub fn out32(port: u16, value: u32) {
    // SAFETY: as in `out8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}

/// Reads a double word from a port.
pub fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `out8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) };
    value
}

/// Stack pointer, frame pointer, instruction pointer and flags, here.
pub fn position() -> [u64; 4] {
    let (rsp, rbp, rip, rflags);
    // SAFETY: reads registers only; push and pop balance.
    unsafe {
        asm!("mov {0}, rsp", "mov {1}, rbp", "lea {2}, [rip]", "pushfq", "pop {3}",
            out(reg) rsp, out(reg) rbp, out(reg) rip, out(reg) rflags);
    }
    [rsp, rbp, rip, rflags]
}

/// Which CPU this is: its stack tells.
pub fn index() -> usize {
    let marker = 0_u8;
    ((&raw const marker).addr() - STACKS.address()) / STACK_LEN
}

/// Waits for the next interrupt.
pub fn halt() {
    request(REQUEST_HALT);
}

/// Brings this CPU down.
pub fn triple_fault() {
    request(REQUEST_TRIPLE_FAULT);
}

/// Makes KVM give up on this CPU.
pub fn run_device() {
    request(REQUEST_RUN_DEVICE);
}

/// No timer interrupts on this CPU from now on: it does not wake from [`halt`] any more.
pub fn mask_timer() {
    request(REQUEST_MASK_TIMER);
}

/// Stops this CPU for good.
pub fn stop() {
    request(REQUEST_STOP);
}

/// The time-stamp counter.
pub fn time_stamp() -> u64 {
    // SAFETY: reads a counter; ring 3 may.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Copies `len` bytes. In one instruction, so that it does not matter to the compiler what else changes them.
pub fn copy(from: u64, to: u64, len: usize) {
    // SAFETY: callers copy between mapped memory; the compiler takes all memory as changed.
    unsafe {
        asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") len => _,
            options(nostack, preserves_flags));
    }
}

/// Goes on in `then` with the stack that ends at `stack_end`, and never comes back.
pub fn leave_stack(stack_end: usize, then: extern "C" fn() -> !) -> ! {
    // SAFETY: nothing on the old stack is used again; the new one is aligned as a call leaves it.
    unsafe {
        asm!("mov rsp, {0}", "xor ebp, ebp", "call {1}", "ud2", in(reg) stack_end & !0xf, in(reg) then,
            options(noreturn));
    }
}

fn request(what: u64) {
    // SAFETY: the handler knows the request by rax and returns behind the instruction with all registers as they were.
    unsafe { asm!("ud2", in("rax") REQUEST, in("rdi") what) };
}

/// Timer interrupts that CPU `index` has seen.
pub fn ticks(index: usize) -> u64 {
    TICKS[index].load(core::sync::atomic::Ordering::Relaxed)
}

/// Waits for `count` timer interrupts.
pub fn wait_ticks(count: u64) {
    let index = index();
    let end = ticks(index) + count;
    while ticks(index) < end {
        crate::own_dump::stop_if_asked();
        halt();
    }
}
