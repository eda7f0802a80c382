//! The serial port, and a log in memory of all that went there.
use core::fmt::{self, Write};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use guest_shim::GuestRange;

use crate::cpu;

/// The first serial port.
const SERIAL_PORT: u16 = 0x3f8;
/// Room in the log; what does not fit is only printed.
const LOG_LEN: usize = 16 * 1024;
/// Turns of waiting for a line of another CPU: about a second, as that CPU may be a thread without a processor just now.
const LINE_SPINS: u32 = 20_000_000;

/// Who prints; the NMI handler takes it too.
#[unsafe(no_mangle)]
static CONSOLE_LOCK: AtomicBool = AtomicBool::new(false);
static LOG: [AtomicU8; LOG_LEN] = [const { AtomicU8::new(0) }; LOG_LEN];
static LOG_USED: AtomicUsize = AtomicUsize::new(0);

/// Prints a line.
macro_rules! say {
    ($($argument:tt)*) => { $crate::console::print_line(format_args!($($argument)*)) };
}
pub(crate) use say;

/// Prints a line that does not go into the log: nothing in memory changes.
macro_rules! whisper {
    ($($argument:tt)*) => { $crate::console::print_unlogged(format_args!($($argument)*)) };
}
pub(crate) use whisper;

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            cpu::out8(SERIAL_PORT, byte);
            let at = LOG_USED.fetch_add(1, Ordering::Relaxed);
            if let Some(slot) = LOG.get(at) {
                slot.store(byte, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Prints a line, one CPU at a time.
pub fn print_line(line: fmt::Arguments<'_>) {
    while CONSOLE_LOCK.swap(true, Ordering::Acquire) {
        spin_loop();
    }
    // The serial port takes everything.
    let _ = Serial.write_fmt(line);
    let _ = Serial.write_str("\n");
    CONSOLE_LOCK.store(false, Ordering::Release);
}

struct Unlogged;

impl Write for Unlogged {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            cpu::out8(SERIAL_PORT, byte);
        }
        Ok(())
    }
}

/// Prints a line, for the last CPU that runs.
pub fn print_unlogged(line: fmt::Arguments<'_>) {
    // The serial port takes everything.
    let _ = Unlogged.write_fmt(line);
    let _ = Unlogged.write_str("\n");
}

/// Waits for the CPU that prints to end its line, and takes the console from one that will not give it back: this CPU may have
/// been stopped in the middle of a line of its own.
pub fn take_over() {
    for _ in 0..LINE_SPINS {
        if !CONSOLE_LOCK.load(Ordering::Relaxed) {
            return;
        }
        spin_loop();
    }
    CONSOLE_LOCK.store(false, Ordering::Release);
}

/// Where the log lies.
pub fn log_range() -> GuestRange {
    let used = LOG_USED.load(Ordering::Relaxed).min(LOG_LEN);
    GuestRange {
        gpa: LOG.as_ptr().addr() as u64,
        len_bytes: used as u64,
    }
}
