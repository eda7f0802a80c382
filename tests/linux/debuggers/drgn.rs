//! drgn: the tasks, the crashed stack, and each processor's registers and current stack.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::ours::OurCore;
use crate::readers::LIMIT;
use crate::run;
use crate::testbed::Testbed;

pub(super) fn check(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let said = run_script(testbed, dir, core, include_str!("drgn.py"))?;
    let has = |line: &str| -> Result<()> {
        ensure!(
            said.lines().any(|other| other == line),
            "drgn does not say {line:?}:\n{said}"
        );
        Ok(())
    };
    has(&format!("release {}", core.vmcoreinfo("OSRELEASE")?))?;
    for line in [
        "task 1 init",
        "task 2 kthreadd",
        "idle 0 swapper/0",
        "idle 1 swapper/1",
        "crashed 1 init",
    ] {
        has(line)?;
    }
    for command in [" sh", " sleep"] {
        let is_there = |line: &str| line.starts_with("task ") && line.ends_with(command);
        ensure!(said.lines().any(is_there), "no task{command}:\n{said}");
    }
    let stack = stack(&said, "crashed-stack ")?;
    let crashed = [
        "panic",
        "sysrq_handle_crash",
        "write_sysrq_trigger",
        "vfs_write",
        "entry_SYSCALL_64",
    ];
    in_order(stack, &crashed)?;
    has("log Kernel panic - not syncing: sysrq triggered crash")?;

    let (start, end) = said
        .lines()
        .find_map(|line| line.strip_prefix("text ")?.split_once(' '))
        .context("no text")?;
    let text = start.parse::<u64>()?..end.parse::<u64>()?;
    let mut crashed_on = None;
    for (index, cpu) in core.cpus.iter().enumerate() {
        ensure!(
            text.contains(&cpu.rip),
            "CPU {index} is at {:#x}, outside {text:x?}",
            cpu.rip
        );
        let registers = [
            ("rip", cpu.rip),
            ("rsp", cpu.rsp),
            ("rax", cpu.rax),
            ("rbx", cpu.rbx),
            ("rcx", cpu.rcx),
            ("rdx", cpu.rdx),
            ("rbp", cpu.rbp),
            ("r15", cpu.r15),
            ("rflags", cpu.rflags),
        ];
        for (name, value) in registers {
            has(&format!("register {index} {name} {value}"))?;
        }
        let current = self::stack(&said, &format!("current {index} "))?;
        if current.starts_with("init ") {
            in_order(current, &crashed)?;
            crashed_on = Some(index);
        } else {
            // The processor that panics stops the others (arch/x86/kernel/smp.c).
            in_order(current, &["stop_this_cpu", "sysvec_reboot"])?;
        }
    }
    let crashed_on = crashed_on.context("no processor runs the crashed task")?;
    ensure!(
        core.note.crashed_cpu == u32::try_from(crashed_on).ok(),
        "{:?}",
        core.note
    );
    let tasks = said.lines().filter(|line| line.starts_with("task ")).count();
    Ok(format!("{tasks} tasks; crashed on CPU {crashed_on}: {stack}"))
}

/// Runs a script on a core with the kernel's debug information.
pub(crate) fn run_script(testbed: &Testbed, dir: &Path, core: &OurCore, script: &str) -> Result<String> {
    let file = dir.join("script.py");
    fs::write(&file, script)?;
    let mut python = testbed.command("python3");
    // Debug information comes from the testbed, never from a server.
    python
        .env("DEBUGINFOD_URLS", "")
        .arg(&file)
        .arg(&core.path)
        .arg(testbed.path("vmlinux"));
    run::output(&mut python, dir, "", LIMIT)
}

fn stack<'a>(said: &'a str, start: &str) -> Result<&'a str> {
    let line = said.lines().find_map(|line| line.strip_prefix(start));
    line.with_context(|| format!("drgn shows no {start}:\n{said}"))
}

/// The functions are in the stack, in this order, with others between them.
fn in_order(stack: &str, functions: &[&str]) -> Result<()> {
    let mut frames = stack.split_whitespace();
    for function in functions {
        ensure!(
            frames.any(|frame| frame == *function),
            "{function} is not in its place in: {stack}"
        );
    }
    Ok(())
}
