//! Which pages of a Linux guest a debugger hardly needs, by the kernel's own `struct page`s: the levels of `makedumpfile -d`
//! (makedumpfile(8)), without debug symbols.
//!
//! VMCOREINFO says where the structures are (`mem_section`) and what is in them. All of that is the guest's: every structure is
//! looked at once, and only pages that are RAM can be left out. Pages of zeros ([`FilterLevel::ZERO`]) are the business of whoever
//! writes the pages.

mod page;
mod runs;
mod sections;

use crate::image::PhysicalMemory;
use crate::linux::space::KernelSpace;

use page::{Kind, PageFields};
use sections::Sections;

pub use runs::longest_runs;

/// A level of `makedumpfile -d`: a sum of what is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilterLevel(u8);

impl FilterLevel {
    /// Pages of zeros.
    pub const ZERO: u8 = 1;
    /// Page cache without private data.
    pub const CACHE: u8 = 2;
    /// Page cache with private data, and without.
    pub const CACHE_PRIVATE: u8 = 4;
    /// Pages of user processes.
    pub const USER: u8 = 8;
    /// Free pages.
    pub const FREE: u8 = 16;

    /// The level of that number, 0 to 31.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level <= 31 { Some(Self(level)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether it leaves something out.
    #[must_use]
    pub const fn has(self, what: u8) -> bool {
        self.0 & what != 0
    }

    /// Whether it needs the kernel's page structures.
    #[must_use]
    pub const fn needs_kernel(self) -> bool {
        self.0 & !Self::ZERO != 0
    }
}

/// Why pages cannot be filtered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// VMCOREINFO does not describe the structures.
    #[error("VMCOREINFO has no usable {key}, by which pages are filtered")]
    NotDescribed {
        /// The key that is missing or makes no sense.
        key: String,
    },
    /// The table of all structures cannot be read.
    #[error("the kernel's table of memory sections at {va:#x} is not in the core")]
    NoSections {
        /// Its virtual address.
        va: u64,
    },
}

/// What was found, in pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Page cache.
    pub cache: u64,
    /// Page cache with private data.
    pub cache_private: u64,
    /// Of user processes.
    pub user: u64,
    /// Free.
    pub free: u64,
    /// Broken memory, and memory that the guest gave back to its host.
    pub offline: u64,
    /// Pages whose structures are not in the core; they are kept.
    pub unknown: u64,
}

impl std::str::FromStr for FilterLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = text.parse().ok().and_then(Self::new);
        level.ok_or_else(|| {
            "a level is a number from 0 to 31: the sum of 1 (zero pages), 2 (cache), 4 (private cache), 8 (user), 16 (free)".to_owned()
        })
    }
}

/// Finds the pages below frame `frames` that a level leaves out, and gives them to `exclude`: first frame and count.
///
/// # Errors
/// [`FilterError`]; nothing was given to `exclude` then.
pub fn filter<M: PhysicalMemory>(
    space: &KernelSpace<M>,
    vmcoreinfo: &[u8],
    level: FilterLevel,
    frames: u64,
    exclude: &mut dyn FnMut(u64, u64),
) -> Result<Filtered, FilterError> {
    let mut filtered = Filtered::default();
    if !level.needs_kernel() {
        return Ok(filtered);
    }
    let fields = PageFields::described(vmcoreinfo)?;
    let sections = Sections::described(space, vmcoreinfo)?;
    for section in 0..frames.div_ceil(sections.pages()) {
        // Memory without structures is not the kernel's to use: it stays.
        let Some(first_va) = sections.structures(space, section, fields.len) else {
            continue;
        };
        let first = section * sections.pages();
        let end = (first + sections.pages()).min(frames);
        Section {
            space,
            fields: &fields,
            level,
            first_va,
            first,
            end,
        }
        .walk(&mut filtered, exclude);
    }
    Ok(filtered)
}

/// Pages whose structures are read at a time.
const BATCH_PAGES: u64 = 512;

/// A section that has structures.
struct Section<'a, M> {
    space: &'a KernelSpace<M>,
    fields: &'a PageFields,
    level: FilterLevel,
    first_va: u64,
    first: u64,
    end: u64,
}

impl<M: PhysicalMemory> Section<'_, M> {
    fn walk(&self, filtered: &mut Filtered, exclude: &mut dyn FnMut(u64, u64)) {
        let mut batch = Vec::new();
        let mut frame = self.first;
        let mut batch_end = frame;
        let mut batch_start = frame;
        while frame < self.end {
            if frame >= batch_end {
                batch_start = frame - (frame - self.first) % BATCH_PAGES;
                batch_end = (batch_start + BATCH_PAGES).min(self.end);
                if !self.read(batch_start, batch_end, &mut batch) {
                    filtered.unknown += batch_end - frame;
                    frame = batch_end;
                    continue;
                }
            }
            let index = usize::try_from(frame - batch_start).unwrap_or(usize::MAX);
            let mut structures = batch.chunks_exact(self.fields.len).skip(index);
            let found = structures
                .next()
                .and_then(|page| self.fields.kind(page, structures.next(), frame, self.level));
            let Some((kind, pages)) = found else {
                frame += 1;
                continue;
            };
            let pages = pages.min(self.end - frame);
            exclude(frame, pages);
            *match kind {
                Kind::Free => &mut filtered.free,
                Kind::Cache => &mut filtered.cache,
                Kind::CachePrivate => &mut filtered.cache_private,
                Kind::User => &mut filtered.user,
                Kind::Offline => &mut filtered.offline,
            } += pages;
            frame += pages;
        }
    }

    /// Reads the structures of some pages.
    fn read(&self, start: u64, end: u64, batch: &mut Vec<u8>) -> bool {
        let len = |pages: u64| pages.checked_mul(self.fields.len as u64);
        let va = len(start - self.first).and_then(|offset| self.first_va.checked_add(offset));
        let (Some(va), Some(Ok(len))) = (va, len(end - start).map(usize::try_from)) else {
            return false;
        };
        batch.resize(len, 0);
        self.space.read(va, batch).is_ok()
    }
}

/// A number of VMCOREINFO, decimal and signed.
fn number(vmcoreinfo: &[u8], key: &str) -> Option<i64> {
    crate::notes::vmcoreinfo::value(vmcoreinfo, key)?.parse().ok()
}

/// A number of VMCOREINFO between two bounds.
fn bounded(vmcoreinfo: &[u8], key: &str, least: i64, most: i64) -> Result<u64, FilterError> {
    let value = number(vmcoreinfo, key).filter(|value| (least..=most).contains(value));
    value
        .and_then(|value| u64::try_from(value).ok())
        .ok_or_else(|| FilterError::NotDescribed { key: key.to_owned() })
}
