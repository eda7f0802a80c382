//! What a core tells of the crash, made from it after it arrived.
//!
//! ```text
//! core kept ─► worker: `explain-core DIR` as a process of its own ─► explain.json ─► index (signature)
//!                      └ vmcore ─► log (memory, else console) ─► crash
//! ```
//!
//! The bytes are the guest's and hostile, so a process of its own reads them, with little memory, little time, and nothing
//! to do but print: when it dies, the core is listed without an explanation, and nothing else is hurt.

mod bytes;
mod core;
mod patience;
mod system;
mod worker;

use std::path::Path;

use api::{CrashFacts, Explanation, LogSource, SCHEMA_VERSION};
use vmcore::crash::Crash;

pub use self::bytes::VmcoreBytes;
use self::core::OpenCore;
pub use self::core::{Effort, GuestLog, kernel_log};
use self::patience::Patience;
pub(crate) use self::worker::{Explainer, read};
use crate::escape;
use crate::limits::{EXPLAIN_CPU_TIME, EXPLAINED_LOG_CHARS_MAX, EXPLAINED_PROBLEM_CHARS_MAX};
use crate::store::StoreError;
use crate::store::manifest::Manifest;

/// Explains the core in a directory. What cannot be told is said in the explanation.
///
/// # Errors
/// When there is no core in that directory.
pub fn explain(core_dir: &Path) -> Result<Explanation, StoreError> {
    let manifest = Manifest::read(core_dir).map_err(|why| StoreError::Read {
        path: core_dir.display().to_string(),
        source: std::io::Error::other(why),
    })?;
    let mut explanation = Explanation {
        schema_version: SCHEMA_VERSION,
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        ..Explanation::default()
    };
    let file = VmcoreBytes::open(core_dir, &manifest).map(|file| Patience::new(file, EXPLAIN_CPU_TIME));
    let file = file.map_err(|why| why.to_string());
    let mut core = file.as_ref().map_err(String::clone).and_then(OpenCore::open);
    let log = core.as_mut().map_err(|why| why.clone());
    let log = log.and_then(|core| core.log(Effort::Search));
    let is_over = file.as_ref().is_ok_and(Patience::is_over);
    let log = log.map_err(|why| if is_over { patience::told(EXPLAIN_CPU_TIME) } else { why });
    let text = log_text(log, &manifest, &mut explanation);
    if let Ok(core) = &core {
        system::tell(core, &manifest, &mut explanation);
    }
    system::tell_from_log(text.as_deref(), &manifest, &mut explanation);
    let crash = text.as_deref().and_then(Crash::from_log);
    let crash = crash.or_else(|| Crash::from_log(&panic_line(&manifest)?));
    explanation.crash = crash.as_ref().map(facts);
    explanation.log = text.map(|text| end_of(&escape::lines(end_of(&text), usize::MAX)).to_owned());
    Ok(explanation)
}

/// The text of the guest's log: out of its memory, else the end of its console.
fn log_text(log: Result<GuestLog, String>, manifest: &Manifest, explanation: &mut Explanation) -> Option<String> {
    match log {
        Ok(log) => {
            if log.unreadable_records() > 0 {
                let count = log.unreadable_records();
                explanation
                    .problems
                    .push(format!("{count} records of the kernel log cannot be read"));
            }
            explanation.uptime_ms = log.last_time_ms();
            explanation.log_source = Some(LogSource::Memory);
            Some(log.to_text())
        }
        Err(why) => {
            let why = escape::one_line(&why)
                .chars()
                .take(EXPLAINED_PROBLEM_CHARS_MAX)
                .collect::<String>();
            explanation.problems.push(format!("no kernel log in its memory: {why}"));
            let console = manifest.note.as_ref().and_then(|note| note.console_tail.clone());
            explanation.log_source = console.as_ref().map(|_| LogSource::Console);
            console
        }
    }
}

/// What a kernel dump header, or the sender's note, says of the panic, as the line that a log would have.
fn panic_line(manifest: &Manifest) -> Option<String> {
    let of_note = manifest.note.as_ref().and_then(|note| note.panic.clone());
    let of_header = manifest.kernel_header.as_ref().map(|header| &header.panic_string);
    let of_header = of_header.filter(|text| manifest.note.is_none() && !text.is_empty());
    of_note.or_else(|| of_header.map(|text| format!("panic: {text}")))
}

fn facts(crash: &Crash) -> CrashFacts {
    let optional = |text: &Option<String>| text.as_deref().and_then(escape::some_line);
    CrashFacts {
        signature: escape::one_line(&crash.signature),
        kind: crash.kind.to_owned(),
        cause: escape::one_line(&crash.cause),
        panic: optional(&crash.panic),
        function: optional(&crash.function),
        task: optional(&crash.task),
        pid: crash.pid,
        cpu: crash.cpu,
        trace: crash.trace.iter().map(|name| escape::one_line(name)).collect(),
    }
}

/// As much of the end of a text as is kept, whole lines.
fn end_of(text: &str) -> &str {
    let from = text.ceil_char_boundary(text.len().saturating_sub(EXPLAINED_LOG_CHARS_MAX));
    if from == 0 {
        return text;
    }
    let end = text.get(from..).unwrap_or_default();
    end.split_once('\n').map_or(end, |(_, whole)| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        let line = "[    1.000000] x\n";
        let text = line.repeat(EXPLAINED_LOG_CHARS_MAX / line.len() + 10);
        let kept = end_of(&text);
        assert!(kept.len() <= EXPLAINED_LOG_CHARS_MAX && kept.len() > EXPLAINED_LOG_CHARS_MAX - 2 * line.len());
        assert!(kept.starts_with("[    1.0") && kept.ends_with("x\n"));
        assert_eq!(end_of("short"), "short");
    }
}
