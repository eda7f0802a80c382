//! Linux: oops, BUG, WARN, hung task, lockups, out of memory, and panics without any of them.
//!
//! Heads of sections as kernel/panic.c, kernel/hung_task.c, kernel/watchdog.c, mm/oom_kill.c, arch/x86/mm/fault.c and
//! arch/x86/kernel/{traps,nmi}.c print them.

use super::line::{behind, normalised, number};
use super::{Found, frame};

/// What every panic says.
const PANIC: &str = "Kernel panic - not syncing: ";
/// A section of the log is this long at most: a report with registers, code, modules and trace has about 60 lines, one of
/// KASAN 120.
const SECTION_LINES_MAX: usize = 250;

/// A line that begins the report of a fault: what it holds, and the kind of fault.
const HEADS: &[(&str, &str)] = &[
    ("BUG: kernel NULL pointer dereference", "null-pointer"),
    ("BUG: unable to handle kernel NULL pointer dereference", "null-pointer"),
    ("BUG: KASAN: ", "kasan"),
    ("BUG: KFENCE: ", "kfence"),
    ("BUG: KMSAN: ", "kmsan"),
    ("BUG: unable to handle ", "page-fault"),
    ("BUG: stack guard page was hit", "stack-overflow"),
    ("BUG: TASK stack guard page was hit", "stack-overflow"),
    ("BUG: IRQ stack guard page was hit", "stack-overflow"),
    ("BUG: scheduling while atomic", "scheduling-while-atomic"),
    ("BUG: sleeping function called", "sleeping-in-atomic"),
    ("BUG: spinlock ", "spinlock"),
    ("BUG: soft lockup", "soft-lockup"),
    ("BUG: Bad page state", "bad-page"),
    ("kernel BUG at ", "bug"),
    ("general protection fault", "general-protection"),
    ("PANIC: double fault", "double-fault"),
    ("double fault: ", "double-fault"),
    ("divide error: ", "divide-error"),
    ("invalid opcode: ", "invalid-opcode"),
    ("stack segment: ", "stack-segment"),
    ("Watchdog detected hard LOCKUP", "hard-lockup"),
    ("NMI watchdog: BUG: soft lockup", "soft-lockup"),
    ("Uhhuh. NMI received", "nmi"),
    ("WARNING: CPU: ", "warning"),
    ("UBSAN: ", "ubsan"),
    (" blocked for more than ", "hung-task"),
    ("self-detected stall", "rcu-stall"),
    ("detected stalls on CPUs", "rcu-stall"),
    ("detected expedited stalls", "rcu-stall"),
    ("invoked oom-killer", "out-of-memory"),
    ("sysrq: Trigger a crash", "sysrq"),
    ("sysrq: SysRq : Trigger a crash", "sysrq"),
    ("Oops: ", "oops"),
];

/// What a panic says, and the kinds of the sections that may have led to it. No kinds: the message is the cause itself.
const PANICS: &[(&str, &[&str])] = &[
    ("Fatal exception", FAULTS),
    ("panic_on_warn set", &["warning", "kasan", "kfence", "kmsan", "ubsan"]),
    (
        "kernel: panic_on_warn set",
        &["warning", "kasan", "kfence", "kmsan", "ubsan"],
    ),
    ("KASAN: panic_on_warn set", &["kasan"]),
    ("kasan.fault=panic set", &["kasan"]),
    ("hung_task: blocked tasks", &["hung-task"]),
    ("softlockup: hung tasks", &["soft-lockup"]),
    ("Hard LOCKUP", &["hard-lockup"]),
    ("hard lockup", &["hard-lockup"]),
    ("Watchdog detected hard LOCKUP", &["hard-lockup"]),
    ("RCU Stall", &["rcu-stall"]),
    ("Out of memory", &["out-of-memory"]),
    ("out of memory", &["out-of-memory"]),
    ("System is deadlocked on memory", &["out-of-memory"]),
    ("sysrq triggered crash", &["sysrq"]),
    ("NMI: Not continuing", &["nmi"]),
    ("Machine halted", &["double-fault"]),
    ("scheduling while atomic", &["scheduling-while-atomic"]),
    ("corrupted stack end detected", &[]),
    ("kernel stack overflow", &["stack-overflow", "double-fault"]),
];

/// Reports after which the kernel says "Fatal exception".
const FAULTS: &[&str] = &[
    "null-pointer",
    "page-fault",
    "bug",
    "general-protection",
    "double-fault",
    "divide-error",
    "invalid-opcode",
    "stack-segment",
    "stack-overflow",
    "oops",
];

