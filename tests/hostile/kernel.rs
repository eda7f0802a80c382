//! The memory of a Linux guest, made by hand: page tables, VMCOREINFO, log, page structures, and a processor. Small, and with
//! everything that is read of a real one.

use std::fmt::Write as _;
use std::ops::Range;

use vmcore::linux::space::START_KERNEL_MAP;
use vmcore::{CpuState, MemoryRange};

/// What crashed, by the log.
pub(crate) const SIGNATURE: &str = "null-pointer in ferry_land";

const LOG: [&str; 9] = [
    BANNER,
    "BUG: kernel NULL pointer dereference, address: 0000000000000018",
    "Oops: 0000 [#1] PREEMPT SMP NOPTI",
    "CPU: 0 PID: 91 Comm: kworker/u8:2 Not tainted 6.1.0-18-amd64 #1  Debian 6.1.76-1",
    "RIP: 0010:ferry_land+0x2a/0x410 [ferry]",
    "Call Trace:",
    " process_one_work+0x1c7/0x380",
    "---[ end trace 0000000000000000 ]---",
    "Kernel panic - not syncing: Fatal exception",
];
const BANNER: &str = "Linux version 6.1.0-18-amd64 (debian) (gcc-12) #1 SMP Debian 6.1.76-1";

/// RAM, with a gap.
pub(crate) const MEMORY: [MemoryRange; 2] = [
    MemoryRange {
        gpa: 0,
        len_bytes: 7 << 20,
    },
    MemoryRange {
        gpa: 16 << 20,
        len_bytes: 64 << 10,
    },
];

/// Tables of pages: top, two for the image, three for the direct map.
const TOP_TABLE: u64 = 0x1000;
const IMAGE_TABLES: [u64; 2] = [0x2000, 0x3000];
const DIRECT_TABLES: [u64; 3] = [0x4000, 0x5000, 0x6000];
/// The kernel's image, a large page.
const IMAGE: u64 = 2 << 20;
const IMAGE_VA: u64 = START_KERNEL_MAP + (16 << 20);
const PHYS_BASE: u64 = IMAGE.wrapping_sub(IMAGE_VA - START_KERNEL_MAP);
/// Where all memory is mapped.
const DIRECT_VA: u64 = 0xffff_8880_0000_0000;
const IDT: u64 = IMAGE + 0x1_0000;
const BANNER_AT: u64 = IMAGE + 0x1_1000;
const UTS: u64 = IMAGE + 0x1_2000;
const PRB_POINTER: u64 = IMAGE + 0x1_3000;
const PRB: u64 = IMAGE + 0x1_3100;
const SECTION_ROOTS: u64 = IMAGE + 0x1_4000;
const SECTIONS: u64 = IMAGE + 0x1_5000;
/// The arrays of the log, in the direct map.
const DESCS: u64 = 0x40_0000;
const INFOS: u64 = 0x40_1000;
const TEXT: u64 = 0x40_3000;
const NOTE: u64 = 0x50_0000;
const STRUCTURES: u64 = 0x60_0000;
const STRUCTURE_LEN: u64 = 64;
const COUNT_BITS: u32 = 5;
const TEXT_BITS: u32 = 12;

/// Memory, what its notes say, and where its structures are.
pub(crate) struct Kernel {
    /// By physical address.
    pub(crate) memory: Vec<u8>,
    /// The text.
    pub(crate) vmcoreinfo: String,
    /// The one processor.
    pub(crate) cpu: CpuState,
    /// Physical addresses of what a reader follows.
    pub(crate) places: Vec<(&'static str, Range<u64>)>,
}

impl Kernel {
    pub(crate) fn new() -> Self {
        let end = MEMORY[1].gpa + MEMORY[1].len_bytes;
        let mut cpu = CpuState {
            cr3: TOP_TABLE,
            rip: image_va(IMAGE + 0x2000),
            ..CpuState::default()
        };
        cpu.idt.base = image_va(IDT);
        let mut kernel = Self {
            memory: vec![0; usize::try_from(end).expect("it is small")],
            vmcoreinfo: vmcoreinfo(),
            cpu,
            places: Vec::new(),
        };
        kernel.page_tables();
        kernel.image();
        kernel.log();
        kernel.structures();
        kernel.note();
        kernel
    }

