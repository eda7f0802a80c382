//! A core's bytes as a strip: what arrived, what is zero or left out, what is lost.

use maud::{Markup, html};

use crate::types::core::ByteRange;

/// Parts of the strip: what a screen shows of a line.
const PARTS: u64 = 256;

/// What a part is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Lost,
    Stored,
    Absent,
}

/// The strip of a file of `len_bytes`.
pub(super) fn markup(len_bytes: u64, received: &[ByteRange], lost: &[ByteRange]) -> Markup {
    let parts = parts(len_bytes, received, lost);
    html! {
        svg class="strip" viewBox={ "0 0 " (PARTS) " 10" } preserveAspectRatio="none" role="img"
            aria-label="Coverage of the file from its beginning to its end" {
            @for (from, length, part) in runs(&parts) {
                rect x=(from) y="0" width=(length) height="10" class=(match part {
                    Part::Lost => "lost",
                    Part::Stored => "stored",
                    Part::Absent => "absent",
                }) {}
            }
        }
        p class="legend" {
            span class="key stored" {} " stored "
            span class="key absent" {} " zero or left out "
            span class="key lost" {} " lost"
        }
    }
}

/// What each part of the file is; one lost byte makes a part lost, one that arrived makes it stored.
fn parts(len_bytes: u64, received: &[ByteRange], lost: &[ByteRange]) -> Vec<Part> {
    let count = usize::try_from(PARTS).unwrap_or(0);
    let mut parts = vec![Part::Absent; count];
    let kinds = [(received, Part::Stored), (lost, Part::Lost)];
    for (ranges, kind) in kinds {
        for range in ranges.iter().filter(|range| range.length > 0) {
            let last = range.offset.saturating_add(range.length - 1);
            let index = |offset: u64| {
                let index = u128::from(offset) * u128::from(PARTS) / u128::from(len_bytes.max(1));
                usize::try_from(index).unwrap_or(usize::MAX).min(count - 1)
            };
            for part in parts.get_mut(index(range.offset)..=index(last)).unwrap_or_default() {
                *part = (*part).min(kind);
            }
        }
    }
    parts
}

/// Neighbours of one kind as one: first part, number of parts, kind.
fn runs(parts: &[Part]) -> Vec<(usize, usize, Part)> {
    let mut runs: Vec<(usize, usize, Part)> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match runs.last_mut() {
            Some((_, length, kind)) if kind == part => *length += 1,
            _ => runs.push((index, 1, *part)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u64, length: u64) -> ByteRange {
        ByteRange { offset, length }
    }

    #[test]
    fn one_lost_byte_shows() {
        let len = 1 << 30;
        let shown = parts(len, &[range(0, len - 1)], &[range(len - 1, 1)]);
        assert_eq!(shown.last(), Some(&Part::Lost));
        assert_eq!(runs(&shown), [(0, 255, Part::Stored), (255, 1, Part::Lost)]);
    }

    #[test]
    fn what_makes_no_sense_is_bounded() {
        let all = parts(0, &[range(u64::MAX, u64::MAX)], &[range(5, 0)]);
        assert_eq!(all.len(), 256);
        assert_eq!(runs(&parts(100, &[], &[])), [(0, 256, Part::Absent)]);
    }
}
