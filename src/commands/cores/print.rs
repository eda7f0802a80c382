//! Cores for people.

use api::{CoreInfo, CoreSummary};

use crate::output;

/// Frames of a call trace that are shown: the rest is in explain.json.
const FRAMES_SHOWN: usize = 12;

/// The list as a table.
pub(super) fn list(cores: &[CoreSummary]) -> String {
    let rows = cores.iter().map(|core| {
        vec![
            core.id.clone(),
            core.received_at.clone(),
            core.guest.clone(),
            core.kernel.clone().unwrap_or_default(),
            core.panic.clone().map(short).unwrap_or_default(),
            format!(
                "{}/{}",
                output::bytes(core.stored_bytes),
                output::bytes(core.file_len_bytes)
            ),
            core.state.to_string(),
        ]
    });
    let header = ["ID", "TIME", "GUEST", "KERNEL", "PANIC", "STORED/SIZE", "STATE"];
    output::table(&header, rows.collect())
}

/// One core, a line for each fact.
pub(super) fn info(info: &CoreInfo) -> String {
    let core = &info.summary;
    let mut lines: Vec<(&str, String)> = vec![("id", core.id.clone()), ("state", core.state.to_string())];
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value {
            lines.push((name, value));
        }
    };
    add("reason", info.reason.clone());
    add("guest", Some(core.guest.clone()));
    add("kernel", core.kernel.clone());
    add("panic", core.panic.clone());
    add("signature", core.signature.clone());
    if let Some(crash) = &info.crash {
        add("cause", Some(crash.cause.clone()));
        let pid = crash.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
        let cpu = crash.cpu.map(|cpu| format!(" on CPU {cpu}")).unwrap_or_default();
        add("task", crash.task.as_ref().map(|task| format!("{task}{pid}{cpu}")));
        for function in crash.trace.iter().take(FRAMES_SHOWN) {
            add("trace", Some(function.clone()));
        }
    }
    add(
        "uptime",
        info.uptime_ms.map(|ms| format!("{}.{:03} s", ms / 1000, ms % 1000)),
    );
    let note = info.note.as_ref();
    add("trigger", note.and_then(|note| note.trigger.clone()));
    for trouble in note.iter().flat_map(|note| &note.troubles) {
        add("trouble", Some(trouble.clone()));
    }
    add("dump id", note.and_then(|note| note.dump_id.clone()));
    add("received at", Some(core.received_at.clone()));
    add("started at", Some(info.started_at.clone()));
    add("sender", Some(core.client_addr.clone()));
    add("receiver", Some(info.server_addr.clone()));
    add("label", info.herald_label.clone());
    add("format", Some(core.format.clone()));
    add("size", Some(size(core.file_len_bytes)));
    add("stored", Some(size(core.stored_bytes)));
    add("zero", (info.zero_bytes > 0).then(|| size(info.zero_bytes)));
    add("excluded", (info.excluded_bytes > 0).then(|| size(info.excluded_bytes)));
    add("lost", (info.lost_bytes > 0).then(|| size(info.lost_bytes)));
    add(
        "repaired",
        info.repaired
            .then(|| "the first page was put into its place".to_owned()),
    );
    for hole in core.holes.iter().take(10) {
        add(
            "lost range",
            Some(format!("{} bytes at offset {}", hole.length, hole.offset)),
        );
    }
    if core.holes.len() > 10 {
        add("lost range", Some(format!("and {} more", core.holes.len() - 10)));
    }
    for file in &info.files {
        add(
            "file",
            Some(format!("{} {}", file.name, output::bytes(file.length_bytes))),
        );
    }
    let lines = lines.into_iter().map(|(name, value)| format!("{name:<12} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A size in both forms.
fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    format!("{bytes} bytes ({})", output::bytes(bytes))
}

/// The first words of a text.
fn short(text: String) -> String {
    const CHARS_MAX: usize = 40;
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    text.chars().take(CHARS_MAX - 1).chain(['…']).collect()
}
