//! The kernel log out of memory: rings made by hand, page tables, and memory that lies.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests

mod ram;

use proptest::prelude::*;
use ram::Ram;
use vmcore::image::{Absent, PhysicalMemory};
use vmcore::limits::KERNEL_LOG_TEXT_LEN_MAX;
use vmcore::linux::space::START_KERNEL_MAP;
use vmcore::linux::{KernelLog, KernelSpace, LogError, LogRecord};

const RAM_LEN: usize = 1 << 20;
const TOP_TABLE: u64 = 0x1000;
/// The pointer `prb`, and the structures that it leads to.
const PRB_POINTER: u64 = 0x8000;
const PRB: u64 = 0x8100;
const DESCS: u64 = 0x9000;
const INFOS: u64 = 0xa000;
const TEXT: u64 = 0xb000;
const DESC_LEN: u64 = 24;
const INFO_LEN: u64 = 88;
const COUNT_BITS: u32 = 3;
const TEXT_BITS: u32 = 8;

fn va(gpa: u64) -> u64 {
    START_KERNEL_MAP + gpa
}

fn vmcoreinfo() -> String {
    let mut text = format!(
        "OSRELEASE=6.1.0\nNUMBER(phys_base)=0\nSYMBOL(init_top_pgt)={:x}\nSYMBOL(prb)={:x}\n",
        va(TOP_TABLE),
        va(PRB_POINTER)
    );
    for (key, value) in [
        ("OFFSET(printk_ringbuffer.desc_ring)", 0),
        ("OFFSET(printk_ringbuffer.text_data_ring)", 64),
        ("OFFSET(prb_desc_ring.count_bits)", 0),
        ("OFFSET(prb_desc_ring.descs)", 8),
        ("OFFSET(prb_desc_ring.infos)", 16),
        ("OFFSET(prb_desc_ring.head_id)", 24),
        ("OFFSET(prb_desc_ring.tail_id)", 32),
        ("OFFSET(prb_data_ring.size_bits)", 0),
        ("OFFSET(prb_data_ring.data)", 8),
        ("SIZE(prb_desc)", DESC_LEN),
        ("OFFSET(prb_desc.state_var)", 0),
        ("OFFSET(prb_desc.text_blk_lpos)", 8),
        ("OFFSET(prb_data_blk_lpos.begin)", 0),
        ("OFFSET(prb_data_blk_lpos.next)", 8),
        ("SIZE(printk_info)", INFO_LEN),
        ("OFFSET(printk_info.ts_nsec)", 8),
        ("OFFSET(printk_info.text_len)", 16),
        ("OFFSET(atomic_long_t.counter)", 0),
    ] {
        text.push_str(&format!("{key}={value}\n"));
    }
    text
}

/// A ring with its head written; records come by [`record`]. `base` is added to the addresses of the arrays.
fn ring(tail_id: u64, head_id: u64, base: u64) -> Ram {
    let mut ram = Ram(vec![0; RAM_LEN]);
    ram.put_u64(PRB_POINTER, va(PRB));
    ram.put(PRB, &COUNT_BITS.to_le_bytes());
    ram.put_u64(PRB + 8, base + DESCS);
    ram.put_u64(PRB + 16, base + INFOS);
    ram.put_u64(PRB + 24, head_id);
    ram.put_u64(PRB + 32, tail_id);
    ram.put(PRB + 64, &TEXT_BITS.to_le_bytes());
    ram.put_u64(PRB + 72, base + TEXT);
    ram
}

/// A record with this state whose text block is `begin..next` (logical positions); the text stands at `text_at`.
fn record(ram: &mut Ram, id: u64, state: u64, (begin, next, text_at): (u64, u64, u64), text: &[u8]) {
    let slot = id % (1 << COUNT_BITS);
    let masked = id & (u64::MAX >> 2);
    ram.put_u64(DESCS + slot * DESC_LEN, state << 62 | masked);
    ram.put_u64(DESCS + slot * DESC_LEN + 8, begin);
    ram.put_u64(DESCS + slot * DESC_LEN + 16, next);
    ram.put_u64(INFOS + slot * INFO_LEN + 8, masked * 1_000_000_000);
    ram.put(
        INFOS + slot * INFO_LEN + 16,
        &u16::try_from(text.len()).unwrap().to_le_bytes(),
    );
    ram.put(TEXT + text_at + 8, text);
}

fn read(ram: Ram) -> Result<KernelLog, LogError> {
    let info = vmcoreinfo();
    KernelLog::read(&KernelSpace::new(ram, info.as_bytes()).unwrap(), info.as_bytes())
}

