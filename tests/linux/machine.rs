//! The machine that runs stock kernels under the real `kvm_amd`: a QEMU without KVM that emulates AMD's virtualisation.
//!
//! QEMU before 10.2 loses interrupts in it: `helper_vmrun` and `do_vmexit` (target/i386/tcg/system/svm_helper.c) change
//! `interrupt_request` without a lock or an atomic operation, while another thread sets the bit that says "look at the APIC". A
//! machine whose timer interrupt was lost so sleeps until the next interrupt, which may be minutes away, and one processor whose call
//! to another was lost waits for good. Hence one processor, and [`NUDGE`]s.

use std::io::Write as _;
use std::path::Path;
use std::process::{ChildStdin, Command};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::run;
use crate::testbed::Testbed;

/// What is sent over the serial line for its interrupt, after which the processor looks at the APIC again: XON, which the terminal
/// neither shows nor hands to anybody.
const NUDGE: &[u8] = &[0x11];
/// The longest that a lost interrupt may delay the machine, nearly.
const NUDGE_EVERY: Duration = Duration::from_millis(100);

/// QEMU with that initramfs; its serial line is the standard output. More devices can be added.
pub(crate) fn qemu(testbed: &Testbed, initrd: &Path) -> Command {
    let append = "console=ttyS0 quiet panic=-1 no_timer_check";
    let mut qemu = testbed.qemu(&testbed.path("kernel/vmlinuz"), initrd, append);
    qemu.args(["-smp", "1", "-m", "3G", "-serial", "stdio"]);
    qemu
}

/// Runs the machine to its end or until the time is up; returns what it said, which [`run::said`] does however it ended.
pub(crate) fn run(qemu: &mut Command, dir: &Path, limit: Duration) -> Result<String> {
    let nudge = |mut serial: ChildStdin| {
        while serial.write_all(NUDGE).is_ok() {
            sleep(NUDGE_EVERY);
        }
    };
    run::output_fed(qemu, dir, nudge, limit)
}
