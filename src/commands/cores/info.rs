//! One core for people.

use api::{CoreInfo, CpuFacts, GroupPlace, LogSource};

use super::kernel;
use crate::output;

/// Frames of a call trace that are shown: the rest is in explain.json.
const FRAMES_SHOWN: usize = 24;
/// Lost ranges that are shown; `--json` has all.
const HOLES_SHOWN: usize = 10;
/// Processors whose registers are all shown; of more, only where they stood.
const CPUS_SHOWN: usize = 8;

/// Facts, each with its name.
#[derive(Debug, Default)]
struct Facts(Vec<(&'static str, String)>);

impl Facts {
    fn add(&mut self, name: &'static str, value: Option<String>) {
        self.0.extend(value.map(|value| (name, value)));
    }
}

/// One core, a line for each fact.
pub(super) fn text(info: &CoreInfo) -> String {
    let mut facts = Facts::default();
    crash(&mut facts, info);
    registers(&mut facts, &info.cpus);
    for problem in &info.problems {
        facts.add("not told", Some(problem.clone()));
    }
    journey(&mut facts, info);
    file(&mut facts, info);
    let lines = facts.0.into_iter().map(|(name, value)| format!("{name:<12} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What happened, and to whom.
fn crash(facts: &mut Facts, info: &CoreInfo) {
    let core = &info.summary;
    facts.add("id", Some(core.id.clone()));
    facts.add("state", Some(core.state.to_string()));
    facts.add("reason", info.reason.clone());
    facts.add("guest", Some(core.guest.clone()));
    facts.add("kernel", core.kernel.clone());
    facts.add("banner", info.banner.clone());
    let note = info.note.as_ref();
    let build_id = info.build_id.clone().or_else(|| note?.build_id.clone());
    let booted = note.and_then(|note| note.booted_build_id.clone());
    let other = booted.filter(|booted| build_id.as_ref() != Some(booted));
    facts.add("build id", build_id);
    facts.add(
        "booted with",
        other.map(|booted| format!("another kernel, build id {booted}")),
    );
    facts.add("kaslr offset", info.kernel_offset.clone());
    facts.add("booted at", info.booted_at.clone());
    let uptime = info.uptime_ms.map(|ms| format!("{}.{:03} s", ms / 1000, ms % 1000));
    facts.add("uptime", uptime);
    facts.add("panic", core.panic.clone());
    facts.add("signature", core.signature.clone());
    facts.add("group", info.group.as_ref().map(|place| group(place, &core.id)));
    let Some(crash) = &info.crash else {
        let cpu = info.note.as_ref().and_then(|note| note.crashed_cpu);
        facts.add("crashed on", cpu.map(|cpu| format!("CPU {cpu}")));
        return;
    };
    facts.add("cause", Some(crash.cause.clone()));
    let cpu = crash.cpu.or_else(|| info.note.as_ref()?.crashed_cpu);
    let on_cpu = cpu.map(|cpu| format!("CPU {cpu}"));
    match &crash.task {
        Some(task) => {
            let pid = crash.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let on_cpu = on_cpu.map(|cpu| format!(" on {cpu}")).unwrap_or_default();
            facts.add("task", Some(format!("{task}{pid}{on_cpu}")));
        }
        None => facts.add("crashed on", on_cpu),
    }
    for function in crash.trace.iter().take(FRAMES_SHOWN) {
        facts.add("trace", Some(function.clone()));
    }
    if crash.trace.len() > FRAMES_SHOWN {
        let more = crash.trace.len() - FRAMES_SHOWN;
        facts.add("trace", Some(format!("and {more} more, see `--json`")));
    }
    if info.log_source == Some(LogSource::Console) {
        facts.add("told by", Some("the end of its console".to_owned()));
    }
}

/// `3rd of 41, first seen with 6.1.0-18-amd64 on web-3 at 2026-01-31T12:00:00Z (ID)`.
fn group(place: &GroupPlace, id: &str) -> String {
    if place.count == 1 {
        return "the only one".to_owned();
    }
    let ordinal = ordinal(place.ordinal);
    if place.first_id == id {
        return format!("{ordinal} of {}", place.count);
    }
    let kernel = place.first_kernel.as_deref().unwrap_or("an unknown kernel");
    format!(
        "{ordinal} of {}, first seen with {kernel} on {} at {} ({})",
        place.count, place.first_guest, place.first_seen, place.first_id
    )
}

/// `1st`, `2nd`, `3rd`, `4th`, … `11th`, … `21st`.
fn ordinal(number: u64) -> String {
    let end = match (number % 10, number % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

/// How the processors stood.
fn registers(facts: &mut Facts, cpus: &[CpuFacts]) {
    /// In the order and the rows in which Linux prints them (`__show_regs` in arch/x86/kernel/process_64.c).
    const ROWS: [&[&str]; 8] = [
        &["rip", "rsp", "rflags"],
        &["rax", "rbx", "rcx"],
        &["rdx", "rsi", "rdi"],
        &["rbp", "r8", "r9"],
        &["r10", "r11", "r12"],
        &["r13", "r14", "r15"],
        &["cs", "ss", "fs_base", "gs_base"],
        &["cr0", "cr2", "cr3", "cr4"],
    ];
    let rows = if cpus.len() <= CPUS_SHOWN { ROWS.len() } else { 1 };
    for cpu in cpus {
        let mode = if cpu.user_mode { "user" } else { "kernel" };
        let state = cpu.state.as_ref().map(|state| format!(", {state}")).unwrap_or_default();
        facts.add("cpu", Some(format!("CPU {}: {mode} mode{state}", cpu.index)));
        for row in ROWS.iter().take(rows) {
            let cells = row.iter().filter_map(|name| {
                let value = cpu.registers.get(*name)?;
                Some(format!("{name:<7} {value:<18}"))
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            facts.add("", (!line.is_empty()).then(|| line.trim_end().to_owned()));
        }
    }
}

/// How the core came here.
fn journey(facts: &mut Facts, info: &CoreInfo) {
    let core = &info.summary;
    let note = info.note.as_ref();
    facts.add("trigger", note.and_then(|note| note.trigger.clone()));
    facts.add("kernel file", note.and_then(|note| note.kernel_file.clone()));
    facts.add("kernel kept", kept_kernel(info));
    facts.add(
        "filter",
        note.and_then(|note| note.filter.as_ref())
            .map(|filter| format!("level {}, {} pages left out", filter.level, filter.excluded_pages)),
    );
    for trouble in note.iter().flat_map(|note| &note.troubles) {
        facts.add("trouble", Some(trouble.clone()));
    }
    facts.add("dump id", note.and_then(|note| note.dump_id.clone()));
    facts.add("received at", Some(core.received_at.clone()));
    facts.add("started at", Some(info.started_at.clone()));
    facts.add("sender", Some(core.client_addr.clone()));
    facts.add("receiver", Some(info.server_addr.clone()));
    facts.add("label", info.herald_label.clone());
}

/// `vmlinuz-6.1 8247232 bytes (7.9 MiB), 65536 bytes of it are lost`.
fn kept_kernel(info: &CoreInfo) -> Option<String> {
    let kernel = info.note.as_ref()?.kept_kernel.as_ref()?;
    let lost = kernel::lost_bytes(info, kernel);
    let mut text = format!("{}, {}", kernel.name, size(kernel.length_bytes));
    if lost > 0 {
        text += &format!(", {lost} bytes of it are lost");
    }
    Some(text)
}

/// What there is of it.
fn file(facts: &mut Facts, info: &CoreInfo) {
    let core = &info.summary;
    facts.add("format", Some(core.format.clone()));
    facts.add("size", Some(size(core.file_len_bytes)));
    facts.add("stored", Some(size(core.stored_bytes)));
    let some_size = |bytes: u64| (bytes > 0).then(|| size(bytes));
    facts.add("zero", some_size(info.zero_bytes));
    facts.add("excluded", some_size(info.excluded_bytes));
    facts.add("lost", some_size(info.lost_bytes));
    let repaired = "the first page was put into its place";
    facts.add("repaired", info.repaired.then(|| repaired.to_owned()));
    for hole in core.holes.iter().take(HOLES_SHOWN) {
        let range = format!("{} bytes at offset {}", hole.length, hole.offset);
        facts.add("lost range", Some(range));
    }
    if core.holes.len() > HOLES_SHOWN {
        let more = core.holes.len() - HOLES_SHOWN;
        facts.add("lost range", Some(format!("and {more} more")));
    }
    for file in &info.files {
        facts.add(
            "file",
            Some(format!("{} {}", file.name, output::bytes(file.length_bytes))),
        );
    }
}

/// A size in both forms.
fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    format!("{bytes} bytes ({})", output::bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_english() {
        let said: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 22, 103, 111].map(ordinal).into();
        let expected = [
            "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "103rd", "111th",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_place_in_a_group_is_a_sentence() {
        let place = GroupPlace {
            ordinal: 3,
            count: 41,
            first_id: "0199".to_owned(),
            first_seen: "2026-01-31T12:00:00Z".to_owned(),
            first_guest: "web-3".to_owned(),
            first_kernel: Some("linux 6.1.0".to_owned()),
        };
        assert_eq!(
            group(&place, "01aa"),
            "3rd of 41, first seen with linux 6.1.0 on web-3 at 2026-01-31T12:00:00Z (0199)"
        );
    }
}
