//! The guest's em as the polled driver wants it: registers, memory that the device shares, time.
use core::hint::spin_loop;
use core::sync::atomic::{Ordering, fence};

use guest_shim::self_dump::Machine;
use guest_shim::self_dump::polled::Bus;
use guest_shim::self_dump::protocol::Instant;

use crate::cpu;

/// Receive address 0 as the EEPROM fills it (82540EM SDM, 13.5.13).
const RAL: u32 = 0x5400;
const RAH: u32 = 0x5404;

/// An em at the place of its registers, and a clock.
pub struct Em {
    registers: u64,
    clock: Clock,
}

impl Em {
    /// The em whose registers are at `registers`.
    pub fn new(registers: u64, clock: Clock) -> Em {
        Em { registers, clock }
    }

    /// Its own Ethernet address.
    pub fn mac(&mut self) -> [u8; 6] {
        let [a, b, c, d] = self.read_register(RAL).to_le_bytes();
        let [e, f, ..] = self.read_register(RAH).to_le_bytes();
        [a, b, c, d, e, f]
    }

    fn register(&self, offset: u32) -> *mut u32 {
        core::ptr::with_exposed_provenance_mut(usize::try_from(self.registers).unwrap_or(0) + offset as usize)
    }
}

impl Bus for Em {
    fn read_register(&mut self, offset: u32) -> u32 {
        fence(Ordering::SeqCst);
        // SAFETY: the BAR is mapped one to one and holds device registers, not memory of this program.
        unsafe { self.register(offset).read_volatile() }
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        fence(Ordering::SeqCst);
        // SAFETY: as in `read_register`.
        unsafe { self.register(offset).write_volatile(value) };
    }

    fn read_memory(&mut self, gpa: u64, buf: &mut [u8]) {
        // The written-back half of a descriptor: the device sets its last byte last, so all of it is read at once.
        if let Ok(half) = <&mut [u8; 8]>::try_from(&mut *buf) {
            let place = core::ptr::with_exposed_provenance::<u64>(usize::try_from(gpa).unwrap_or(0));
            // SAFETY: descriptors lie in the driver's window, aligned to 16, and this is their second half.
            *half = unsafe { place.read_volatile() }.to_le_bytes();
            return;
        }
        self.read_ram(gpa, buf);
    }

    fn write_memory(&mut self, gpa: u64, bytes: &[u8]) {
        cpu::copy(bytes.as_ptr().expose_provenance() as u64, gpa, bytes.len());
    }
}

impl Machine for Em {
    fn now(&mut self) -> Instant {
        self.clock.now()
    }

    fn read_ram(&mut self, gpa: u64, buf: &mut [u8]) {
        cpu::copy(gpa, buf.as_mut_ptr().expose_provenance() as u64, buf.len());
    }

    fn pause(&mut self) {
        spin_loop();
    }
}

/// The time-stamp counter with its speed.
#[derive(Clone, Copy)]
pub struct Clock {
    per_ms: u64,
}

impl Clock {
    /// Measures the speed by the timer, for a tenth of a second: long enough that a tick which comes late does not matter much.
    pub fn measured() -> Clock {
        /// Timer interrupts come every 10 ms.
        const TICKS: u64 = 10;
        cpu::wait_ticks(1);
        let start = cpu::time_stamp();
        cpu::wait_ticks(TICKS);
        let per_ms = cpu::time_stamp().wrapping_sub(start) / (TICKS * 10);
        Clock { per_ms: per_ms.max(1) }
    }

    fn now(self) -> Instant {
        let stamp = cpu::time_stamp();
        let (ms, rest) = (stamp / self.per_ms, stamp % self.per_ms);
        Instant::from_nanos(ms * 1_000_000 + rest * 1_000_000 / self.per_ms)
    }
}
