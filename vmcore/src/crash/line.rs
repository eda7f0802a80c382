//! Lines of a log without what stands before their text, and numbers out of them.

use crate::limits::CRASH_LINE_LEN_MAX;

/// The line without level (`<4>`), time (`[   12.345678]`) and caller (`[  T1]`, `[  C0]`).
pub(super) fn bare(line: &str) -> &str {
    let mut rest = line.trim_end_matches('\r');
    if let Some((level, text)) = rest.strip_prefix('<').and_then(|behind| behind.split_once('>'))
        && level.bytes().all(|byte| byte.is_ascii_digit())
    {
        rest = text;
    }
    for _ in 0..2 {
        let Some((inside, text)) = rest
            .trim_start()
            .strip_prefix('[')
            .and_then(|behind| behind.split_once(']'))
        else {
            break;
        };
        let inside = inside.trim().trim_start_matches(['T', 'C']);
        let is_prefix = !inside.is_empty() && inside.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !is_prefix {
            break;
        }
        rest = text.strip_prefix(' ').unwrap_or(text);
    }
    rest
}

/// The text behind `before`, wherever that stands in the line.
pub(super) fn behind<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    line.split_once(before).map(|(_, behind)| behind)
}

/// The decimal number at the start of `text`, blanks skipped.
pub(super) fn number(text: &str) -> Option<u32> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// As much of a line as is kept.
pub(super) fn cut(line: &str) -> &str {
    let end = line.floor_char_boundary(CRASH_LINE_LEN_MAX);
    line.get(..end).unwrap_or_default()
}

/// A message without what differs between two events of the same kind: addresses and numbers become `N`.
pub(super) fn normalised(message: &str) -> String {
    let words = cut(message).split_ascii_whitespace().map(|word| {
        let mut out = String::new();
        for part in word.split_inclusive(|c: char| !c.is_alphanumeric()) {
            let run = part.trim_end_matches(|c: char| !c.is_alphanumeric());
            out.push_str(&without_numbers(run));
            out.push_str(part.get(run.len()..).unwrap_or_default());
        }
        out
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A run of letters and digits: `N` if it is a hexadecimal number, else with `N` for each decimal number in it.
fn without_numbers(run: &str) -> String {
    let has_digit = run.bytes().any(|byte| byte.is_ascii_digit());
    let hex = run.strip_prefix("0x");
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex.is_some_and(is_hex) || (has_digit && run.len() >= 4 && is_hex(run)) {
        return "N".to_owned();
    }
    let mut out = String::new();
    for c in run.chars() {
        match c {
            '0'..='9' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_text_is_taken_off() {
        for line in [
            "<0>[   12.345678] Kernel panic",
            "[   12.345678][    T1] Kernel panic",
            "[   12.345678] [  C3] Kernel panic",
            "Kernel panic",
            "<4>Kernel panic\r",
        ] {
            assert_eq!(bare(line), "Kernel panic", "{line}");
        }
        assert_eq!(
            bare("[<ffffffff81000000>] func+0x1/0x2"),
            "[<ffffffff81000000>] func+0x1/0x2"
        );
        assert_eq!(bare("[drm] up"), "[drm] up");
        assert_eq!(bare("[]"), "[]");
    }

    #[test]
    fn numbers_do_not_tell_messages_apart() {
        assert_eq!(
            normalised("bad dir ino 4711 at offset 0: x"),
            "bad dir ino N at offset N: x"
        );
        assert_eq!(normalised("page 0xfffffe0012345678 (dead00de) free"), "page N (N) free");
        assert_eq!(
            normalised("vm_fault: fault on nofault entry, addr: 0xffff"),
            "vm_fault: fault on nofault entry, addr: N"
        );
        assert_eq!(normalised("ffs_valloc: dup alloc"), "ffs_valloc: dup alloc");
        assert_eq!(normalised("exitcode=0x0000000b"), "exitcode=N");
        assert_eq!(normalised("da0p2 failed"), "daNpN failed");
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let long = "ü".repeat(CRASH_LINE_LEN_MAX);
        assert!(cut(&long).len() <= CRASH_LINE_LEN_MAX);
    }
}
