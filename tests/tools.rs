//! Do the readers that people use accept our vmcore layout? A stock Debian guest panics under QEMU (TCG, no KVM), QEMU
//! writes its own ELF dump, and the `vmcore` crate lays that out as ours: header room, COREFERRY note, extra text segment,
//! holes for zero pages, trailer. Then readelf, gdb, makedumpfile, drgn and crash must open it, and see what QEMU saw; and the same of
//! the forms that `cores export` makes of it.
//!
//! Needs the testbed that `cargo xtask` fetches (`COREFERRY_TESTBED`); without it the test says so and passes, except in
//! CI.

mod common;
#[path = "tools/export.rs"]
mod export;
#[path = "tools/filtered.rs"]
mod filtered;
#[path = "tools/guest.rs"]
mod guest;
#[path = "tools/ours.rs"]
mod ours;
#[path = "tools/readers.rs"]
mod readers;
#[path = "tools/run.rs"]
mod run;
#[path = "tools/testbed.rs"]
mod testbed;

use anyhow::Result;
use guest::Guest;
use std::time::Instant;
use testbed::Testbed;

/// What a guest of the testbed does to panic, and to tell QEMU where its VMCOREINFO is.
const PANIC: &str = "load pvpanic_mmio qemu_fw_cfg\necho c > /proc/sysrq-trigger\n";

#[test]
fn crash_drgn_makedumpfile_gdb_and_readelf_open_our_layout_of_a_linux_core() {
    let Some(testbed) = Testbed::find() else { return };
    if let Err(error) = check(&testbed) {
        panic!("{error:#}");
    }
}

fn check(testbed: &Testbed) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dump = timed("guest panics, QEMU dumps", || {
        guest::panicked_core(testbed, dir.path(), &Guest::new(testbed))
    })?;
    let core = timed("rewritten to our layout", || {
        ours::rewrite(&dump, &dir.path().join("vmcore"), ours::Notes::All)
    })?;
    anyhow::ensure!(
        core.cpus.len() == guest::VCPUS,
        "{} vCPUs in QEMU's dump",
        core.cpus.len()
    );
    eprintln!("  {}", core.figures());
    timed("memory, page states and digests", || ours::verify(&dump, &core))?;
    let plain_path = dir.path().join("vmcore-without-text");
    let plain = timed("rewritten without text segment", || {
        ours::rewrite(&dump, &plain_path, ours::Notes::NoText)
    })?;
    let bare_path = dir.path().join("vmcore-without-vmcoreinfo");
    let bare = timed("rewritten without VMCOREINFO", || {
        ours::rewrite(&dump, &bare_path, ours::Notes::NoVmcoreinfo)
    })?;

    // Each reader is asked, also when one before it has failed: the report names them all.
    let mut failures = Vec::new();
    let mut ask = |reader: &str, answer: Result<String>| match answer {
        Ok(said) => eprintln!("{reader}: {said}"),
        Err(error) => failures.push(format!("{reader}: {error:#}")),
    };
    ask(
        "readelf",
        timed("readelf", || readers::readelf(testbed, dir.path(), &core)),
    );
    ask("gdb", timed("gdb", || readers::gdb(testbed, dir.path(), &core)));
    ask(
        "makedumpfile",
        timed("makedumpfile", || readers::makedumpfile(testbed, dir.path(), &core)),
    );
    ask("drgn", timed("drgn", || readers::drgn(testbed, dir.path(), &core)));
    ask("crash", timed("crash", || readers::crash(testbed, dir.path(), &core)));
    let again = timed("makedumpfile again", || {
        readers::makedumpfile(testbed, dir.path(), &plain)
    });
    ask("makedumpfile without text segment", again);
    ask(
        "drgn without text segment",
        timed("drgn again", || readers::drgn(testbed, dir.path(), &plain)),
    );
    ask(
        "crash without VMCOREINFO",
        timed("crash again", || readers::crash(testbed, dir.path(), &bare)),
    );
    ask("export", timed("export", || export::check(testbed, dir.path(), &core)));
    ask(
        "a filtered core",
        timed("filter", || filtered::check(testbed, dir.path(), &core)),
    );
    anyhow::ensure!(
        failures.is_empty(),
        "{} readers failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}

/// Linux 6.12 has structures of its own: `struct page` changed much after 6.1.
#[test]
#[ignore = "needs the guests of all kernels"]
fn the_filter_agrees_with_makedumpfile_on_later_kernels() {
    let Some(testbed) = Testbed::find() else { return };
    let check = || -> Result<()> {
        for kernel in ["6.12-cloud", "6.12-generic"] {
            let dir = tempfile::tempdir()?;
            let guest = Guest::of_kernel(&testbed, kernel, PANIC, dir.path())?;
            let dump = timed(kernel, || guest::panicked_core(&testbed, dir.path(), &guest))?;
            let core = ours::rewrite(&dump, &dir.path().join("vmcore"), ours::Notes::All)?;
            let said = timed("filter", || filtered::check_later_kernel(&testbed, dir.path(), &core))?;
            eprintln!("{kernel}: {said}");
        }
        Ok(())
    };
    if let Err(error) = check() {
        panic!("{error:#}");
    }
}

/// Runs one step and says how long it took.
fn timed<T>(step: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = run();
    eprintln!("{step}: {:.1} s", start.elapsed().as_secs_f64());
    result
}
