//! Each reader opens the core and must say what the guest was.

use crate::ours::OurCore;
use crate::run;
use crate::testbed::Testbed;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most of it is reading 590 MB of debug information; the rest is room for a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// ELF alone: one note segment first, loads with alignment 0, our note among the notes.
pub(crate) fn readelf(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let said = run::output(testbed.command("readelf").arg("-hlnW").arg(&core.path), dir, "", LIMIT)?;
    for expected in [
        "CORE (Core file)",
        "X86-64",
        "64 (bytes into file)",
        "NT_PRSTATUS",
        "VMCOREINFO",
        "COREFERRY",
    ] {
        ensure!(said.contains(expected), "readelf does not say {expected:?}:\n{said}");
    }
    ensure!(
        !said.contains("Warning") && !said.contains("Error"),
        "readelf warns:\n{said}"
    );
    let headers = said
        .lines()
        .filter(|line| line.starts_with("  LOAD") || line.starts_with("  NOTE"));
    Ok(headers
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("; "))
}

/// The kernel of this core with debug information.
fn symbols(testbed: &Testbed, core: &OurCore) -> Result<PathBuf> {
    let release = core.vmcoreinfo("OSRELEASE")?;
    let found = testbed.symbols(release);
    found.with_context(|| format!("the testbed has no symbols of {release}"))
}

/// gdb reads kernel data and text by virtual address through the extra text segment, and has one thread per vCPU.
pub(crate) fn gdb(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let offset = core.vmcoreinfo("KERNELOFFSET")?;
    let mut gdb = testbed.command("gdb");
    gdb.args(["-batch", "-nx", "-ex", "set auto-load off", "-ex", "set pagination off"])
        .arg("-ex")
        .arg(format!(
            "symbol-file -o 0x{offset} {}",
            symbols(testbed, core)?.display()
        ))
        .arg("-ex")
        .arg(format!("core-file {}", core.path.display()))
        .args(["-ex", "info threads", "-ex", "x/s &linux_banner"])
        .args(["-ex", "x/16i sysrq_handle_crash"]);
    for thread in 1..=core.cpus.len() {
        let shown = format!("printf \"vCPU {} RIP %lx RSP %lx\\n\", $rip, $rsp", thread - 1);
        gdb.args(["-ex", &format!("thread {thread}"), "-ex", &shown]);
    }
    let said = run::output(&mut gdb, dir, "", LIMIT)?;
    let banner = line_with(&said, "Linux version")?;
    ensure!(banner.contains(core.vmcoreinfo("OSRELEASE")?), "{banner}");
    // What the function does, by the text in memory: it calls panic.
    let call = said
        .lines()
        .find(|line| line.contains("<sysrq_handle_crash+") && line.contains("call ") && line.contains("<panic>"));
    ensure!(call.is_some(), "gdb shows no text of sysrq_handle_crash:\n{said}");
    for (index, cpu) in core.cpus.iter().enumerate() {
        ensure!(cpu.rip != 0, "vCPU {index} has no registers");
        line_with(&said, &format!("vCPU {index} RIP {:x} RSP {:x}", cpu.rip, cpu.rsp))?;
    }
    Ok(format!("{banner}; text; registers of {} vCPUs right", core.cpus.len()))
}

/// Filters to a file: proves that VMCOREINFO and the pages it leads to are readable.
pub(crate) fn makedumpfile(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let filtered = dir.join("filtered.kdump");
    let len = makedumpfile_only(testbed, dir, core)?;
    let seen = drgn_lines(testbed, dir, core, &filtered)?;
    expect(&seen, "release ", core.vmcoreinfo("OSRELEASE")?)?;
    Ok(format!("filtered to {len} bytes, which drgn opens"))
}

