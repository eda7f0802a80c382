//! What happens on a panic: the record is filled, the host is told, this CPU stops.
use core::cell::UnsafeCell;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest_shim::abi::RawRecord;
use guest_shim::reporter::{RegisterError, Report, Reporter};
use guest_shim::{GuestRange, Registers};

use crate::console::{self, say};
use crate::{cpu, host, own_dump};

/// Facts about this kernel in the form that Linux uses (kernel/vmcore_info.c).
static VMCOREINFO: &str = "OSRELEASE=coreferry-demo-0.1.0\nPAGESIZE=4096\n";

struct Record(UnsafeCell<RawRecord>);

// SAFETY: taken once at the start, before other CPUs can panic with it, and then only by the CPU that wins PANICKING.
unsafe impl Sync for Record {}

static RECORD: Record = Record(UnsafeCell::new(RawRecord::empty()));
static PANICKING: AtomicBool = AtomicBool::new(false);
static FAULT_ADDRESS: AtomicU64 = AtomicU64::new(0);
static FAULT_RIP: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static build_id_start: u8;
    static build_id_end: u8;
}

/// Tells the host where the record lies.
pub fn register() -> Result<(), RegisterError> {
    // SAFETY: see `Record`.
    let reporter = Reporter::new(unsafe { &mut *RECORD.0.get() });
    reporter.register(&mut host::Shim, RECORD.0.get().addr() as u64)
}

/// Exceptions of ring 3 land here.
#[unsafe(no_mangle)]
extern "C" fn exception(vector: u64, error_code: u64, rip: u64, fault_address: u64) -> ! {
    FAULT_RIP.store(rip, Ordering::Relaxed);
    if vector == 14 {
        FAULT_ADDRESS.store(fault_address, Ordering::Relaxed);
        panic!("page fault at address {fault_address:#x}, error code {error_code:#x}, in code at {rip:#x}");
    }
    panic!("exception {vector}, error code {error_code:#x}, in code at {rip:#x}");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if PANICKING.swap(true, Ordering::SeqCst) {
        own_dump::panicked(info);
        // Another CPU reports already, or this one panicked while it reported.
        loop {
            own_dump::stop_if_asked();
            cpu::halt();
        }
    }
    let (file, line) = info
        .location()
        .map_or(("?", 0), |location| (location.file(), location.line()));
    // SAFETY: see `Record`; only one CPU gets here.
    let mut reporter = Reporter::new(unsafe { &mut *RECORD.0.get() });
    reporter.fill(&report(), format_args!("{} ({file}:{line})", info.message()));
    reporter.announce(&mut host::Shim);
    console::take_over();
    say!(
        "demo guest panic on CPU {}: {} ({file}:{line})",
        cpu::index(),
        info.message()
    );
    own_dump::make_if_wanted(info);
    host::pvpanic(host::PANICKED);
    loop {
        cpu::halt();
    }
}

fn report() -> Report<'static> {
    let [rsp, rbp, here, rflags] = cpu::position();
    let rip = match FAULT_RIP.load(Ordering::Relaxed) {
        0 => here,
        fault => fault,
    };
    let cr2 = FAULT_ADDRESS.load(Ordering::Relaxed);
    Report {
        crashed_cpu: u32::try_from(cpu::index()).unwrap_or(u32::MAX),
        time_unix_ns: 0,
        os_name: "coreferry-demo",
        release: env!("CARGO_PKG_VERSION"),
        registers: Some(Registers {
            rsp,
            rbp,
            rip,
            rflags,
            cr2,
            ..Registers::ZERO
        }),
        kernel_log: console::log_range(),
        vmcoreinfo: GuestRange {
            gpa: VMCOREINFO.as_ptr().addr() as u64,
            len_bytes: VMCOREINFO.len() as u64,
        },
        build_id: build_id(),
    }
}

/// The descriptor of the note that the linker made: 12 bytes of header, the name `GNU` and a NUL, then the id.
fn build_id() -> &'static [u8] {
    let (start, end) = (&raw const build_id_start, &raw const build_id_end);
    // SAFETY: the linker script puts both marks around the note.
    let note = unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) };
    note.get(16..).unwrap_or(&[])
}
