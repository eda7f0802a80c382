//! Stock Debian kernels under our machine, on the real `kvm_amd`: a QEMU without KVM (TCG) emulates a machine with AMD's
//! virtualisation, a Debian in it loads KVM, and there the binary under test runs a Debian guest. The receiver runs on the
//! host, which the machine in between reaches by QEMU's user network.
//!
//! One run of that machine serves all guests, two of them side by side; it takes about a minute. Needs the testbed that `cargo
//! xtask` fetches (`COREFERRY_TESTBED`); without it the test says so and passes, except in CI.

mod common;
#[allow(dead_code, reason = "of the readers' module, whose own tests write cores")]
#[path = "tools/ours.rs"]
mod ours;
#[path = "linux/outer.rs"]
mod outer;
#[allow(dead_code, reason = "each test of cores asks its own readers")]
#[path = "tools/readers.rs"]
mod readers;
#[path = "tools/run.rs"]
mod run;
#[path = "tools/testbed.rs"]
mod testbed;

/// What the module that rewrites QEMU's dumps wants to know.
mod guest {
    pub(crate) const VCPUS: usize = 2;
}

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use common::Serve;
use ours::OurCore;
use outer::{Guest, Outer};
use testbed::Testbed;

/// On every guest's command line. `quiet` matters most: each character of a log is several exits, and they are slow here.
/// Freed memory is zeroed, so that there is less to send.
const APPEND: &str = "console=ttyS0 quiet panic=-1 init_on_free=1";

#[test]
fn debian_boots_powers_off_resets_and_its_panics_become_cores_that_debuggers_open() {
    let Some(testbed) = Testbed::find() else { return };
    if !testbed.path("l1.cpio").exists() {
        common::skip("the testbed has no l1.cpio (cargo xtask testbed)");
        return;
    }
    if let Err(error) = check(&testbed) {
        panic!("{error:#}");
    }
}

fn check(testbed: &Testbed) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let serve = Serve::start(&dir.path().join("cores"));
    let to = format!("--netdump 10.0.2.2:{}", serve.netdump.port());
    // Sending takes half a minute here; one core that arrives is enough unless everything is asked for.
    let everything = std::env::var_os("COREFERRY_ALL").is_some();
    let early_to = if everything {
        to.clone()
    } else {
        "--spool /tmp/spool".to_owned()
    };
    let guests = [
        vec![
            Guest::new("told", &to, &format!("{APPEND} crash=1")),
            Guest::new("powered", "", APPEND),
        ],
        vec![
            // Nothing is loaded yet when there is no init: neither pvpanic nor fw_cfg.
            Guest::new(
                "early",
                &format!("{early_to} --panic-console"),
                &format!("{APPEND} rdinit=/none"),
            ),
            Guest::new("restarted", "", &format!("{APPEND} restart=1")).stopped_after("GUEST READY", 2),
        ],
    ];
    let outer = Outer::run(testbed, dir.path(), &guests)?;
    eprintln!("{}", outer.figures());

    // Each guest is looked at, also when one before it has failed: the report names them all.
    let mut failures = Vec::new();
    let mut ask = |what: &str, answer: Result<String>| match answer {
        Ok(said) => eprintln!("{what}: {said}"),
        Err(error) => failures.push(format!("{what}: {error:#}")),
    };
    ask("power off", powers_off(&outer));
    ask("reset", resets(&outer));
    ask("panic", panics(&outer));
    ask("early panic", panics_early(&outer));
    let opened = core(&serve, "told", "Kernel panic - not syncing: sysrq triggered crash");
    match opened.and_then(|core| check_told(&core).map(|()| core)) {
        Err(error) => ask("core", Err(error)),
        Ok(core) => {
            ask("readelf", readers::readelf(testbed, dir.path(), &core));
            ask("gdb", readers::gdb(testbed, dir.path(), &core));
            ask("drgn", readers::drgn(testbed, dir.path(), &core));
            ask("crash", readers::crash(testbed, dir.path(), &core));
        }
    }
    if everything {
        let opened = core(&serve, "early", "Kernel panic - not syncing");
        match opened.and_then(|core| check_early(&core).map(|()| core)) {
            Err(error) => ask("early core", Err(error)),
            Ok(core) => ask("gdb, early core", readers::gdb(testbed, dir.path(), &core)),
        }
    }
    let seen = outer.everything();
    ensure!(failures.is_empty(), "{}\n{seen}", failures.join("\n"));
    Ok(())
}

