//! `cores log`: the kernel log out of a core's memory.

use api::CoreInfo;
use serde_json::{Value, json};
use server::{Effort, GuestLog};
use vmcore::linux::LogRecord;

use super::bytes;
use super::source::Source;
use crate::cli_failure::{Exit, Failure, Outcome};
use crate::output;

/// Most characters shown: the largest ring that a kernel has is 32 MiB.
const CHARS_MAX: usize = 64 << 20;

/// Prints the log.
pub(super) fn run(source: &Source, id: &str, as_json: bool) -> Outcome {
    let info = source.info(id)?;
    // From afar all of memory would have to come here first.
    let effort = match source {
        Source::Dir(_) => Effort::Search,
        Source::Api(_) => Effort::Notes,
    };
    match server::kernel_log(&*bytes::open(source, &info)?, effort) {
        Ok(log) => {
            if as_json {
                print_json(&info, &log)?;
            } else {
                output::line(server::lines(&log.to_text(), CHARS_MAX).trim_end())?;
            }
            if log.unreadable_records() > 0 {
                let count = log.unreadable_records();
                output::say(&format!("{count} records of the log could not be read"));
            }
            Ok(Exit::Ok)
        }
        Err(why) => match info.note.and_then(|note| note.console_tail) {
            Some(tail) if !as_json => {
                output::say(&format!("{why}; this is the end of the guest's console instead"));
                output::line(tail.trim_end())?;
                Ok(Exit::Ok)
            }
            _ => Err(Failure::new(
                Exit::Failed,
                format!("core {} gives no kernel log: {why}", info.summary.id),
            )),
        },
    }
}

fn print_json(info: &CoreInfo, log: &GuestLog) -> anyhow::Result<()> {
    let records: Vec<Value> = match log {
        GuestLog::Linux(log) => {
            let records = log.records.iter();
            let text = |record: &LogRecord| String::from_utf8_lossy(&record.text).into_owned();
            records
                .map(|record| json!({ "time_ns": record.time_ns, "text": text(record) }))
                .collect()
        }
        // A message buffer has lines, and no times.
        GuestLog::FreeBsd(text) => text.lines().map(|line| json!({ "text": line })).collect(),
    };
    output::json(&json!({
        "schema_version": api::SCHEMA_VERSION,
        "id": info.summary.id,
        "records": records,
        "unreadable_records": log.unreadable_records(),
    }))
}
