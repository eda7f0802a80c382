//! One core.

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};

use super::cores::state;
use super::strip;
use super::words::{bytes, encode, time};
use crate::service::{CoreService, ServiceError};
use crate::types::core::{ByteRange, CoreInfo, CoreState};
use crate::types::explanation::Explanation;

/// Characters of the log that the page shows: its end, where the crash is. The whole is in explain.json.
const LOG_CHARS_MAX: usize = 64 * 1024;
/// Lost ranges that are listed.
const HOLES_SHOWN: usize = 20;

/// What the page shows.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) info: CoreInfo,
    explanation: Option<Explanation>,
    received: Vec<ByteRange>,
}

impl Facts {
    /// Asks the service.
    pub(super) fn read(service: &dyn CoreService, id: &str) -> Result<Self, ServiceError> {
        let info = service.info(id)?;
        // A dump that is still being received has neither.
        let is_stored = info.summary.state != CoreState::Receiving;
        let id = &info.summary.id;
        Ok(Self {
            explanation: is_stored.then(|| service.explanation(id)).transpose()?.flatten(),
            received: is_stored.then(|| service.received(id)).transpose()?.unwrap_or_default(),
            info,
        })
    }

    /// The page.
    pub(super) fn markup(&self) -> Markup {
        let core = &self.info.summary;
        html! {
            h1 { "Core of " (core.guest) " " (state(core.state)) @if core.pinned { " " span class="pin" { "pinned" } } }
            @if core.state == CoreState::Receiving {
                noscript { meta http-equiv="refresh" content="3"; }
            }
            @if let Some(reason) = &self.info.reason { p class="reason" { (reason) } }
            @if let Some(panic) = &core.panic { pre class="panic" { (panic) } }
            div class="split" {
                div { (self.crash()) (self.people()) }
                div { (self.facts()) }
            }
            (self.log())
            (self.registers())
            h2 { "Coverage" }
            (strip::markup(core.file_len_bytes, &self.received, &core.holes))
            (self.lost())
            (self.commands())
            (self.files())
            (self.problems())
        }
    }

    fn crash(&self) -> Markup {
        let core = &self.info.summary;
        html! {
            @if let Some(signature) = &core.signature {
                p { "Signature " a href={ "/?signature=" (encode(signature)) } { (signature) } (self.place()) }
            }
            @if let Some(crash) = &self.info.crash {
                h2 { "Crash" }
                dl {
                    dt { "Cause" } dd { (crash.cause) }
                    @if let Some(function) = &crash.function { dt { "Function" } dd { code { (function) } } }
                    @if let Some(task) = &crash.task {
                        dt { "Task" }
                        dd { (task) @if let Some(pid) = crash.pid { " (process " (pid) ")" } @if let Some(cpu) = crash.cpu { " on CPU " (cpu) } }
                    }
                }
                @if !crash.trace.is_empty() {
                    h3 { "Call trace" }
                    ol class="trace" { @for frame in &crash.trace { li { code { (frame) } } } }
                }
            }
        }
    }

    /// Which of how many it is.
    fn place(&self) -> Markup {
        let now = Timestamp::now();
        html! {
            @if let Some(place) = &self.info.group {
                ", " (ordinal(place.ordinal)) " of " (place.count)
                @if place.ordinal > 1 {
                    ", first seen " (time(&place.first_seen, now)) " on "
                    a href={ "/cores/" (place.first_id) } { (place.first_guest) }
                    @if let Some(kernel) = &place.first_kernel { " with " (kernel) }
                }
            }
        }
    }

    /// The registers of each processor.
    fn registers(&self) -> Markup {
        // Those of the processor that crashed are what one looks for.
        let noted = self.info.note.as_ref().and_then(|note| note.crashed_cpu);
        let crashed = noted.or_else(|| self.info.crash.as_ref()?.cpu);
        let is_alone = self.info.cpus.len() == 1;
        html! {
            @if !self.info.cpus.is_empty() {
                h2 { "Registers" }
                @for cpu in &self.info.cpus {
                    details open[is_alone || crashed == Some(cpu.index)] {
                        summary { "Processor " (cpu.index) @if let Some(state) = &cpu.state { ", " (state) } @if cpu.user_mode { ", in user mode" } }
                        dl class="registers" { @for (name, value) in &cpu.registers { dt { (name) } dd { code { (value) } } } }
                    }
                }
            }
        }
    }

