//! Text from guests, made safe to show and to store: control characters escaped, length cut.

use crate::limits::TEXT_CHARS_MAX;

/// One line of text: control characters, other than none, become `\n`, `\t` or `\u{..}`; at most
/// [`TEXT_CHARS_MAX`] characters remain.
#[must_use]
pub fn one_line(text: &str) -> String {
    escape(text, TEXT_CHARS_MAX, false)
}

/// Several lines of text: line feeds stay.
#[must_use]
pub fn lines(text: &str, chars_max: usize) -> String {
    escape(text, chars_max, true)
}

/// [`one_line`], or nothing when only blanks remain.
#[must_use]
pub(crate) fn some_line(text: &str) -> Option<String> {
    let text = one_line(text.trim());
    (!text.is_empty()).then_some(text)
}

/// Escapes and cuts.
fn escape(text: &str, chars_max: usize, keep_line_feeds: bool) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max));
    let mut chars = 0;
    let mut rest = text;
    loop {
        // Of most text every byte is a character that stays.
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') || *byte == b'\n' && keep_line_feeds;
        let plain = rest.bytes().take_while(is_plain).take(chars_max - chars).count();
        let (kept, behind) = rest.split_at_checked(plain).unwrap_or((rest, ""));
        out.push_str(kept);
        chars += plain;
        let mut others = behind.chars();
        let Some(c) = others.next() else { break };
        rest = others.as_str();
        let keep = !c.is_control() && !is_invisible(c) || c == '\n' && keep_line_feeds;
        let width = if keep { 1 } else { c.escape_default().count() };
        if chars + width > chars_max {
            out.push('…');
            break;
        }
        chars += width;
        if keep {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// Characters that change the direction of text or hide in it (Unicode bidirectional controls, zero width, BOM).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_direction_characters_are_escaped() {
        assert_eq!(one_line("a\x1b[31mb\nc\r"), "a\\u{1b}[31mb\\nc\\r");
        assert_eq!(one_line("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(one_line("Grüße 東京"), "Grüße 東京");
        assert_eq!(lines("a\nb\x07", 100), "a\nb\\u{7}");
    }

    #[test]
    fn text_is_cut_within_and_behind_what_is_plain() {
        for (text, chars_max, expected) in [
            ("abcd", 4, "abcd"),
            ("abcde", 4, "abcd…"),
            ("ab\x07", 6, "ab…"),
            ("ab\x07", 7, "ab\\u{7}"),
            ("é\nab", 3, "é\na…"),
            ("", 0, ""),
            ("a", 0, "…"),
        ] {
            assert_eq!(lines(text, chars_max), expected, "{text:?}, {chars_max}");
        }
    }

    #[test]
    fn text_is_cut() {
        let cut = one_line(&"x".repeat(10_000));
        assert_eq!(cut.chars().count(), TEXT_CHARS_MAX + 1);
        assert!(cut.ends_with('…'));
    }

    #[test]
    fn blanks_are_no_text() {
        assert_eq!(some_line(" \t "), None);
        assert_eq!(some_line(" a "), Some("a".to_owned()));
    }
}
