//! FreeBSD: `Fatal trap`, and `panic:` with the backtrace of KDB (sys/kern/kern_shutdown.c, sys/amd64/amd64/trap.c).

use super::line::{behind, normalised, number};
use super::{Found, frame};

/// A trap's report and a backtrace are this long at most.
const SECTION_LINES_MAX: usize = 120;

/// Finds the crash that the lines end with.
pub(super) fn find<'a>(lines: &[&'a str]) -> Option<Found<'a>> {
    let panic_at = lines.iter().rposition(|line| line.starts_with("panic: "))?;
    let message = lines.get(panic_at)?.strip_prefix("panic: ")?;
    let end = lines.len().min(panic_at + SECTION_LINES_MAX);
    let report = lines.get(panic_at..end)?;
    // A trap is reported before the panic that it leads to.
    let trap_from = panic_at.saturating_sub(SECTION_LINES_MAX);
    let before = lines.get(trap_from..panic_at)?;
    let trap_at = before
        .iter()
        .rposition(|line| line.contains("Fatal trap ") || line.contains("Fatal double fault"));
    let trap = trap_at.and_then(|at| before.get(at..));
    let mut found = Found {
        kind: "panic",
        cause: lines.get(panic_at)?,
        panic: Some(message),
        message: Some(normalised(message)),
        has_place: true,
        frames: report.iter().filter_map(|line| frame::freebsd(line)).collect(),
        task: None,
        pid: None,
        cpu: None,
    };
    // What led here from a trap, or from panic() itself, stands below it.
    let below = found
        .frames
        .iter()
        .rposition(|name| matches!(*name, "calltrap" | "panic" | "vpanic"));
    found.frames.drain(..below.map_or(0, |below| below + 1));
    for line in trap.unwrap_or_default().iter().chain(report) {
        who(&mut found, line);
    }
    if let Some(trap) = trap {
        found.cause = trap.first()?;
        found.kind = kind_of(trap);
        found.message = None;
    }
    Some(found)
}

/// The kind of trap, by its name (`trap_msg` in sys/amd64/amd64/trap.c).
fn kind_of(trap: &[&str]) -> &'static str {
    let head = trap.first().copied().unwrap_or_default();
    let address = trap
        .iter()
        .find_map(|line| behind(line, "fault virtual address")?.split_once("0x"));
    let is_null =
        address.is_some_and(|(_, hex)| u64::from_str_radix(hex.trim(), 16).is_ok_and(|address| address < 4096));
    const KINDS: &[(&str, &str)] = &[
        ("general protection fault", "general-protection"),
        ("double fault", "double-fault"),
        ("integer divide fault", "divide-error"),
        ("privileged instruction fault", "invalid-opcode"),
        ("stack fault", "stack-segment"),
        ("non-maskable interrupt", "nmi"),
    ];
    match KINDS.iter().find(|(text, _)| head.contains(text)) {
        Some((_, kind)) => kind,
        None if head.contains("page fault") && is_null => "null-pointer",
        None if head.contains("page fault") => "page-fault",
        None => "trap",
    }
}

/// "current process = 12 (swi4: clock (0))", "cpuid = 1; apic id = 01".
fn who<'a>(found: &mut Found<'a>, line: &'a str) {
    if let Some(text) = line.strip_prefix("current process").and_then(|text| behind(text, "= ")) {
        found.pid = number(text);
        found.task = text
            .split_once('(')
            .and_then(|(_, name)| name.trim_end().strip_suffix(')'));
    }
    if let Some(text) = line.strip_prefix("cpuid = ") {
        found.cpu = number(text);
    }
}