    fn facts(&self) -> Markup {
        let (info, core, now) = (&self.info, &self.info.summary, Timestamp::now());
        let note = info.note.as_ref();
        html! {
            h2 { "Facts" }
            dl {
                dt { "Id" } dd { code { (core.id) } }
                dt { "Received" } dd { (time(&core.received_at, now)) }
                dt { "From" } dd { (core.client_addr) " at " (info.server_addr) }
                @if let Some(kernel) = &core.kernel { dt { "Kernel" } dd { (kernel) } }
                @if let Some(build_id) = &info.build_id { dt { "Build id" } dd { code { (build_id) } } }
                @if let Some(booted) = note.and_then(|note| note.booted_build_id.as_ref()) {
                    @if info.build_id.as_ref().is_some_and(|id| id != booted) {
                        dt { "Booted with" } dd { "another kernel, build id " code { (booted) } }
                    }
                }
                @if let Some(kernel) = note.and_then(|note| note.kept_kernel.as_ref()) {
                    dt { "Kernel kept" } dd { (kernel.name) ", " (bytes(kernel.length_bytes)) }
                }
                @if let Some(booted_at) = &info.booted_at { dt { "Booted" } dd { (time(booted_at, now)) } }
                @if let Some(trigger) = note.and_then(|note| note.trigger.as_ref()) { dt { "Trigger" } dd { (trigger) } }
                @if let Some(cpu) = note.and_then(|note| note.crashed_cpu) { dt { "Crashed processor" } dd { (cpu) } }
                @for trouble in note.iter().flat_map(|note| &note.troubles) { dt { "Trouble" } dd { (trouble) } }
                dt { "Format" } dd { (core.format) }
                dt { "Size" } dd { (bytes(core.file_len_bytes)) ", " (bytes(core.stored_bytes)) " stored" }
                @if info.zero_bytes > 0 { dt { "Zero" } dd { (bytes(info.zero_bytes)) } }
                @if info.excluded_bytes > 0 { dt { "Left out" } dd { (bytes(info.excluded_bytes)) } }
                @if info.lost_bytes > 0 { dt { "Lost" } dd { (bytes(info.lost_bytes)) } }
            }
        }
    }

    fn people(&self) -> Markup {
        let written = &self.info.written;
        html! {
            @if written.note.is_some() || !written.labels.is_empty() {
                h2 { "Notes" }
                @if let Some(note) = &written.note { p class="note" { (note) } }
                @if !written.labels.is_empty() {
                    dl { @for (name, value) in &written.labels { dt { (name) } dd { (value) } } }
                }
            }
        }
    }

    fn lost(&self) -> Markup {
        let holes = &self.info.summary.holes;
        html! {
            @if !holes.is_empty() {
                ul { @for hole in holes.iter().take(HOLES_SHOWN) { li { (hole.length) " bytes at offset " (hole.offset) } } }
                @if holes.len() > HOLES_SHOWN { p { "and " (holes.len() - HOLES_SHOWN) " more" } }
            }
        }
    }

    fn files(&self) -> Markup {
        let id = &self.info.summary.id;
        html! {
            @if !self.info.files.is_empty() {
                h2 { "Files" }
                div class="wide" tabindex="0" role="region" aria-label="Table of files" { table {
                    thead { tr { th scope="col" { "File" } th scope="col" { "Length" } th scope="col" { "Digest" } } }
                    tbody { @for file in &self.info.files { tr {
                        td { a href={ "/api/v1/cores/" (id) "/files/" (encode(&file.name)) } download { (file.name) } }
                        td class="number" { (bytes(file.length_bytes)) }
                        td { code class="digest" { (file.digest) } }
                    } } }
                } }
            }
        }
    }

    fn commands(&self) -> Markup {
        let id = &self.info.summary.id;
        html! {
            h2 { "Commands" }
            pre class="commands" tabindex="0" {
                "coreferry cores fetch " (id) " -o vmcore\n"
                "coreferry cores verify " (id) "\n"
                @match self.info.summary.format.as_str() {
                    "minidump" => "kgdb kernel.full vmcore",
                    _ => "crash vmlinux vmcore",
                }
            }
        }
    }

    fn problems(&self) -> Markup {
        html! {
            @if !self.info.problems.is_empty() {
                h2 { "What could not be told" }
                ul { @for problem in &self.info.problems { li { (problem) } } }
            }
        }
    }

    fn log(&self) -> Markup {
        let kept = self
            .explanation
            .as_ref()
            .and_then(|explanation| explanation.log.as_deref());
        let console = self.info.note.as_ref().and_then(|note| note.console_tail.as_deref());
        let Some(text) = kept.or(console) else {
            return PreEscaped(String::new());
        };
        let from = text.ceil_char_boundary(text.len().saturating_sub(LOG_CHARS_MAX));
        html! {
            h2 { "End of the log" }
            pre class="log" tabindex="0" role="region" aria-label="End of the log" { (text.get(from..).unwrap_or_default().replace("\\r\n", "\n")) }
        }
    }
}

/// A number as the place in a row.
fn ordinal(number: u64) -> String {
    let end = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_words() {
        let all = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal).join(" ");
        assert_eq!(all, "1st 2nd 3rd 4th 11th 12th 13th 21st 102nd 111th");
    }
}