/// The kinds whose place is where they were noticed, not what was wrong.
const PLACELESS: &[&str] = &["sysrq", "out-of-memory", "nmi"];

/// A section that begins at a head.
#[derive(Debug, Clone, Copy)]
struct Section {
    start: usize,
    kind: &'static str,
}

/// Finds the panic that the lines end with, and what led to it.
pub(super) fn find_panic<'a>(lines: &[&'a str]) -> Option<Found<'a>> {
    let at = lines
        .iter()
        .rposition(|line| line.contains(PANIC) && !line.contains("end Kernel panic"))?;
    let message = behind(lines.get(at)?, PANIC)?;
    match cause_of(lines.get(..at)?, message) {
        Some(section) => Some(from_section(lines, section, Some(message))),
        None => from_panic(lines, at, message),
    }
}

/// Finds the last fault of a kernel that did not come to its panic, or went on.
pub(super) fn find_fault<'a>(lines: &[&'a str]) -> Option<Found<'a>> {
    Some(from_section(lines, last_section(lines, FAULTS)?, None))
}

/// The section that led to a panic with this message.
fn cause_of(before: &[&str], message: &str) -> Option<Section> {
    let (_, kinds) = PANICS.iter().find(|(text, _)| message.contains(text))?;
    let kinds = if kinds.is_empty() { return None } else { *kinds };
    last_section(before, kinds)
}

/// The last section of one of these kinds; its first head if several lines of one report are heads ("BUG: …", then "Oops: …").
fn last_section(lines: &[&str], kinds: &[&str]) -> Option<Section> {
    let kind_of = |line: &str| {
        HEADS
            .iter()
            .find(|(text, kind)| line.contains(text) && kinds.contains(kind))
            .map(|head| head.1)
    };
    let (mut start, mut kind) = lines
        .iter()
        .enumerate()
        .rev()
        .find_map(|(at, line)| Some((at, kind_of(line)?)))?;
    // Within a report: up to where the trace of an earlier one ends.
    const REPORT_HEAD_LINES_MAX: usize = 12;
    for at in (start.saturating_sub(REPORT_HEAD_LINES_MAX)..start).rev() {
        let line = lines.get(at).copied().unwrap_or_default();
        if line.contains("---[ end trace")
            || line.starts_with("Call Trace")
            || frame::linux(line).is_some_and(|_| line.starts_with(' '))
        {
            break;
        }
        if let Some(earlier) = kind_of(line) {
            (start, kind) = (at, earlier);
        }
    }
    Some(Section { start, kind })
}

/// What a section tells.
fn from_section<'a>(lines: &[&'a str], section: Section, panic: Option<&'a str>) -> Found<'a> {
    let end = lines.len().min(section.start + SECTION_LINES_MAX);
    let report = lines.get(section.start..end).unwrap_or_default();
    let cause = report.first().copied().unwrap_or_default();
    let message = match section.kind {
        "kasan" | "kfence" | "kmsan" => behind(cause, ": ")
            .and_then(|text| behind(text, ": "))
            .map(|text| normalised(text.split_once(" in ").map_or(text, |(what, _)| what))),
        "ubsan" => {
            behind(cause, "UBSAN: ").map(|text| normalised(text.split_once(" in ").map_or(text, |(what, _)| what)))
        }
        _ => None,
    };
    let mut frames = frames(report, section.kind);
    if frames.is_empty() {
        // Some heads are a line only: the trace is that of the panic.
        let panic_at = report.iter().position(|line| line.contains(PANIC));
        frames = panic_at
            .and_then(|at| report.get(at..))
            .map(panic_frames)
            .unwrap_or_default();
    }
    let mut found = Found {
        kind: section.kind,
        cause,
        panic,
        message,
        has_place: !PLACELESS.contains(&section.kind),
        frames,
        task: None,
        pid: None,
        cpu: None,
    };
    who(&mut found, report);
    found
}

/// A panic that nothing led to: its own message and trace.
fn from_panic<'a>(lines: &[&'a str], at: usize, message: &'a str) -> Option<Found<'a>> {
    let end = lines.len().min(at + SECTION_LINES_MAX);
    let report = lines.get(at..end)?;
    let mut frames = panic_frames(report);
    let corrupted = behind(message, "Kernel stack is corrupted in: ");
    if let Some(function) = corrupted.and_then(frame::linux) {
        frames.insert(0, function);
    }
    let mut found = Found {
        kind: "panic",
        cause: lines.get(at)?,
        panic: Some(message),
        message: Some(normalised(corrupted.map_or(message, |_| "Kernel stack is corrupted"))),
        // Where a message is said is part of what it says; the place adds only what renaming breaks.
        has_place: corrupted.is_some(),
        frames,
        task: None,
        pid: None,
        cpu: None,
    };
    who(&mut found, report);
    Some(found)
}