#[test]
fn records_come_in_their_order_whatever_their_place() {
    let mut ram = ring(6, 10, START_KERNEL_MAP);
    record(&mut ram, 6, 2, (0, 24, 0), b"one");
    record(&mut ram, 7, 2, (24, 48, 24), b"two\nlines");
    // Reserved, and a place that belongs to another record by now.
    record(&mut ram, 8, 0, (48, 72, 48), b"never");
    record(&mut ram, 9, 1, (240, 256, 240), b"to end");
    // Would pass the end of the ring, so it is at its beginning.
    record(&mut ram, 10, 1, (248, 256 + 24, 0), b"wrapped");
    let log = read(ram).unwrap();
    assert_eq!(log.unreadable_records, 0);
    // The first record's text was overwritten by the last one's; its length is still its own.
    let expected =
        "[    6.000000] wra\n[    7.000000] two\n[    7.000000] lines\n[    9.000000] to end\n[   10.000000] wrapped\n";
    assert_eq!(log.to_text(), expected);
}

#[test]
fn records_without_text_are_empty_lines_and_senseless_ones_are_counted() {
    let mut ram = ring(0, 3, START_KERNEL_MAP);
    record(&mut ram, 0, 2, (3, 3, 0), b"");
    record(&mut ram, 1, 2, (1, 1, 0), b"text without a block");
    record(&mut ram, 2, 2, (16, 20, 16), b"block too short");
    record(&mut ram, 3, 2, (64, 96, 64), b"good");
    let log = read(ram).unwrap();
    assert_eq!(log.to_text(), "[    0.000000] \n[    3.000000] good\n");
    assert_eq!(log.unreadable_records, 2);
}

#[test]
fn a_ring_that_was_allocated_is_found_through_the_page_tables() {
    // The direct map, by a page table of 4 KiB pages and, 1 GiB above, by one large page.
    let base = 0xffff_8880_0000_0000_u64;
    for (base, is_large) in [(base, false), (base + (1 << 30), true)] {
        let mut ram = ring(0, 0, base);
        record(&mut ram, 0, 2, (0, 24, 0), b"mapped");
        let index = |shift: u32| (base >> shift & 0x1ff) * 8;
        ram.put_u64(TOP_TABLE + index(39), 0x2000 | 0x8000_0000_0000_0001);
        ram.put_u64(0x2000 + index(30), 0x3001);
        ram.put_u64(0x3000 + index(21), if is_large { 0x81 } else { 0x4001 });
        for page in 0..256 {
            ram.put_u64(0x4000 + page * 8, page << 12 | 1);
        }
        assert_eq!(read(ram.clone()).unwrap().to_text(), "[    0.000000] mapped\n");
        ram.put_u64(0x3000 + index(21), 0);
        assert!(matches!(read(ram), Err(LogError::Absent { .. })));
    }
}

/// Memory of which one page is lost.
#[derive(Clone)]
struct Torn(Ram, u64);

impl PhysicalMemory for Torn {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let end = gpa + bytes.len() as u64;
        if gpa < self.1 + 4096 && self.1 < end {
            return Err(Absent {
                at: gpa,
                len_bytes: bytes.len(),
            });
        }
        self.0.read(gpa, bytes)
    }
}

#[test]
fn of_a_partial_core_the_records_that_are_there_are_read() {
    let mut ram = ring(0, 2, START_KERNEL_MAP);
    // The text ring passes the end of a page behind its second record.
    ram.put_u64(PRB + 72, va(TEXT + 0x1000 - 48));
    for (id, text) in [(0, b"one"), (1, b"two"), (2, b"six")] {
        record(&mut ram, id, 2, (id * 24, id * 24 + 24, 0x1000 - 48 + id * 24), text);
    }
    let info = vmcoreinfo();
    let read = |lost: u64| {
        let space = KernelSpace::new(Torn(ram.clone(), lost), info.as_bytes()).unwrap();
        KernelLog::read(&space, info.as_bytes())
    };
    let log = read(TEXT + 0x1000).unwrap();
    assert_eq!(log.to_text(), "[    0.000000] one\n[    1.000000] two\n");
    assert_eq!(log.unreadable_records, 1);
    let log = read(TEXT).unwrap();
    assert_eq!(
        (log.to_text().as_str(), log.unreadable_records),
        ("[    2.000000] six\n", 2)
    );
    // Without its descriptors there is nothing to go by.
    assert!(matches!(
        read(DESCS),
        Err(LogError::Absent {
            part: "descriptors",
            ..
        })
    ));
    assert!(matches!(read(PRB_POINTER), Err(LogError::Absent { .. })));
}

