//! Numbers and times for people, told alike on the terminal and on the page.

use jiff::{Timestamp, Unit};

/// A number of bytes.
pub fn bytes(count: u64) -> String {
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

/// How long ago a time was, in one unit; a text that is no time as it is.
pub fn ago(rfc3339: &str, now: Timestamp) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(8 << 30), "8.0 GiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB", "never rounded up");
    }

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
}
