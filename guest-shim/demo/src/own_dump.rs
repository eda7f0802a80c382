//! The guest dumps itself: all other CPUs stop, and the one that panicked sends all RAM through the guest's own em.
//!
//! From the first byte sent on, nothing is written but the dump area: the driver's rings and buffers, the client's window
//! and the stack that the dump runs on. All else is as the panic left it, so whoever compares the core with the memory
//! knows where the two may differ: between the symbols `dump_area_start` and `dump_area_end`.
use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::mem::MaybeUninit;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use guest_shim::boot::{BOOT_INFO_GPA, BootInfo};
use guest_shim::self_dump::polled::{FRAME_LEN_MAX, WINDOW_LEN, Window};
use guest_shim::self_dump::protocol::StationConfig;
use guest_shim::self_dump::protocol::wire::CLIENT_PORT;
use guest_shim::self_dump::{CHUNK_LEN, CoreLayout, KernelHeader, Machine as _, SEND_BUFFER_LEN, Scratch, SelfDump};

use crate::console::{say, whisper};
use crate::em::{Clock, Em};
use crate::entry::{CPUS_MAX, Raw, STOPPED_CPUS};
use crate::options::{Netdump, Options};
use crate::{cpu, host, work};

/// Timer ticks (10 ms) that the other CPUs may take to stop.
const STOP_TICKS: u64 = 500;
/// What one entry of the page tables maps: the first access to each writes to its entry.
const MAPPED_LEN: u64 = 2 << 20;
/// Longest panic message in the kernel dump header (`panicstring` of `struct kerneldumpheader`).
const PANIC_LEN: usize = 176;

/// Everything that is written while the dump runs.
#[repr(C, align(4096))]
struct DumpArea {
    window: [u8; WINDOW_LEN],
    send_buffer: [u8; SEND_BUFFER_LEN],
    chunk: [u8; CHUNK_LEN],
    frame: [u8; FRAME_LEN_MAX],
    panic: Text,
    plan: MaybeUninit<Plan>,
}

/// The dump runs on this; the driver and the client are on it as well.
const STACK_LEN: usize = 1 << 17;

/// What the dump needs to know, taken down before it leaves the old stack.
#[derive(Clone, Copy)]
struct Plan {
    netdump: Netdump,
    registers: u64,
    clock: Clock,
    layout: CoreLayout,
}

struct Area(UnsafeCell<DumpArea>);

// SAFETY: used by the one CPU that wins DUMPING.
unsafe impl Sync for Area {}

#[unsafe(link_section = ".bss.dump_area")]
static AREA: Area = Area(UnsafeCell::new(DumpArea {
    window: [0; WINDOW_LEN],
    send_buffer: [0; SEND_BUFFER_LEN],
    chunk: [0; CHUNK_LEN],
    frame: [0; FRAME_LEN_MAX],
    panic: Text {
        bytes: [0; PANIC_LEN],
        used: 0,
    },
    plan: MaybeUninit::zeroed(),
}));

#[unsafe(link_section = ".bss.dump_area")]
static STACK: Raw<STACK_LEN> = Raw::new();

unsafe extern "C" {
    static dump_area_start: u8;
    static dump_area_end: u8;
}

/// All other CPUs shall stop.
static STOP: AtomicBool = AtomicBool::new(false);
/// The dump has begun.
static DUMPING: AtomicBool = AtomicBool::new(false);

/// Stops this CPU for good if another one dumps the guest. CPUs call it wherever they go on after a panic.
pub fn stop_if_asked() {
    if STOP.load(Ordering::Relaxed) {
        cpu::stop();
    }
}

/// A panic after the first one. If it is the dump's, the host hears of it at once.
pub fn panicked(info: &PanicInfo<'_>) {
    if DUMPING.load(Ordering::Relaxed) {
        whisper!("the guest's own dump panicked: {}", info.message());
        host::pvpanic(host::PANICKED);
    }
}

