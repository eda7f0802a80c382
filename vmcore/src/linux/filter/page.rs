//! What a `struct page` says of its page (include/linux/mm_types.h, page-flags.h), as far as VMCOREINFO describes it.

use super::{FilterError, FilterLevel, bounded, number};
use crate::bytes::{u32_le, u64_le};

/// `PAGE_MAPPING_ANON`: the mapping is that of anonymous memory.
const ANONYMOUS: u64 = 1;
/// `_folio_order`, since Linux 6.6 in the low bits of the second page's flags.
const ORDER_IN_FLAGS: u64 = 0xff;
/// The highest order that makes sense: a huge page of 1 GiB.
const ORDER_MAX: u64 = 18;

/// What may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Free,
    Cache,
    CachePrivate,
    User,
    Offline,
}

/// Where the order of a compound page is kept.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// In a byte of the second structure.
    Byte(usize),
    /// In its flags.
    Flags,
}

/// What tells a page of hugetlbfs.
#[derive(Debug, Clone, Copy)]
enum Huge {
    /// The destructor's number, in a byte of the second structure.
    Destructor(usize, u8),
    /// A flag of the second structure.
    Flag(u64),
    /// A type, where others have a map count.
    Type(u32),
    /// Nothing.
    Unknown,
}

/// Places and numbers.
#[derive(Debug)]
pub(super) struct PageFields {
    /// Length of the structure.
    pub(super) len: usize,
    flags: usize,
    mapping: usize,
    map_count: usize,
    private: usize,
    compound_head: usize,
    head_mask: u64,
    lru: u64,
    has_private: u64,
    swap_cache: u64,
    swap_backed: Option<u64>,
    /// A flag, or a type.
    slab_flag: u64,
    slab_type: Option<u32>,
    poisoned: u64,
    buddy: u32,
    offline: Option<u32>,
    orders: u64,
    order: Order,
    huge: Huge,
}

impl PageFields {
    /// What VMCOREINFO describes.
    pub(super) fn described(text: &[u8]) -> Result<Self, FilterError> {
        let len = usize_of(bounded(text, "SIZE(page)", 32, 512)?);
        let offset = |name: &str| {
            let most = i64::try_from(len - 8).unwrap_or(0);
            bounded(text, &format!("OFFSET(page.{name})"), 0, most).map(usize_of)
        };
        let flag = |name: &str| bounded(text, &format!("NUMBER({name})"), 0, 63).map(|bit| 1_u64 << bit);
        // Types are negative as map counts.
        let kind = |name: &str| {
            let value = number(text, &format!("NUMBER(PAGE_{name}_MAPCOUNT_VALUE)"))?;
            u32::try_from(value & 0xffff_ffff).ok()
        };
        let order = offset("compound_order").map_or(Order::Flags, Order::Byte);
        let destructor = number(text, "NUMBER(HUGETLB_PAGE_DTOR)").and_then(|number| u8::try_from(number).ok());
        let huge = match (destructor, offset("compound_dtor"), kind("HUGETLB"), flag("PG_hugetlb")) {
            (Some(number), Ok(at), ..) => Huge::Destructor(at, number),
            (_, _, Some(kind), _) => Huge::Type(kind),
            (_, _, _, Ok(mask)) => Huge::Flag(mask),
            _ => Huge::Unknown,
        };
        Ok(Self {
            len,
            flags: offset("flags")?,
            mapping: offset("mapping")?,
            map_count: offset("_mapcount")?,
            private: offset("private")?,
            compound_head: offset("compound_head")?,
            head_mask: number(text, "NUMBER(PG_head_mask)").map_or(0, i64::cast_unsigned),
            lru: flag("PG_lru")?,
            has_private: flag("PG_private")?,
            swap_cache: flag("PG_swapcache")?,
            swap_backed: flag("PG_swapbacked").ok(),
            slab_flag: flag("PG_slab").unwrap_or(0),
            slab_type: kind("SLAB"),
            poisoned: flag("PG_hwpoison").unwrap_or(0),
            buddy: kind("BUDDY").ok_or_else(|| FilterError::NotDescribed {
                key: "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)".to_owned(),
            })?,
            offline: kind("OFFLINE"),
            orders: bounded(text, "LENGTH(zone.free_area)", 1, 64)?,
            order,
            huge,
        })
    }

