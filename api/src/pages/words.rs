//! Values as the pages show them.

use jiff::Timestamp;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::human::ago;
pub(super) use crate::human::bytes;

/// Everything but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Parts of a whole, in percent; 0 of nothing.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent.min(100)).unwrap_or(100)
}

/// A time as its distance from now, with the time itself beside it for those who point at it.
pub(super) fn time(rfc3339: &str, now: Timestamp) -> Markup {
    html! { time datetime=(rfc3339) title=(rfc3339) { (ago(rfc3339, now)) } }
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
    fn parts_of_nothing_are_no_division() {
        assert_eq!((percent(1, 0), percent(1, 3), percent(9, 3)), (100, 33, 100));
    }
}
