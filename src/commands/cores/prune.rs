//! `cores prune`: removes the cores that the rules do not keep.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use server::{Retention, Share, condemned};

use super::edit;
use super::source::{Filter, Source};
use crate::cli_failure::{Exit, Outcome};
use crate::output;

/// What stands below the help.
pub(super) const AFTER_HELP: &str = "By signature, the oldest three and the newest two of five stay. Space is made of faults that have several cores \
    before any\nfault loses its last one. Pinned cores stay, and those that are still being received. Run it by a timer.\n\n\
    Example: coreferry cores prune --dry-run --max-age 14d";

/// Arguments of `cores prune`.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Cores older than this go; `none` keeps them.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = age)]
    max_age: Limit<Duration>,
    /// Cores of one signature; `none` for any number.
    #[arg(long, value_name = "N", default_value = "5", value_parser = count)]
    per_signature: Limit<usize>,
    /// Cores of one guest; `none` for any number.
    #[arg(long, value_name = "N", default_value = "10", value_parser = count)]
    per_guest: Limit<usize>,
    /// Stored bytes of all cores, such as 500GiB; `none` for any number.
    #[arg(long, value_name = "SIZE", default_value = "none", value_parser = size)]
    max_stored: Limit<u64>,
}

/// A limit, or none.
#[derive(Debug, Clone, Copy)]
struct Limit<T>(Option<T>);

/// Removes, or says what would go.
pub(super) fn run(source: &Source, args: &PruneArgs, json: bool) -> Outcome {
    let keep = Retention {
        max_age: args.max_age.0,
        per_signature: args.per_signature.0,
        per_guest: args.per_guest.0,
        max_stored_bytes: args.max_stored.0,
    };
    let cores = source.list(&Filter::default())?;
    let condemned = condemned(&cores, &keep, Timestamp::now());
    let mut told = Vec::new();
    for (core, rule) in &condemned {
        if !args.dry_run {
            edit::remove_core(source, &core.id, &format!("prune by {}", rule.as_str()))?;
        }
        told.push(json!({
            "id": core.id, "guest": core.guest, "signature": core.signature, "received_at": core.received_at,
            "stored_bytes": core.stored_bytes, "rule": rule.as_str(), "removed": !args.dry_run,
        }));
    }
    if json {
        output::json(&told)?;
        return Ok(Exit::Ok);
    }
    let rows = condemned.iter().map(|(core, rule)| {
        let size = output::bytes(core.stored_bytes);
        vec![
            core.id.clone(),
            core.guest.clone(),
            core.received_at.clone(),
            size,
            rule.as_str().to_owned(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        output::line(&output::table(&["ID", "GUEST", "RECEIVED", "STORED", "RULE"], rows))?;
    }
    let stored: u64 = condemned.iter().map(|(core, _)| core.stored_bytes).sum();
    let verb = if args.dry_run { "would go" } else { "removed" };
    output::say(&format!(
        "{} of {} cores {verb}, {}",
        condemned.len(),
        cores.len(),
        output::bytes(stored)
    ));
    Ok(Exit::Ok)
}

fn or_none<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Limit<T>, String> {
    match text {
        "none" => Ok(Limit(None)),
        text => parse(text).map(|value| Limit(Some(value))),
    }
}

fn age(text: &str) -> Result<Limit<Duration>, String> {
    or_none(text, |text| {
        humantime::parse_duration(text).map_err(|_| "write it as 30d, 12h or none".to_owned())
    })
}

fn count(text: &str) -> Result<Limit<usize>, String> {
    // None at all is `rm`, not a rule.
    let parse = |text: &str| text.parse().ok().filter(|count| *count > 0);
    or_none(text, |text| {
        parse(text).ok_or_else(|| "write a number from 1 on, or none".to_owned())
    })
}

fn size(text: &str) -> Result<Limit<u64>, String> {
    or_none(text, |text| match text.parse::<Share>() {
        Ok(Share::Bytes(bytes)) => Ok(bytes),
        _ => Err("write 500MiB, 4TiB or none".to_owned()),
    })
}
