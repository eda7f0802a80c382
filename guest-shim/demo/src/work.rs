//! What the guest does: fill memory, count, and meet its end.
use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest_shim::boot::{BootInfo, MAGIC, RamRange};
use guest_shim::pattern::{DEMO_FILL_GPA, DEMO_SEED, page_word, word};

use crate::console::say;
use crate::options::Options;
use crate::{cpu, host, own_dump, report};

const PAGE_LEN: u64 = 4096;
const WORDS: u64 = PAGE_LEN / 8;
/// Timer ticks between heartbeats.
const HEARTBEAT_TICKS: u64 = 10;

/// CPUs that have filled their share of memory.
static FILLED_CPUS: AtomicUsize = AtomicUsize::new(0);
/// What the busy CPUs have found so far; keeps their work from being optimised away.
static CHECKSUM: AtomicU64 = AtomicU64::new(0);

/// Every CPU starts here, in ring 3.
#[unsafe(no_mangle)]
extern "C" fn guest_main(index: usize, info: &'static BootInfo) -> ! {
    assert!(info.magic == MAGIC, "no boot information: {:#x}", info.magic);
    let options = Options::new(info);
    let cpus = usize::try_from(info.vcpus)
        .unwrap_or(1)
        .clamp(1, crate::entry::CPUS_MAX);
    if index == 0 {
        start(info, &options);
    }
    fill_share(info, &options, index, cpus);
    FILLED_CPUS.fetch_add(1, Ordering::SeqCst);
    while FILLED_CPUS.load(Ordering::SeqCst) < cpus {
        spin_loop();
    }
    if index == 0 {
        say!("filled {} MiB from {} MiB", options.touch_mib, options.touch_from_mib);
        say!("heartbeat 0");
    }
    // The highest CPU meets the end, so that on more than one CPU it is not the first.
    if index == cpus - 1 {
        meet_the_end(info, &options);
    }
    if options.mode == "heartbeat" || options.mode == "crashloaded" {
        beat(index);
    }
    stay_busy(info, &options)
}

fn start(info: &BootInfo, options: &Options) {
    let mib: u64 = ranges(info).iter().map(|range| range.len_bytes >> 20).sum();
    say!(
        "coreferry demo guest {}: {} CPUs, {mib} MiB, mode {}",
        env!("CARGO_PKG_VERSION"),
        info.vcpus,
        options.mode
    );
    if options.pci && !host::use_pci() {
        say!("no shim or no pvpanic on the PCI bus, using ports");
    }
    match report::register() {
        Ok(()) => say!(
            "panic record registered by {}",
            if options.pci { "PCI" } else { "port" }
        ),
        Err(error) => say!("no panic record: {error:?}"),
    }
}

/// The guest's RAM, lowest first.
pub fn ranges(info: &BootInfo) -> &[RamRange] {
    let used = usize::try_from(info.ranges_len).unwrap_or(0).min(info.ranges.len());
    info.ranges.get(..used).unwrap_or(&[])
}

/// The pages to fill: from `touch_from_mib` upwards in RAM, `touch_mib` in all.
fn pages(info: &BootInfo, options: &Options) -> impl Iterator<Item = u64> {
    let wanted = options.touch_mib << 20;
    let lowest = options.touch_from_mib.max(DEMO_FILL_GPA >> 20) << 20;
    let all = ranges(info).iter().flat_map(move |range| {
        let start = range.gpa.max(lowest);
        let end = range.gpa + range.len_bytes;
        (start / PAGE_LEN..end.max(start) / PAGE_LEN).map(|page| page * PAGE_LEN)
    });
    all.take(usize::try_from(wanted / PAGE_LEN).unwrap_or(0))
}

fn page_words(gpa: u64) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(usize::try_from(gpa).unwrap_or(0))
}

fn fill_share(info: &BootInfo, options: &Options, index: usize, cpus: usize) {
    for gpa in pages(info, options).skip(index).step_by(cpus) {
        let first = page_word(DEMO_SEED, gpa);
        let page = page_words(gpa);
        for at in 0..WORDS {
            // SAFETY: RAM above this program's image, mapped one to one, and each page belongs to one CPU.
            unsafe { page.add(at as usize).write_volatile(word(first, at)) };
        }
    }
}

/// Checks a page against the pattern.
#[inline(never)]
fn check_page(gpa: u64) -> u64 {
    let first = page_word(DEMO_SEED, gpa);
    let page = page_words(gpa);
    let mut sum = 0_u64;
    for at in 0..WORDS {
        // SAFETY: as in `fill_share`; filled pages are not written again.
        let found = unsafe { page.add(at as usize).read_volatile() };
        assert!(
            found == word(first, at),
            "page {gpa:#x} has lost its pattern at word {at}"
        );
        sum = sum.wrapping_add(found);
    }
    sum
}

#[inline(never)]
fn stay_busy(info: &BootInfo, options: &Options) -> ! {
    loop {
        for gpa in pages(info, options) {
            own_dump::stop_if_asked();
            CHECKSUM.fetch_add(check_page(gpa), Ordering::Relaxed);
        }
        if options.touch_mib == 0 {
            own_dump::stop_if_asked();
            cpu::halt();
        }
    }
}

fn beat(index: usize) -> ! {
    let mut count = 0_u64;
    loop {
        cpu::wait_ticks(HEARTBEAT_TICKS);
        count += 1;
        if index == 0 {
            say!("heartbeat {count}");
        }
    }
}

fn meet_the_end(info: &BootInfo, options: &Options) {
    cpu::wait_ticks(options.delay_ticks);
    match options.mode {
        "heartbeat" => {}
        "poweroff" => host::power_off(),
        "reset" => host::reset(),
        "reset-keyboard" => host::reset_by_keyboard(),
        "triple-fault" => cpu::triple_fault(),
        "internal-error" => cpu::run_device(),
        "page-fault" => touch_nothing(),
        "crashloaded" => host::pvpanic(host::CRASHLOADED),
        "pvpanic-only" => host::pvpanic(host::PANICKED),
        "panic-console" => say!("[    0.200000] Kernel panic - not syncing: demo guest: sysrq triggered crash"),
        _ => inspect_cargo(info, options),
    }
}

/// The way to the panic: a few frames, so that a debugger has something to show.
#[inline(never)]
fn inspect_cargo(info: &BootInfo, options: &Options) {
    let mut inspected = 0_u64;
    for gpa in pages(info, options).take(64) {
        CHECKSUM.fetch_add(check_page(gpa), Ordering::Relaxed);
        inspected += 1;
    }
    sign_manifest(black_box(inspected));
}

#[inline(never)]
fn sign_manifest(pages_inspected: u64) {
    let cpu = cpu::index();
    assert!(
        black_box(cpu) > crate::entry::CPUS_MAX,
        "demo guest: the ferry's cargo is lost after {pages_inspected} pages (this panic is on purpose)"
    );
}

/// Reads where nothing is mapped.
#[inline(never)]
fn touch_nothing() {
    let nowhere = core::ptr::with_exposed_provenance::<u64>(0x7000_0000_1000);
    // SAFETY: not sound at all: the page fault is the purpose, and its handler never comes back.
    black_box(unsafe { nowhere.read_volatile() });
}
