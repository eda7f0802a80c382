//! crash: `sys`, `bt`, `log`, and `help -r`, which shows the registers of every processor.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::ours::OurCore;
use crate::readers::LIMIT;
use crate::run;
use crate::testbed::Testbed;

pub(super) fn check(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let mut crash = testbed.command("crash");
    crash.arg("-s").arg(testbed.path("vmlinux")).arg(&core.path);
    let symbols: String = core.cpus.iter().map(|cpu| format!("sym {:x}\n", cpu.rip)).collect();
    let script = format!("sys\nbt\nlog\nhelp -r\n{symbols}quit\n");
    let said = run::output(&mut crash, dir, &script, LIMIT)?;

    let field = |name: &str| {
        let start = format!("{name}: ");
        let line = said.lines().find_map(|line| line.trim_start().strip_prefix(&start));
        line.with_context(|| format!("sys shows no {name}:\n{said}"))
    };
    ensure!(
        field("RELEASE")? == core.vmcoreinfo("OSRELEASE")?,
        "{}",
        field("RELEASE")?
    );
    ensure!(field("CPUS")?.starts_with('2'), "{}", field("CPUS")?);
    let panic = field("PANIC")?;
    ensure!(
        panic == "\"Kernel panic - not syncing: sysrq triggered crash\"",
        "{panic}"
    );
    // The log's own line, with its time.
    let logged =
        |line: &str| line.starts_with('[') && line.ends_with("] Kernel panic - not syncing: sysrq triggered crash");
    ensure!(said.lines().any(logged), "no panic in the log:\n{said}");
    let task = said.lines().find(|line| line.starts_with("PID: ")).context("no bt")?;
    ensure!(
        task.starts_with("PID: 1 ") && task.contains("COMMAND: \"init\""),
        "{task}"
    );
    let frame = |function: &str| {
        said.lines()
            .any(|line| line.starts_with(" #") && line.contains(&format!("] {function} at ")))
    };
    for function in ["panic", "sysrq_handle_crash", "write_sysrq_trigger"] {
        ensure!(
            frame(function),
            "{function} is not in the crashed task's stack:\n{said}"
        );
    }
    registers(&said, core)?;
    Ok(format!("{panic}; {task}; registers of {} processors", core.cpus.len()))
}

/// Each processor's registers are those of the core's notes, and it stands in the kernel's text.
fn registers(said: &str, core: &OurCore) -> Result<()> {
    for (index, cpu) in core.cpus.iter().enumerate() {
        let section = said.split_once(&format!("\nCPU {index}:\n"));
        let section = section
            .with_context(|| format!("help -r shows no CPU {index}:\n{said}"))?
            .1;
        let section = section.split("\nCPU ").next().unwrap_or(section);
        for (name, value) in [
            ("RIP", cpu.rip),
            ("RSP", cpu.rsp),
            ("RAX", cpu.rax),
            ("RBP", cpu.rbp),
            ("CR3", cpu.cr3),
        ] {
            let shown = format!("{name}: {value:016x}");
            ensure!(section.contains(&shown), "CPU {index} lacks {shown}:\n{section}");
        }
        // `ffffffff8203d023 (t) stop_this_cpu+99 FILE: LINE`: a symbol of the text.
        let symbol = format!("{:x} (", cpu.rip);
        let symbol = said.lines().find(|line| line.starts_with(&symbol));
        let symbol = symbol.with_context(|| format!("no symbol at {:x}:\n{said}", cpu.rip))?;
        ensure!(symbol.contains("(t) ") || symbol.contains("(T) "), "{symbol}");
    }
    Ok(())
}