/// Dumps the guest if its command line says where to; then does not come back.
pub fn make_if_wanted(info: &PanicInfo<'_>) {
    let boot_info = core::ptr::with_exposed_provenance::<BootInfo>(usize::try_from(BOOT_INFO_GPA).unwrap_or(0));
    // SAFETY: the boot protocol puts it there, and nothing writes it.
    let boot_info = unsafe { &*boot_info };
    let Some(netdump) = Options::new(boot_info).netdump else {
        return;
    };
    let Some(registers) = host::find_em() else {
        say!("no em to send the guest's own dump through");
        return;
    };
    say!("netdump: dumping to {}", netdump.receiver);
    let clock = Clock::measured();
    STOP.store(true, Ordering::SeqCst);
    wait_for_others(boot_info);
    cpu::mask_timer();
    DUMPING.store(true, Ordering::SeqCst);
    // SAFETY: this CPU alone runs, and it takes the area once.
    let area = unsafe { &mut *AREA.0.get() };
    let _ = core::fmt::write(&mut area.panic, format_args!("{}", info.message()));
    area.plan.write(Plan {
        netdump,
        registers,
        clock,
        layout: CoreLayout::new(work::ranges(boot_info)),
    });
    cpu::leave_stack(STACK.address() + STACK_LEN, dump);
}

fn wait_for_others(boot_info: &BootInfo) {
    let others = u64::from(boot_info.vcpus).min(CPUS_MAX as u64) - 1;
    let index = cpu::index();
    let give_up_at = cpu::ticks(index) + STOP_TICKS;
    while STOPPED_CPUS.load(Ordering::SeqCst) < others && cpu::ticks(index) < give_up_at {
        spin_loop();
    }
    let stopped = STOPPED_CPUS.load(Ordering::SeqCst);
    if stopped < others {
        say!("netdump: only {stopped} of {others} other CPUs have stopped");
    }
}

/// The dump, on its own stack.
extern "C" fn dump() -> ! {
    // SAFETY: as in `make_if_wanted`, which is over.
    let area = unsafe { &mut *AREA.0.get() };
    let DumpArea {
        window,
        send_buffer,
        chunk,
        frame,
        panic,
        plan,
    } = area;
    // SAFETY: written by `make_if_wanted`, which alone comes here.
    let plan = unsafe { plan.assume_init_ref() };
    let mut em = Em::new(plan.registers, plan.clock);
    settle(&mut em, plan);
    let wanted = SelfDump {
        station: StationConfig {
            mac: em.mac(),
            client: plan.netdump.client.0,
            prefix_len: plan.netdump.client.1,
            gateway: plan.netdump.gateway,
            server: *plan.netdump.receiver.ip(),
            client_port: CLIENT_PORT,
            mtu: plan.netdump.mtu,
        },
        herald_port: plan.netdump.receiver.port(),
        window: Window {
            gpa: window.as_ptr().expose_provenance() as u64,
            len_bytes: WINDOW_LEN as u64,
        },
        layout: plan.layout,
        header: KernelHeader {
            hostname: "coreferry-demo",
            version: concat!("coreferry-demo ", env!("CARGO_PKG_VERSION"), "\n"),
            panic: panic.as_str(),
        },
    };
    let scratch = Scratch {
        send_buffer,
        chunk,
        frame,
    };
    match wanted.run(&mut em, scratch) {
        Ok(stats) => whisper!(
            "netdump: the receiver has {} bytes, {} packets were sent, {} of them again",
            stats.acked_bytes,
            stats.sent_packets,
            stats.retransmitted_packets
        ),
        Err(error) => whisper!("netdump failed: {error}"),
    }
    // Not a word on the old stack, and no interrupt: the host finds the memory as the core has it.
    host::pvpanic(host::PANICKED);
    loop {
        cpu::stop();
    }
}

/// Touches all that will be touched: a CPU notes first accesses in the page tables, and they are in the dump as well.
fn settle(em: &mut Em, plan: &Plan) {
    em.mac();
    let mut at = 4096;
    while let Some((gpa, rest)) = plan.layout.memory_at(at) {
        let mut byte = [0];
        em.read_ram(gpa, &mut byte);
        at += rest.min(MAPPED_LEN - gpa % MAPPED_LEN);
    }
    let (start, end) = ((&raw const dump_area_start).addr(), (&raw const dump_area_end).addr());
    for page in (start..end).step_by(4096) {
        // The same byte again, which makes the page table's entry a written one.
        cpu::copy(page as u64, page as u64, 1);
    }
}

/// A short text without an allocator.
struct Text {
    bytes: [u8; PANIC_LEN],
    used: usize,
}

impl Text {
    fn as_str(&self) -> &str {
        self.bytes
            .get(..self.used)
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .unwrap_or("")
    }
}

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.len() - self.used;
        let cut = text.floor_char_boundary(room);
        let end = self.used + cut;
        if let (Some(place), Some(text)) = (self.bytes.get_mut(self.used..end), text.as_bytes().get(..cut)) {
            place.copy_from_slice(text);
            self.used = end;
        }
        Ok(())
    }
}
