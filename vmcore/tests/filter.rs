//! Which pages a level leaves out, by structures made for the test; makedumpfile's opinion on real ones is asked in `tests/linux`.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests; sizes chosen here

use proptest::prelude::*;
use vmcore::image::{Absent, PhysicalMemory};
use vmcore::linux::KernelSpace;
use vmcore::linux::filter::{FilterError, FilterLevel, Filtered, filter};
use vmcore::linux::space::START_KERNEL_MAP;

/// Where things are in the kernel's image, which is mapped from physical address 0 on.
const POINTER: usize = 0x1000;
const ROOTS: usize = 0x2000;
const ROOT: usize = 0x3000;
const STRUCTURES: usize = 0x10_0000;
/// Pages of a section of 16 MiB.
const SECTION_PAGES: u64 = 4096;
const PAGE_LEN: usize = 64;

const LRU: u64 = 1 << 4;
const HEAD: u64 = 1 << 16;
const PRIVATE: u64 = 1 << 13;
const SWAP_CACHE: u64 = 1 << 10;
const SWAP_BACKED: u64 = 1 << 19;
const POISONED: u64 = 1 << 22;

/// As Linux 6.1 writes it.
const TEXT: &str = "OSRELEASE=6.1.0\nNUMBER(phys_base)=0\nSYMBOL(init_top_pgt)=ffffffff80000000\n\
    SYMBOL(mem_section)=ffffffff80002000\nLENGTH(mem_section)=16\nSIZE(mem_section)=16\n\
    OFFSET(mem_section.section_mem_map)=0\nNUMBER(SECTION_SIZE_BITS)=24\nSIZE(page)=64\nOFFSET(page.flags)=0\n\
    OFFSET(page._refcount)=52\nOFFSET(page.mapping)=24\nOFFSET(page._mapcount)=48\nOFFSET(page.private)=40\n\
    OFFSET(page.compound_dtor)=16\nOFFSET(page.compound_order)=17\nOFFSET(page.compound_head)=8\n\
    LENGTH(zone.free_area)=11\nNUMBER(PG_lru)=4\nNUMBER(PG_private)=13\nNUMBER(PG_swapcache)=10\n\
    NUMBER(PG_swapbacked)=19\nNUMBER(PG_slab)=9\nNUMBER(PG_hwpoison)=22\nNUMBER(PG_head_mask)=65536\n\
    NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\nNUMBER(HUGETLB_PAGE_DTOR)=2\nNUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-257\n";

struct Memory(Vec<u8>);

impl PhysicalMemory for Memory {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: gpa,
            len_bytes: bytes.len(),
        };
        let at = usize::try_from(gpa).map_err(|_| absent)?;
        let found = self.0.get(at..at.saturating_add(bytes.len())).ok_or(absent)?;
        bytes.copy_from_slice(found);
        Ok(())
    }
}

impl Memory {
    /// Two sections, all pages in use by the kernel; the third has no structures.
    fn new() -> Self {
        let mut memory = Self(vec![0; STRUCTURES + 2 * SECTION_PAGES as usize * PAGE_LEN]);
        let va = |at: usize| START_KERNEL_MAP + at as u64;
        memory.put(POINTER, va(ROOTS));
        memory.put(ROOTS, va(ROOT));
        for section in 0..2 {
            let structures = va(STRUCTURES) + section * SECTION_PAGES * PAGE_LEN as u64;
            let coded = structures.wrapping_sub(section * SECTION_PAGES * PAGE_LEN as u64);
            memory.put(ROOT + section as usize * 16, coded | 3 | 0x18);
        }
        for page in 0..2 * SECTION_PAGES {
            memory.page(page, 0, 0, -1);
        }
        memory
    }

