use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::ops::Range;

use super::rng::Rng;

const PAGE_LEN: u64 = 4096;

/// The flags of a page that is full; compared as a whole, which is fast in builds for tests.
const WRITTEN: [bool; 4096] = [true; 4096];

/// What storage holds of a file, byte by byte; on purpose nothing like [`crate::Extents`], which is judged by it.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pages: BTreeMap<u64, Box<Page>>,
}

#[derive(Clone, Debug)]
struct Page {
    bytes: [u8; 4096],
    written: [bool; 4096],
}

impl Image {
    /// Writes bytes at a file offset.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, within, part) in parts(offset, bytes) {
            let blank = || {
                Box::new(Page {
                    bytes: [0; 4096],
                    written: [false; 4096],
                })
            };
            let page = self.pages.entry(page).or_insert_with(blank);
            if let Some(place) = page.bytes.get_mut(within.clone()) {
                place.copy_from_slice(part);
            }
            if let Some(flags) = page.written.get_mut(within) {
                flags.fill(true);
            }
        }
    }

    /// Takes the page at `from` away and puts it to `to`; both are multiples of 4096.
    pub fn move_page(&mut self, from: u64, to: u64) {
        if let Some(page) = self.pages.remove(&(from / PAGE_LEN)) {
            self.pages.insert(to / PAGE_LEN, page);
        }
    }

    /// Whether exactly these bytes were written there.
    #[must_use]
    pub fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        parts(offset, bytes).into_iter().all(|(page, within, part)| {
            self.pages.get(&page).is_some_and(|page| {
                page.written.get(within.clone()) == WRITTEN.get(..part.len()) && page.bytes.get(within) == Some(part)
            })
        })
    }

    /// At most `len` bytes at an offset, as far as their page reaches.
    #[must_use]
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let within = usize::try_from(offset % PAGE_LEN).unwrap_or(0);
        let page = self.pages.get(&(offset / PAGE_LEN));
        page.map_or_else(Vec::new, |page| {
            page.bytes.iter().skip(within).take(len).copied().collect()
        })
    }

    /// What was written, as ascending ranges that do not touch.
    #[must_use]
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut add = |range: Range<u64>| match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        };
        for (number, page) in &self.pages {
            let start = number * PAGE_LEN;
            if page.written == WRITTEN {
                add(start..start + PAGE_LEN);
                continue;
            }
            for (at, _) in (start..).zip(&page.written).filter(|(_, written)| **written) {
                add(at..at + 1);
            }
        }
        ranges
    }
}

/// Cuts bytes at page borders: page number, place within the page, bytes.
fn parts(offset: u64, bytes: &[u8]) -> Vec<(u64, Range<usize>, &[u8])> {
    let mut parts = Vec::new();
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let within = usize::try_from(at % PAGE_LEN).unwrap_or(0);
        let (part, tail) = rest.split_at(rest.len().min(4096 - within));
        parts.push((at / PAGE_LEN, within..within + part.len(), part));
        at += part.len() as u64;
        rest = tail;
    }
    parts
}

/// `len` bytes that differ from those of any other offset or seed, so that a byte in the wrong place is seen.
#[must_use]
pub fn content(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut word = offset / 8;
    while bytes.len() < len + 8 {
        bytes.extend(
            Rng::new(seed ^ word.wrapping_mul(0x2545_f491_4f6c_dd1d))
                .next()
                .to_le_bytes(),
        );
        word += 1;
    }
    let skip = usize::try_from(offset % 8).unwrap_or(0);
    bytes.into_iter().skip(skip).take(len).collect()
}