    /// What a page is, if this level leaves it out, and for how many pages that holds. `next` is the structure behind it.
    pub(super) fn kind(&self, page: &[u8], next: Option<&[u8]>, frame: u64, level: FilterLevel) -> Option<(Kind, u64)> {
        let flags = u64_le(page, self.flags)?;
        let mapping = u64_le(page, self.mapping)?;
        let map_count = u32_le(page, self.map_count)?;
        // Pages of a compound page behind its first are dealt with there.
        if u64_le(page, self.compound_head)? & 1 != 0 {
            return None;
        }
        let is_slab = flags & self.slab_flag != 0 || self.slab_type == Some(map_count);
        if !is_slab && map_count == self.buddy {
            // A free page that this level keeps may have the flags of what it was before.
            if !level.has(FilterLevel::FREE) {
                return self
                    .of_flags(flags, mapping, map_count, is_slab, level, None)
                    .map(|kind| (kind, 1));
            }
            let order = u64_le(page, self.private)?;
            return (order < self.orders).then(|| (Kind::Free, 1 << order));
        }
        let compound = next.filter(|_| flags & self.head_mask != 0);
        let kind = self.of_flags(flags, mapping, map_count, is_slab, level, compound)?;
        let order = compound.and_then(|next| self.order_of(next, frame)).unwrap_or(0);
        Some((kind, 1 << order))
    }

    fn of_flags(
        &self,
        flags: u64,
        mapping: u64,
        map_count: u32,
        is_slab: bool,
        level: FilterLevel,
        compound: Option<&[u8]>,
    ) -> Option<Kind> {
        let is_anonymous = mapping & ANONYMOUS != 0 && !is_slab;
        let is_swap = flags & self.swap_cache != 0 && self.swap_backed.is_none_or(|mask| flags & mask != 0);
        let is_cache = (flags & self.lru != 0 || is_swap) && !is_anonymous;
        let has_private = flags & self.has_private != 0;
        if is_cache && !has_private && level.has(FilterLevel::CACHE | FilterLevel::CACHE_PRIVATE) {
            return Some(Kind::Cache);
        }
        if is_cache && level.has(FilterLevel::CACHE_PRIVATE) {
            return Some(Kind::CachePrivate);
        }
        if level.has(FilterLevel::USER) && (is_anonymous || self.is_huge(map_count, compound)) {
            return Some(Kind::User);
        }
        // Neither can be read in the guest, or shall be.
        let is_offline = flags & self.poisoned != 0 || (!is_slab && self.offline == Some(map_count));
        is_offline.then_some(Kind::Offline)
    }

    fn is_huge(&self, map_count: u32, compound: Option<&[u8]>) -> bool {
        let Some(next) = compound else { return false };
        match self.huge {
            Huge::Destructor(at, number) => next.get(at) == Some(&number),
            Huge::Flag(mask) => u64_le(next, self.flags).is_some_and(|flags| flags & mask != 0),
            Huge::Type(kind) => map_count == kind,
            Huge::Unknown => false,
        }
    }

    /// The order of a compound page; nothing if it makes no sense.
    fn order_of(&self, next: &[u8], frame: u64) -> Option<u64> {
        let order = match self.order {
            Order::Byte(at) => u64::from(*next.get(at)?),
            Order::Flags => u64_le(next, self.flags)? & ORDER_IN_FLAGS,
        };
        (order <= ORDER_MAX && frame.is_multiple_of(1 << order)).then_some(order)
    }
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
