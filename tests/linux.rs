//! Stock Debian kernels under our machine, on the real `kvm_amd`. How that runs on a machine without hardware virtualisation,
//! and how a case is written, is told in `linux/outer.rs`.
//!
//! One test for each kernel of the matrix. By itself the two run that between them have what matters: Debian 12's own kernel for
//! virtual machines, and the newer one for all machines, whose e1000 finds our em. Needs the testbed that `cargo xtask` fetches
//! (`COREFERRY_TESTBED`); without it a test says so and passes, except in CI. While you work on one case, `COREFERRY_CASES=name,name`
//! leaves out the others.

#[path = "linux/boots.rs"]
mod boots;
#[path = "linux/case.rs"]
mod case;
mod common;
#[path = "linux/crashes.rs"]
mod crashes;
#[path = "linux/debuggers.rs"]
mod debuggers;
#[path = "linux/em.rs"]
mod em;
#[path = "linux/kdump.rs"]
mod kdump;
#[path = "linux/kept.rs"]
mod kept;
#[path = "linux/kernels.rs"]
mod kernels;
#[path = "linux/lives.rs"]
mod lives;
#[path = "linux/long_dump.rs"]
mod long_dump;
#[path = "linux/machine.rs"]
mod machine;
#[allow(dead_code, reason = "of the readers' module, whose own tests write cores")]
#[path = "tools/ours.rs"]
mod ours;
#[path = "linux/outer.rs"]
mod outer;
#[path = "linux/pack.rs"]
mod pack;
#[path = "linux/pvh.rs"]
mod pvh;
#[allow(dead_code, reason = "each test of cores asks its own readers")]
#[path = "tools/readers.rs"]
mod readers;
#[path = "linux/reuse.rs"]
mod reuse;
#[path = "tools/run.rs"]
mod run;
#[path = "linux/seen.rs"]
mod seen;
#[path = "linux/shim.rs"]
mod shim;
#[path = "linux/slow_link.rs"]
mod slow_link;
#[path = "tools/testbed.rs"]
mod testbed;

use std::path::Path;

use anyhow::{Context as _, Result};
use case::Case;
use common::Serve;
use kernels::Kernel;
use long_dump::Times;
use seen::Seen;
use slow_link::SlowLink;
use testbed::Testbed;

#[test]
fn debian_6_1_cloud_lives_and_its_crashes_become_cores() {
    on(Kernel::Cloud61);
}

#[test]
fn debian_6_12_generic_lives_and_its_crashes_become_cores() {
    on(Kernel::Generic612);
}

#[test]
#[ignore = "of the whole matrix"]
fn debian_6_1_generic_lives_and_its_crashes_become_cores() {
    on(Kernel::Generic61);
}

#[test]
#[ignore = "of the whole matrix"]
fn debian_6_12_cloud_lives_and_its_crashes_become_cores() {
    on(Kernel::Cloud612);
}

#[test]
fn debuggers_open_the_cores_of_debian_6_1_cloud_with_and_without_fw_cfg() {
    let cases = |_: &Testbed, _: &Path| Ok(debuggers::cases(everything()));
    with(Kernel::Cloud61, cases, debuggers::check);
}

#[test]
#[ignore = "takes minutes"]
fn debuggers_open_a_core_of_debian_6_1_cloud_by_the_kernel_in_it() {
    keeps(Kernel::Cloud61);
}

#[test]
#[ignore = "takes long, and needs the symbols of the whole matrix"]
fn debuggers_open_cores_of_the_other_kernels_by_the_kernel_in_them() {
    for kernel in [Kernel::Generic61, Kernel::Cloud612, Kernel::Generic612] {
        keeps(kernel);
    }
}

#[test]
fn pages_reported_free_and_used_again_are_in_the_core() {
    let cases = |_: &Testbed, _: &Path| Ok(reuse::cases(everything()));
    with(Kernel::Cloud61, cases, reuse::check);
}

#[test]
fn debian_6_1_cloud_goes_on_after_a_slow_dump() {
    goes_on(Kernel::Cloud61, Times::SHORT);
}

#[test]
#[ignore = "takes minutes"]
fn debian_6_1_cloud_goes_on_after_a_dump_of_a_minute() {
    goes_on(Kernel::Cloud61, Times::LONG);
}

