//! Numbers and times for people.

use jiff::{Timestamp, Unit};
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A number of bytes.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS.get(unit).unwrap_or(&"?"))
}

/// Parts of a whole, in percent; 0 of nothing.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent.min(100)).unwrap_or(100)
}

/// A time as its distance from now, with the time itself beside it for those who point at it.
pub(super) fn time(rfc3339: &str, now: Timestamp) -> Markup {
    html! { time datetime=(rfc3339) title=(rfc3339) { (ago(rfc3339, now)) } }
}

/// How long ago, in one unit.
pub(super) fn ago(rfc3339: &str, now: Timestamp) -> String {
    let Some(seconds) = rfc3339
        .parse::<Timestamp>()
        .ok()
        .and_then(|time| now.since((Unit::Second, time)).ok())
        .map(|span| span.get_seconds())
    else {
        return rfc3339.to_owned();
    };
    match seconds {
        ..0 => "just now".to_owned(),
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// A value for a path or a query.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The first characters of a text.
pub(super) fn short(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_one_unit() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (time, expected) in [
            ("2026-01-31T12:00:01Z", "just now"),
            ("2026-01-31T11:59:58.9Z", "1 s ago"),
            ("2026-01-31T11:01:00Z", "59 min ago"),
            ("2026-01-30T12:00:00Z", "24 h ago"),
            ("2026-01-01T12:00:00Z", "30 d ago"),
            ("never", "never"),
        ] {
            assert_eq!(ago(time, now), expected, "{time}");
        }
    }

    #[test]
    fn parts_of_nothing_are_no_division() {
        assert_eq!((percent(1, 0), percent(1, 3), percent(9, 3)), (100, 33, 100));
    }
}