/// Filters to `filtered.kdump`, and looks at its length.
pub(crate) fn makedumpfile_only(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<u64> {
    let filtered = dir.join("filtered.kdump");
    // It does not overwrite.
    let _ = std::fs::remove_file(&filtered);
    let mut makedumpfile = testbed.command("makedumpfile");
    makedumpfile.args(["-l", "-d", "31"]).arg(&core.path).arg(&filtered);
    let said = run::output(&mut makedumpfile, dir, "", LIMIT)?;
    ensure!(said.contains("dumpfile is saved to"), "{said}");
    let len = filtered.metadata()?.len();
    ensure!(len > 1 << 20, "only {len} bytes left");
    Ok(len)
}

/// Release, crashed task and its stack, and the registers of every vCPU as QEMU recorded them.
pub(crate) fn drgn(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let seen = drgn_lines(testbed, dir, core, &core.path)?;
    let release = expect(&seen, "release ", core.vmcoreinfo("OSRELEASE")?)?;
    let panic = expect(&seen, "panic ", "sysrq triggered crash")?;
    let frames = expect(&seen, "frames ", "panic")?;
    // Behind the kernel's frames come guesses at those of the program.
    let frames = frames.split_inclusive("entry_SYSCALL_64").next().unwrap_or(frames);
    let tasks = expect(&seen, "tasks ", "")?;
    let count = tasks.strip_prefix("tasks ").and_then(|count| count.parse::<u32>().ok());
    // Init and the threads of the kernel, of which each processor has several.
    ensure!(count.is_some_and(|count| count > 10), "too few tasks:\n{seen}");
    for (index, cpu) in core.cpus.iter().enumerate() {
        expect(
            &seen,
            &format!("cpu{index} "),
            &format!("{:#x} {:#x}", cpu.rip, cpu.rsp),
        )?;
    }
    Ok(format!(
        "{release}; {tasks}; {panic}; {frames}; registers of {} vCPUs right",
        core.cpus.len()
    ))
}

/// What drgn sees of a file with that core's memory.
fn drgn_lines(testbed: &Testbed, dir: &Path, core: &OurCore, file: &Path) -> Result<String> {
    let script = dir.join("core_facts.py");
    std::fs::write(&script, include_str!("core_facts.py"))?;
    let mut python = testbed.command("python3");
    // Debug information comes from the testbed, never from a server.
    python
        .env("DEBUGINFOD_URLS", "")
        .arg(&script)
        .arg(file)
        .arg(symbols(testbed, core)?);
    run::output(&mut python, dir, "", LIMIT)
}

/// System, log, the crashed task's stack, and each processor's registers.
pub(crate) fn crash(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let mut crash = testbed.command("crash");
    crash.arg("-s").arg(symbols(testbed, core)?).arg(&core.path);
    let said = run::output(&mut crash, dir, "sys\nbt\nlog\nhelp -r\nquit\n", LIMIT)?;
    let release = expect(&said, "     RELEASE: ", core.vmcoreinfo("OSRELEASE")?)?;
    let panic = expect(&said, "       PANIC: ", "sysrq triggered crash")?;
    ensure!(said.contains("] panic at "), "bt shows no panic frame:\n{said}");
    ensure!(
        said.contains("Kernel panic - not syncing: sysrq triggered crash"),
        "log has no panic line:\n{said}"
    );
    for (index, cpu) in core.cpus.iter().enumerate() {
        let section = said.split_once(&format!("\nCPU {index}:\n"));
        let (_, section) = section.with_context(|| format!("help -r shows no CPU {index}:\n{said}"))?;
        let section = section.split("\nCPU ").next().unwrap_or(section);
        for shown in [format!("RIP: {:016x}", cpu.rip), format!("RSP: {:016x}", cpu.rsp)] {
            ensure!(section.contains(&shown), "CPU {index} lacks {shown}:\n{section}");
        }
    }
    let frames = said.lines().filter(|line| line.starts_with(" #")).count();
    Ok(format!(
        "{}; {}; {frames} stack frames; registers of {} vCPUs right",
        release.trim(),
        panic.trim(),
        core.cpus.len()
    ))
}

/// The line that starts with `start`, which must contain `expected`.
fn expect<'a>(said: &'a str, start: &str, expected: &str) -> Result<&'a str> {
    let line = said.lines().find(|line| line.starts_with(start));
    let line = line.with_context(|| format!("no line {start:?} in:\n{said}"))?;
    ensure!(line.contains(expected), "{line:?} lacks {expected:?}");
    Ok(line)
}

fn line_with<'a>(said: &'a str, part: &str) -> Result<&'a str> {
    said.lines()
        .find(|line| line.contains(part))
        .with_context(|| format!("no line with {part:?} in:\n{said}"))
}