#[test]
#[ignore = "takes minutes"]
fn debian_6_12_cloud_goes_on_after_a_dump_of_a_minute() {
    goes_on(Kernel::Cloud612, Times::LONG);
}

/// A core with its kernel and all its symbols.
fn keeps(kernel: Kernel) {
    let Some(testbed) = Testbed::find() else { return };
    if !kernel.is_there(&testbed) {
        return;
    }
    let Some(vmlinux) = kept::with_symbols(kernel, &testbed).expect("the release of a kernel") else {
        common::skip(&format!(
            "the testbed lacks the symbols of {} (cargo xtask matrix)",
            kernel.name()
        ));
        return;
    };
    let cases = |_: &Testbed, _: &Path| kept::cases(kernel, &vmlinux);
    with(kernel, cases, |testbed, dir, all| {
        kept::check(testbed, dir, all, &vmlinux)
    });
}

/// A dump over a slow link to a receiver of this machine.
fn goes_on(kernel: Kernel, times: Times) {
    let dir = common::temp_dir();
    let serve = Serve::start(&dir.path().join("cores"));
    let link = SlowLink::start(serve.netdump, times.slow).expect("loopback has free ports");
    // QEMU's user network shows this machine's loopback as 10.0.2.2.
    let receiver = format!("10.0.2.2:{}", link.address.port());
    let cases = |_: &Testbed, _: &Path| Ok(vec![long_dump::case(kernel, times, &receiver)]);
    with(kernel, cases, |_, _, _| {
        let cores = serve.cores();
        // An earlier run of the machine may have left another.
        let newest = cores.first().context("no core came")?;
        anyhow::ensure!(newest["state"] == "complete", "{cores:?}");
        Ok(())
    });
}

/// Whether whole matrices and long runs are wanted.
fn everything() -> bool {
    std::env::var_os("COREFERRY_ALL").is_some()
}

/// Everything that one kernel must show.
fn on(kernel: Kernel) {
    let cases = |testbed: &Testbed, dir: &Path| {
        let mut cases = boots::cases(kernel, testbed)?;
        cases.extend(crashes::cases(kernel));
        cases.extend(lives::cases(kernel));
        cases.extend(em::cases(kernel, testbed)?);
        cases.extend(shim::cases(kernel, testbed)?);
        cases.extend(kdump::cases(kernel, testbed, dir)?);
        // Of this one the testbed has the uncompressed image.
        if kernel == Kernel::Cloud61 {
            cases.push(pvh::case(kernel, testbed)?);
        }
        cases.retain(|case| is_wanted(kernel, case.name));
        Ok(cases)
    };
    with(kernel, cases, |testbed, dir, all| {
        kdump::check(testbed, dir, kernel, all)
    });
}

/// Whether a case runs. Where not everything was asked for, each runs once, and the drivers with both kernels.
fn is_wanted(kernel: Kernel, name: &str) -> bool {
    if everything() {
        return true;
    }
    match kernel {
        Kernel::Cloud61 => [
            "lives",
            "resets",
            "tripled",
            "nmi",
            "restarted",
            "braked",
            "shim",
            "pvh",
        ]
        .contains(&name),
        Kernel::Generic612 => ["lives", "em", "two", "early"].contains(&name),
        Kernel::Generic61 | Kernel::Cloud612 => true,
    }
}

/// Runs cases of a kernel, if the testbed has it, and looks at what they left.
fn with(
    kernel: Kernel,
    cases: impl FnOnce(&Testbed, &Path) -> Result<Vec<Case>>,
    check: impl FnOnce(&Testbed, &Path, &[Seen]) -> Result<()>,
) {
    let Some(testbed) = Testbed::find() else { return };
    if !kernel.is_there(&testbed) {
        return;
    }
    let dir = common::temp_dir();
    let chosen = std::env::var("COREFERRY_CASES").ok();
    let is_chosen = |case: &Case| {
        chosen
            .as_ref()
            .is_none_or(|names| names.split(',').any(|name| name == case.name))
    };
    let cases = cases(&testbed, dir.path()).map(|cases| cases.into_iter().filter(is_chosen).collect::<Vec<_>>());
    let ran = cases.and_then(|cases| outer::run(&testbed, dir.path(), &cases));
    if let Err(error) = ran.and_then(|seen| check(&testbed, dir.path(), &seen)) {
        panic!("{error:#}");
    }
}