#[test]
fn records_that_share_their_text_are_not_more_than_the_ring_holds() {
    let mut ram = ring(0, 7, START_KERNEL_MAP);
    let shared = [b'x'; 100];
    for id in 0..8 {
        record(&mut ram, id, 2, (0, 128, 0), &shared);
    }
    let log = read(ram).unwrap();
    assert_eq!((log.records.len(), log.unreadable_records), (2, 6));
}

#[test]
fn of_a_log_that_is_too_long_the_end_is_shown() {
    for (text, newest) in [
        (b"\n".repeat(65_535), "newest"),
        (b"\xff".repeat(65_535), "newest"),
        (b"x".repeat(65_535), "newest"),
    ] {
        let record = |text: &[u8], time_ns| LogRecord {
            time_ns,
            text: text.to_vec(),
        };
        let mut log = KernelLog {
            records: vec![record(&text, u64::MAX); 1100],
            unreadable_records: 0,
        };
        log.records.push(record(newest.as_bytes(), u64::MAX));
        let shown = log.to_text();
        assert!(shown.ends_with("] newest\n"), "{}", shown.len());
        assert!(
            shown.len() <= KERNEL_LOG_TEXT_LEN_MAX && shown.len() > KERNEL_LOG_TEXT_LEN_MAX / 2,
            "{}",
            shown.len()
        );
    }
}

#[test]
fn an_old_kernels_records_are_read() {
    let info = format!(
        "OSRELEASE=4.19\nNUMBER(phys_base)=0\nSYMBOL(init_top_pgt)={:x}\nSYMBOL(log_buf)={:x}\nSYMBOL(log_buf_len)={:x}\n\
         SYMBOL(log_first_idx)={:x}\nSYMBOL(log_next_idx)={:x}\nSIZE(printk_log)=16\nOFFSET(printk_log.ts_nsec)=0\n\
         OFFSET(printk_log.len)=8\nOFFSET(printk_log.text_len)=10\n",
        va(TOP_TABLE),
        va(0x8000),
        va(0x8008),
        va(0x8010),
        va(0x8014)
    );
    let mut ram = Ram(vec![0; RAM_LEN]);
    ram.put_u64(0x8000, va(0x9000));
    ram.put(0x8008, &128_u32.to_le_bytes());
    ram.put(0x8010, &64_u32.to_le_bytes());
    ram.put(0x8014, &32_u32.to_le_bytes());
    for (at, time_s, text) in [(64, 1_u64, "first"), (0, 2, "second")] {
        ram.put_u64(0x9000 + at, time_s * 1_000_000_000);
        ram.put(0x9008 + at, &32_u16.to_le_bytes());
        ram.put(0x900a + at, &u16::try_from(text.len()).unwrap().to_le_bytes());
        ram.put(0x9010 + at, text.as_bytes());
    }
    let read = |ram: &Ram| {
        let space = KernelSpace::new(ram.clone(), info.as_bytes()).unwrap();
        KernelLog::read(&space, info.as_bytes()).unwrap()
    };
    assert_eq!(read(&ram).to_text(), "[    1.000000] first\n[    2.000000] second\n");
    // A record that leads nowhere ends the log.
    ram.put(0x9008, &3_u16.to_le_bytes());
    let log = read(&ram);
    assert_eq!((log.records.len(), log.unreadable_records), (1, 1));
}

#[test]
fn sizes_that_no_kernel_has_are_refused() {
    let mut ram = ring(0, 0, START_KERNEL_MAP);
    ram.put(PRB + 64, &40_u32.to_le_bytes());
    assert!(matches!(read(ram), Err(LogError::BadValue { part: "text ring", .. })));
    let info = vmcoreinfo().replace("SIZE(prb_desc)=24", "SIZE(prb_desc)=999999");
    let space = KernelSpace::new(ring(0, 0, START_KERNEL_MAP), info.as_bytes()).unwrap();
    let refused = KernelLog::read(&space, info.as_bytes()).unwrap_err();
    assert_eq!(refused.to_string(), "VMCOREINFO has no usable SIZE(prb_desc)");
}

proptest! {
    /// Wherever a ring's bytes are changed, reading it ends without harm.
    #[test]
    fn torn_rings_are_survived(
        changes in proptest::collection::vec((0x8000_u64..0xb100, any::<u64>()), 1..40),
        ids in (0_u64..20, 0_u64..20),
    ) {
        let mut ram = ring(ids.0, ids.1, START_KERNEL_MAP);
        for id in 0..8 {
            record(&mut ram, id, 2, (id * 24, id * 24 + 24, id * 24), b"text");
        }
        for (at, value) in changes {
            ram.put_u64(at, value);
        }
        if let Ok(log) = read(ram) {
            prop_assert!(log.records.len() as u64 + log.unreadable_records <= 1 << 20);
        }
    }
}