/// Userspace with two processors that the guest started itself, and an exit code that says it powered off.
fn powers_off(outer: &Outer) -> Result<String> {
    let said = outer.expect("powered", 0)?;
    ensure!(said.contains(" 2 CPUs"), "not both processors are up:\n{said}");
    ensure!(!said.contains("dump "), "an ordinary end is no crash:\n{said}");
    Ok("2 CPUs, exit code 0".into())
}

/// A reset boots again and dumps nothing.
fn resets(outer: &Outer) -> Result<String> {
    let said = outer.expect("restarted", 0)?;
    ensure!(said.contains("the guest reset itself"), "{said}");
    ensure!(
        said.matches("GUEST READY").count() >= 2,
        "it did not boot again:\n{said}"
    );
    ensure!(!said.contains("dump "), "a reset is no crash:\n{said}");
    Ok("boots again".into())
}

fn panics(outer: &Outer) -> Result<String> {
    let said = outer.expect("told", 10)?;
    ensure!(said.contains("the guest reported a panic (pvpanic)"), "{said}");
    // The agent logs every VMCOREINFO that it looks at.
    let line = said
        .lines()
        .find(|line| line.contains("VMCOREINFO"))
        .context("no VMCOREINFO")?;
    ensure!(line.contains("fw_cfg") && line.contains("true"), "{line}");
    Ok("by pvpanic, VMCOREINFO by fw_cfg".into())
}

fn panics_early(outer: &Outer) -> Result<String> {
    let said = outer.expect("early", 10)?;
    ensure!(!said.contains("GUEST READY"), "it was not early:\n{said}");
    let line = said
        .lines()
        .find(|line| line.contains("VMCOREINFO"))
        .context("no VMCOREINFO")?;
    ensure!(line.contains("search") && line.contains("true"), "{line}");
    Ok("by the console, VMCOREINFO by search".into())
}

/// The core of the guest with that name, which must be complete.
fn core(serve: &Serve, guest: &str, panic: &str) -> Result<OurCore> {
    let listed = serve.cores();
    let of_guest = |core: &&serde_json::Value| core["guest"] == guest;
    let core = listed
        .iter()
        .find(of_guest)
        .with_context(|| format!("no core of {guest}: {listed:?}"))?;
    ensure!(core["state"] == "complete", "{core}");
    ensure!(
        core["panic"].as_str().is_some_and(|text| text.contains(panic)),
        "{core}"
    );
    let id = core["id"].as_str().context("a core has an id")?;
    let stored = core["stored_bytes"].as_u64().unwrap_or(0);
    eprintln!(
        "core of {guest}: {} MiB of {} MiB stored",
        stored >> 20,
        core["file_len_bytes"].as_u64().unwrap_or(0) >> 20
    );
    let path = file_of(serve, id).with_context(|| format!("no file of core {id}"))?;
    OurCore::open(&path)
}

/// `cores/YYYY/MM/ID/vmcore` below the store.
fn file_of(serve: &Serve, id: &str) -> Option<PathBuf> {
    let below = |folder: PathBuf| {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    let months = below(serve.dir.join("cores")).flat_map(below);
    months
        .map(|month| month.join(id).join("vmcore"))
        .find(|file| file.exists())
}

fn check_told(core: &OurCore) -> Result<()> {
    let note = &core.note;
    ensure!((note.trigger.as_str(), note.vcpus.len()) == ("pvpanic", 2), "{note:?}");
    ensure!(note.release.as_deref() == core.vmcoreinfo("OSRELEASE").ok(), "{note:?}");
    ensure!(note.console_tail.contains("sysrq triggered crash"), "{note:?}");
    ensure!(core.cpus.len() == 2, "registers of {} vCPUs", core.cpus.len());
    Ok(())
}

fn check_early(core: &OurCore) -> Result<()> {
    ensure!(core.note.trigger == "panic-console", "{:?}", core.note);
    core.vmcoreinfo("OSRELEASE").map(drop)
}
