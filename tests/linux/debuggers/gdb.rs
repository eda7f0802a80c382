//! gdb: kernel data and text by virtual address, and a thread for each processor.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::ours::OurCore;
use crate::readers::LIMIT;
use crate::run;
use crate::testbed::Testbed;

pub(super) fn check(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let offset = core.vmcoreinfo("KERNELOFFSET")?;
    let vmlinux = testbed.path("vmlinux");
    let mut gdb = testbed.command("gdb");
    let mut say = |command: &str| {
        gdb.args(["-ex", command]);
    };
    say("set auto-load off");
    say("set pagination off");
    say(&format!("symbol-file -o 0x{offset} {}", vmlinux.display()));
    say(&format!("core-file {}", core.path.display()));
    for command in [
        "x/s linux_banner",
        "p init_uts_ns.name.release",
        "x/6i sysrq_handle_crash",
    ] {
        say(command);
    }
    for thread in 1..=core.cpus.len() {
        say(&format!("thread {thread}"));
        say("printf \"RIP %lx RSP %lx\\n\", $rip, $rsp");
    }
    let said = run::output(gdb.args(["-batch", "-nx"]), dir, "", LIMIT)?;

    let release = core.vmcoreinfo("OSRELEASE")?;
    let has = |what: &str, all: &[&str]| -> Result<()> {
        let found = said.lines().any(|line| all.iter().all(|part| line.contains(part)));
        ensure!(found, "gdb shows no {what} ({all:?}):\n{said}");
        Ok(())
    };
    has("banner", &["<linux_banner>", &format!("\"Linux version {release} ")])?;
    has("release", &["$1 = ", release])?;
    // What the function does, by the text in memory: it calls panic.
    has("text", &["<sysrq_handle_crash+", "call ", "<panic>"])?;
    for cpu in &core.cpus {
        has("registers", &[&format!("RIP {:x} RSP {:x}", cpu.rip, cpu.rsp)])?;
    }
    Ok(format!("linux_banner, text and {} threads", core.cpus.len()))
}
