//! Gets a vCPU's thread out of the guest, whatever it is doing.
//!
//! A signal alone can come in the moment between the thread's last look at its orders and KVM_RUN, and is then lost; so
//! `immediate_exit` is set first, which makes KVM_RUN return at once (Linux Documentation/virt/kvm/api.rst).
#![allow(
    unsafe_code,
    reason = "writes one byte of another thread's kvm_run page and signals that thread"
)]
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// Kicks one vCPU thread. Must be dropped before that thread ends or its vCPU is dropped.
#[derive(Debug)]
pub struct Kicker {
    thread: libc::pthread_t,
    immediate_exit: *mut u8,
}

// SAFETY: the pointer leads to a page shared with the kernel, which is read and written atomically from any thread; a
// pthread_t may be used from any thread.
unsafe impl Send for Kicker {}

impl Kicker {
    /// A kicker for the calling thread, which runs the vCPU that `immediate_exit` belongs to.
    ///
    /// # Errors
    /// If the signal's handler cannot be installed.
    pub(super) fn for_this_thread(immediate_exit: *mut u8) -> io::Result<Kicker> {
        register_signal_handler(SIGRTMIN(), ignore)?;
        // SAFETY: pthread_self has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        Ok(Kicker { thread, immediate_exit })
    }

    /// Makes the vCPU leave the guest, now or as soon as it enters it. It finds [`super::Exit::Interrupted`].
    pub fn kick(&self) {
        // SAFETY: the owner keeps the vCPU, and so its kvm_run page, alive while this exists; a byte is always aligned.
        let immediate_exit = unsafe { AtomicU8::from_ptr(self.immediate_exit) };
        immediate_exit.store(1, Ordering::SeqCst);
        // SAFETY: the thread has not ended while this exists. The handler does nothing, so any time will do.
        unsafe { libc::pthread_kill(self.thread, SIGRTMIN()) };
    }
}

/// The signal only has to interrupt KVM_RUN.
extern "C" fn ignore(_signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {}