    fn put(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn page(&mut self, frame: u64, flags: u64, mapping: u64, map_count: i32) -> usize {
        let at = STRUCTURES + frame as usize * PAGE_LEN;
        self.put(at, flags);
        self.put(at + 24, mapping);
        self.0[at + 48..at + 52].copy_from_slice(&map_count.to_le_bytes());
        at
    }

    fn free(&mut self, frame: u64, order: u64) {
        let at = self.page(frame, 0, 0, -129);
        self.put(at + 40, order);
    }

    /// A compound page: its head, and tails that point to it.
    fn compound(&mut self, frame: u64, order: u8, flags: u64, mapping: u64, destructor: u8) {
        self.page(frame, flags | HEAD, mapping, -1);
        for tail in 1..1 << order {
            let at = self.page(frame + tail, 0, 0, -1);
            self.put(at + 8, 0xffff_0001);
        }
        let at = STRUCTURES + (frame as usize + 1) * PAGE_LEN;
        self.0[at + 16] = destructor;
        self.0[at + 17] = order;
    }

    fn filtered(&self, text: &str, level: u8, frames: u64) -> Result<(Vec<(u64, u64)>, Filtered), FilterError> {
        let space = KernelSpace::new(self, text.as_bytes()).unwrap();
        let mut runs = Vec::new();
        let level = FilterLevel::new(level).unwrap();
        let filtered = filter(&space, text.as_bytes(), level, frames, &mut |first, count| {
            runs.push((first, count));
        })?;
        Ok((runs, filtered))
    }
}

/// One page or more of everything.
fn sample() -> Memory {
    let mut memory = Memory::new();
    memory.free(64, 3);
    memory.page(100, LRU, 0x1000, 0);
    memory.page(101, LRU | PRIVATE, 0x1000, 0);
    memory.page(102, LRU, 0x1001, 0);
    memory.page(103, SWAP_CACHE | SWAP_BACKED, 0x1001, 0);
    memory.page(104, SWAP_CACHE | SWAP_BACKED, 0x1000, 0);
    memory.page(105, SWAP_CACHE, 0x1000, 0);
    memory.page(106, POISONED, 0, -1);
    memory.page(107, 0, 0, -257);
    memory.compound(512, 9, LRU, 0x2001, 1);
    memory.compound(1024, 9, 0, 0x2000, 2);
    memory.compound(1536, 2, LRU, 0x2000, 1);
    memory.page(1540, 0, 0x1, -1);
    memory.free(SECTION_PAGES + 8, 0);
    memory.free(SECTION_PAGES + 16, 11);
    memory
}

#[test]
fn each_level_leaves_out_what_it_names() {
    let offline = [(106, 1), (107, 1)];
    for (level, own) in [
        (0, vec![]),
        (1, vec![]),
        (2, vec![(100, 1), (104, 1), (1536, 4)]),
        (4, vec![(100, 1), (101, 1), (104, 1), (1536, 4)]),
        (8, vec![(102, 1), (103, 1), (512, 512), (1024, 512), (1540, 1)]),
        (16, vec![(64, 8), (SECTION_PAGES + 8, 1)]),
    ] {
        let (runs, _) = sample().filtered(TEXT, level, 3 * SECTION_PAGES).unwrap();
        let mut expected = own;
        if level > 1 {
            expected.extend(offline);
            expected.sort_unstable();
        }
        assert_eq!(runs, expected, "level {level}");
    }
    let (runs, filtered) = sample().filtered(TEXT, 31, 3 * SECTION_PAGES).unwrap();
    assert_eq!(runs.iter().map(|(_, count)| count).sum::<u64>(), 9 + 7 + 1027 + 2);
    let counts = (
        filtered.cache,
        filtered.cache_private,
        filtered.user,
        filtered.free,
        filtered.offline,
    );
    assert_eq!(counts, (6, 1, 1027, 9, 2));
    assert_eq!(filtered.unknown, 0);
}

#[test]
fn the_table_is_found_also_where_only_its_pointer_is_told() {
    let text = TEXT.replace("ffffffff80002000", &format!("{:x}", START_KERNEL_MAP + POINTER as u64));
    let (runs, _) = sample().filtered(&text, 16, 3 * SECTION_PAGES).unwrap();
    assert_eq!(runs.first(), Some(&(64, 8)));
}

#[test]
fn what_is_not_described_or_not_there_filters_nothing() {
    let memory = sample();
    for key in [
        "SIZE(page)",
        "OFFSET(page.mapping)",
        "SYMBOL(mem_section)",
        "NUMBER(PG_lru)",
        "LENGTH(zone.free_area)",
    ] {
        let lines: Vec<&str> = TEXT.lines().filter(|line| !line.starts_with(key)).collect();
        let why = memory.filtered(&lines.join("\n"), 31, 100).unwrap_err();
        assert_eq!(why, FilterError::NotDescribed { key: key.to_owned() });
    }
    let huge = TEXT.replace("SIZE(page)=64", "SIZE(page)=99999999999");
    assert!(matches!(
        memory.filtered(&huge, 31, 100),
        Err(FilterError::NotDescribed { .. })
    ));
    let mut without = sample();
    without.put(ROOTS, 0);
    let va = START_KERNEL_MAP + ROOTS as u64;
    assert_eq!(
        without.filtered(TEXT, 31, 100).unwrap_err(),
        FilterError::NoSections { va }
    );
    // Structures that are not in the core: their pages are kept.
    let mut short = sample();
    short.0.truncate(STRUCTURES + SECTION_PAGES as usize * PAGE_LEN);
    let (runs, filtered) = short.filtered(TEXT, 16, 2 * SECTION_PAGES).unwrap();
    assert_eq!(
        (runs, filtered.unknown),
        (vec![(64, 8), (106, 1), (107, 1)], SECTION_PAGES)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the structures hold, each page is named at most once, and none beyond the RAM.
    #[test]
    fn hostile_structures_cost_one_look_each(seed in any::<u64>(), level in 2_u8..32) {
        let mut memory = Memory::new();
        let mut state = seed | 1;
        for at in (STRUCTURES..memory.0.len()).step_by(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Few bits, so that flags and types meet.
            let value = if state & 3 == 0 { state & (state >> 5) } else { (-129_i64).cast_unsigned() >> (state & 32) };
            memory.put(at, if state & 0x700 == 0 { 0 } else { value & !1 | (state >> 40 & 1) });
        }
        let (runs, _) = memory.filtered(TEXT, level, 2 * SECTION_PAGES - 7).unwrap();
        let mut at = 0;
        for (first, count) in runs {
            prop_assert!(first >= at && count > 0);
            at = first + count;
        }
        prop_assert!(at <= 2 * SECTION_PAGES - 7);
    }
}
