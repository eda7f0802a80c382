//! Pages of the list, and the cursors between them.

use std::collections::HashMap;
use std::path::PathBuf;

use api::{CoreQuery, CoreSummary, Page, SCHEMA_VERSION, ServiceError};
use jiff::Timestamp;

use super::{LocalCores, edits};

impl LocalCores {
    /// A page of the list.
    ///
    /// # Errors
    /// As [`api::CoreService::list`].
    pub fn page(&self, query: &CoreQuery) -> Result<Page<CoreSummary>, ServiceError> {
        let since = query.since.as_deref().map(parse_time).transpose()?;
        let after = query.cursor.as_deref().map(decode_cursor).transpose()?;
        let wanted = |core: &CoreSummary| {
            query.guest.as_ref().is_none_or(|guest| *guest == core.guest)
                && query
                    .signature
                    .as_ref()
                    .is_none_or(|wanted| Some(wanted) == core.signature.as_ref())
                && query.state.is_none_or(|state| state == core.state)
                && since.is_none_or(|since| parse_time(&core.received_at).is_ok_and(|time| time >= since))
                && after.as_ref().is_none_or(|after| cursor_text(core) < *after)
        };
        let mut items: Vec<CoreSummary> = self.all().into_iter().filter(wanted).collect();
        let more = items.len() > query.limit;
        items.truncate(query.limit);
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|last| encode_cursor(&cursor_text(last)));
        self.look_at_pins(&mut items);
        Ok(Page {
            schema_version: SCHEMA_VERSION,
            items,
            next_cursor,
        })
    }

    /// Pins may be set and taken by other processes, which this one's index does not hear of.
    fn look_at_pins(&self, items: &mut [CoreSummary]) {
        let entries = self.entries().into_iter();
        let dirs: HashMap<String, PathBuf> = entries.map(|entry| (entry.summary.id, entry.dir)).collect();
        for core in items {
            if let Some(dir) = dirs.get(&core.id) {
                core.pinned = edits::read(dir).pinned;
            }
        }
    }
}

/// The same as one text.
fn cursor_text(core: &CoreSummary) -> String {
    format!("{} {}", core.received_at, core.id)
}

/// A cursor that callers do not take apart.
pub(super) fn encode_cursor(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The text in a cursor.
pub(super) fn decode_cursor(cursor: &str) -> Result<String, ServiceError> {
    let bad = || ServiceError::BadRequest(format!("`{cursor}` is not a cursor of this list"));
    let digits = cursor.as_bytes();
    if !cursor.is_ascii() || !digits.len().is_multiple_of(2) || digits.len() > 512 {
        return Err(bad());
    }
    let bytes: Option<Vec<u8>> = digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad)
}

/// A time in a query or a record.
fn parse_time(text: &str) -> Result<Timestamp, ServiceError> {
    text.parse()
        .map_err(|_| ServiceError::BadRequest(format!("`{text}` is not a time; write it as 2026-01-31T12:00:00Z")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_gives_back_its_text_and_anything_else_is_refused() {
        let text = "2026-01-31T12:00:00.000Z 0192f0c1-1111-7abc-8def-000000000000";
        assert_eq!(decode_cursor(&encode_cursor(text)).unwrap(), text);
        for cursor in ["0", "zz", "ü0", "ff", &"00".repeat(257)] {
            assert!(decode_cursor(cursor).is_err(), "`{cursor}` was taken");
        }
    }
}