/// Functions that led to a panic, innermost first, from its line on.
fn panic_frames<'a>(report: &[&'a str]) -> Vec<&'a str> {
    let mut frames = frames(report, "panic");
    // The trace begins with panic() itself and how it was printed.
    let own = frames.iter().rposition(|name| *name == "panic");
    frames.drain(..own.map_or(0, |own| own + 1));
    frames
}

/// Functions of a report, innermost first.
fn frames<'a>(report: &[&'a str], kind: &str) -> Vec<&'a str> {
    let mut frames = Vec::new();
    let mut in_trace = false;
    for (at, line) in report.iter().enumerate() {
        let is_new_report = at > 0
            && HEADS
                .iter()
                .any(|(text, head)| line.contains(text) && !FAULTS.contains(head));
        if line.contains("---[ end trace") || line.contains(PANIC) && at > 0 || is_new_report && in_trace {
            break;
        }
        if line.starts_with("Call Trace") || line.trim_start().starts_with("Call Trace:") {
            in_trace = true;
        } else if let Some(place) = first_place(line, at, kind) {
            frames.push(place);
        } else if in_trace {
            if let Some(name) = frame::linux(line) {
                frames.push(name);
            } else if line.starts_with("RIP: ") || line.contains("</TASK>") || line.starts_with("Modules linked in") {
                // Below the trace: registers of the process that called, or the next CPU's report.
                break;
            }
        }
    }
    frames
}

/// The function of the instruction pointer, or the one that a head names.
fn first_place<'a>(line: &'a str, at: usize, kind: &str) -> Option<&'a str> {
    if let Some(rip) = line.strip_prefix("RIP: ").or_else(|| line.strip_prefix("IP: ")) {
        // "0010:func+0x1/0x2", "0010:[<address>]  [<address>] func+0x1/0x2", "[<address>] func+0x1/0x2"
        return frame::linux(
            rip.split_once(':')
                .filter(|(segment, _)| segment.len() == 4)
                .map_or(rip, |(_, text)| text),
        );
    }
    if at > 0 {
        return None;
    }
    match kind {
        // "WARNING: CPU: 0 PID: 1 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110"
        "warning" => line.split_ascii_whitespace().find_map(frame::linux),
        // "BUG: KASAN: slab-use-after-free in func+0x1/0x2 [module]"
        "kasan" | "kfence" | "kmsan" => line.split_once(" in ").and_then(|(_, text)| frame::linux(text)),
        _ => None,
    }
}

/// Task and CPU, from "CPU: 1 PID: 204 Comm: sh" or from the head itself.
fn who<'a>(found: &mut Found<'a>, report: &[&'a str]) {
    if let Some(line) = report
        .iter()
        .find(|line| line.contains("CPU: ") && line.contains(" Comm: "))
    {
        found.cpu = behind(line, "CPU: ").and_then(number);
        found.pid = behind(line, "PID: ").and_then(number);
        found.task = behind(line, " Comm: ").and_then(|text| {
            let end = [" Not tainted", " Tainted: ", " Kdump: "]
                .iter()
                .filter_map(|mark| text.find(mark))
                .min();
            text.get(..end.unwrap_or(text.len())).map(str::trim_end)
        });
    }
    match found.kind {
        // "INFO: task kworker/0:1:77 blocked for more than 120 seconds."
        "hung-task" => {
            let name = behind(found.cause, "task ")
                .and_then(|text| text.split_once(" blocked"))
                .map(|(who, _)| who);
            if let Some((task, pid)) = name.and_then(|who| who.rsplit_once(':')) {
                (found.task, found.pid) = (Some(task), number(pid));
            }
        }
        // "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [sh:204]"
        "soft-lockup" => {
            found.cpu = behind(found.cause, "CPU#").and_then(number).or(found.cpu);
            let who = found
                .cause
                .rsplit_once('[')
                .and_then(|(_, who)| who.strip_suffix(']')?.rsplit_once(':'));
            if let Some((task, pid)) = who {
                (found.task, found.pid) = (Some(task), number(pid));
            }
        }
        "hard-lockup" => found.cpu = behind(found.cause, "LOCKUP on cpu ").and_then(number).or(found.cpu),
        _ => {}
    }
}