    fn put(&mut self, gpa: u64, bytes: &[u8]) {
        let at = usize::try_from(gpa).expect("it is small");
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_u64(&mut self, gpa: u64, value: u64) {
        self.put(gpa, &value.to_le_bytes());
    }

    fn page_tables(&mut self) {
        let slot = |va: u64, shift: u32| (va >> shift & 0x1ff) * 8;
        let [upper, lower] = IMAGE_TABLES;
        self.put_u64(TOP_TABLE + slot(IMAGE_VA, 39), upper | 3);
        self.put_u64(upper + slot(IMAGE_VA, 30), lower | 3);
        self.put_u64(lower + slot(IMAGE_VA, 21), IMAGE | 0x83);
        let [upper, middle, last] = DIRECT_TABLES;
        self.put_u64(TOP_TABLE + slot(DIRECT_VA, 39), upper | 3);
        self.put_u64(upper, middle | 3);
        for large in 0..8 {
            self.put_u64(middle + large * 8, large << 21 | 0x83);
        }
        // The log's part in small pages.
        self.put_u64(middle + 2 * 8, last | 3);
        for page in 0..512 {
            self.put_u64(last + page * 8, ((4 << 20) + (page << 12)) | 3);
        }
        self.places.push(("top page table", TOP_TABLE..TOP_TABLE + 4096));
        self.places
            .push(("page tables", IMAGE_TABLES[0]..DIRECT_TABLES[2] + 4096));
    }

    fn image(&mut self) {
        let handler = image_va(IMAGE + 0x800).to_le_bytes();
        self.put(IDT, &handler[..2]);
        self.put(IDT + 6, &handler[2..]);
        self.put(BANNER_AT, format!("{BANNER}\n\0").as_bytes());
        let names = [
            "Linux",
            "web-3",
            "6.1.0-18-amd64",
            "#1 SMP Debian 6.1.76-1",
            "x86_64",
            "(none)",
        ];
        for (name, at) in names.into_iter().zip((UTS..).step_by(65)) {
            self.put(at, name.as_bytes());
        }
        self.places.push(("interrupt table", IDT..IDT + 16));
        self.places.push(("names", UTS..UTS + 6 * 65));
    }

    fn log(&mut self) {
        self.put_u64(PRB_POINTER, image_va(PRB));
        self.put(PRB, &COUNT_BITS.to_le_bytes());
        let newest = LOG.len() as u64 - 1;
        let words = [
            (8, direct_va(DESCS)),
            (16, direct_va(INFOS)),
            (24, newest),
            (32, 0),
            (56, direct_va(TEXT)),
        ];
        for (at, value) in words {
            self.put_u64(PRB + at, value);
        }
        self.put(PRB + 48, &TEXT_BITS.to_le_bytes());
        let mut begin = 0;
        for (id, line) in (0_u64..).zip(LOG) {
            let len = line.len() as u64;
            let next = (begin + 8 + len).next_multiple_of(8);
            self.put_u64(DESCS + id * 24, 2 << 62 | id);
            self.put_u64(DESCS + id * 24 + 8, begin);
            self.put_u64(DESCS + id * 24 + 16, next);
            self.put_u64(INFOS + id * 88 + 8, (id + 1) * 1_000_000_000);
            self.put(
                INFOS + id * 88 + 16,
                &u16::try_from(len).expect("it is short").to_le_bytes(),
            );
            self.put(TEXT + begin + 8, line.as_bytes());
            begin = next;
        }
        self.places.push(("head of the log", PRB..PRB + 72));
        self.places
            .push(("descriptors of the log", DESCS..DESCS + 24 * LOG.len() as u64));
        self.places
            .push(("records of the log", INFOS..INFOS + 88 * LOG.len() as u64));
        self.places.push(("text of the log", TEXT..TEXT + begin));
    }

    /// Of each page a structure: some free, some cache, some of users.
    fn structures(&mut self) {
        self.put_u64(SECTION_ROOTS, image_va(SECTIONS));
        self.put_u64(SECTIONS, direct_va(STRUCTURES) | 3);
        let frames = self.memory.len() as u64 / vmcore::PAGE_LEN;
        for frame in 0..frames {
            let at = STRUCTURES + frame * STRUCTURE_LEN;
            let (flags, mapping, map_count) = match frame % 64 {
                0 => (0, 0, -129),
                32..40 => (1 << 4, 0x1000, 0),
                40..48 => (1 << 4, 0x1001, 0),
                _ => (0, 0, -1_i32),
            };
            self.put_u64(at, flags);
            self.put_u64(at + 24, mapping);
            self.put_u64(at + 40, u64::from(frame % 64 == 0) * 3);
            self.put(at + 48, &map_count.to_le_bytes());
        }
        self.places.push(("sections", SECTION_ROOTS..SECTION_ROOTS + 8));
        self.places.push(("section", SECTIONS..SECTIONS + 16));
        self.places
            .push(("page structures", STRUCTURES..STRUCTURES + frames * STRUCTURE_LEN));
    }

    /// VMCOREINFO as the kernel itself keeps it, for cores whose notes lack it.
    fn note(&mut self) {
        let text = self.vmcoreinfo.clone();
        let len = u32::try_from(text.len()).expect("it is short");
        for (word, at) in [11, len, 0].into_iter().zip((NOTE..).step_by(4)) {
            self.put(at, &u32::to_le_bytes(word));
        }
        self.put(NOTE + 12, b"VMCOREINFO\0\0");
        self.put(NOTE + 24, text.as_bytes());
        self.places
            .push(("VMCOREINFO in memory", NOTE..NOTE + 24 + u64::from(len)));
    }
}

fn image_va(gpa: u64) -> u64 {
    IMAGE_VA + (gpa - IMAGE)
}

fn direct_va(gpa: u64) -> u64 {
    DIRECT_VA + gpa
}

/// As Linux 6.1 describes itself.
fn vmcoreinfo() -> String {
    let mut text = format!(
        "OSRELEASE=6.1.0-18-amd64\nNUMBER(phys_base)={}\n",
        PHYS_BASE.cast_signed()
    );
    // The top table is below the image: its address is reckoned like that of a symbol, and wraps.
    let top_va = IMAGE_VA.wrapping_add(TOP_TABLE.wrapping_sub(IMAGE));
    for (name, va) in [
        ("init_top_pgt", top_va),
        ("_stext", IMAGE_VA),
        ("init_uts_ns", image_va(UTS)),
        ("prb", image_va(PRB_POINTER)),
        ("mem_section", image_va(SECTION_ROOTS)),
    ] {
        let _ = writeln!(text, "SYMBOL({name})={va:x}");
    }
    text + DESCRIBED
}

pub(crate) const DESCRIBED: &str = "\
OFFSET(uts_namespace.name)=0
OFFSET(printk_ringbuffer.desc_ring)=0
OFFSET(printk_ringbuffer.text_data_ring)=48
OFFSET(prb_desc_ring.count_bits)=0
OFFSET(prb_desc_ring.descs)=8
OFFSET(prb_desc_ring.infos)=16
OFFSET(prb_desc_ring.head_id)=24
OFFSET(prb_desc_ring.tail_id)=32
OFFSET(prb_data_ring.size_bits)=0
OFFSET(prb_data_ring.data)=8
SIZE(prb_desc)=24
OFFSET(prb_desc.state_var)=0
OFFSET(prb_desc.text_blk_lpos)=8
OFFSET(prb_data_blk_lpos.begin)=0
OFFSET(prb_data_blk_lpos.next)=8
SIZE(printk_info)=88
OFFSET(printk_info.ts_nsec)=8
OFFSET(printk_info.text_len)=16
OFFSET(atomic_long_t.counter)=0
LENGTH(mem_section)=16
SIZE(mem_section)=16
OFFSET(mem_section.section_mem_map)=0
NUMBER(SECTION_SIZE_BITS)=27
SIZE(page)=64
OFFSET(page.flags)=0
OFFSET(page._refcount)=52
OFFSET(page.mapping)=24
OFFSET(page._mapcount)=48
OFFSET(page.private)=40
OFFSET(page.compound_dtor)=16
OFFSET(page.compound_order)=17
OFFSET(page.compound_head)=8
LENGTH(zone.free_area)=11
NUMBER(PG_lru)=4
NUMBER(PG_private)=13
NUMBER(PG_swapcache)=10
NUMBER(PG_swapbacked)=19
NUMBER(PG_slab)=9
NUMBER(PG_hwpoison)=22
NUMBER(PG_head_mask)=65536
NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129
NUMBER(HUGETLB_PAGE_DTOR)=2
NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-257
";
