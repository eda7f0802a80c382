//! Small files that claim as much as can be claimed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use vmcore::PAGE_LEN;
use vmcore::kdump::KdumpHeader;
use vmcore::linux::space::START_KERNEL_MAP;
use vmcore::notes::{qemu, vmcoreinfo};

use crate::elf;
use crate::kernel::{DESCRIBED, Kernel};

/// A core that claims something.
pub(crate) struct Claim {
    pub(crate) name: &'static str,
    /// What it is to the store.
    pub(crate) format: &'static str,
    /// Offset and bytes of what is written; the rest is a hole.
    parts: Vec<(u64, Vec<u8>)>,
    pub(crate) len: u64,
}

impl Claim {
    fn new(name: &'static str, format: &'static str, parts: Vec<(u64, Vec<u8>)>, len: u64) -> Self {
        Self {
            name,
            format,
            parts,
            len,
        }
    }

    /// Memory and notes as an ELF core.
    fn elf(name: &'static str, segments: &[elf::Segment], notes: &[u8], memory: Vec<(u64, Vec<u8>)>) -> Self {
        let head = elf::head(segments, notes);
        let at = head.len() as u64;
        let len = at + segments.iter().map(|segment| segment.1).sum::<u64>();
        let memory = memory.into_iter().map(|(offset, bytes)| (at + offset, bytes));
        Self::new(name, "elf", [(0, head)].into_iter().chain(memory).collect(), len)
    }

    pub(crate) fn write(&self, file: &File) -> io::Result<()> {
        file.set_len(self.len)?;
        self.parts
            .iter()
            .try_for_each(|(at, bytes)| file.write_all_at(bytes, *at))
    }
}

/// What makes them, one after the other; those that take long only if `is_all`.
pub(crate) fn all(is_all: bool) -> Vec<fn() -> Claim> {
    let mut all: Vec<fn() -> Claim> = vec![
        || Claim::elf("memory at 2 PiB", &[(1 << 51, 4096, 4096)], &[], Vec::new()),
        || Claim::elf("4 TiB of zeros", &[(0, 0, 4 << 40)], &[], Vec::new()),
        || Claim::elf("1 GiB of zeros", &[(0, 0, 1 << 30)], &[], Vec::new()),
        shared_text,
        || longest_log("log of line feeds", b'\n'),
        || trailer("trailer of 64 MiB", 64 << 20),
    ];
    if is_all {
        all.extend([
            || longest_log("log of controls", 1),
            || longest_log("log of no UTF-8", 0xff),
            || trailer("trailer of 256 MiB", 256 << 20),
            many_segments,
            long_notes,
            bitmap_of_every_second_page,
            minidump_of_every_second_page,
            many_processors,
        ] as [fn() -> Claim; 8]);
    }
    all
}

/// As many segments as the header's own count allows, all of them apart.
fn many_segments() -> Claim {
    let segments: Vec<_> = (0..65_000).map(|index| (index << 25, PAGE_LEN, PAGE_LEN)).collect();
    Claim::elf("65,000 segments", &segments, &[], Vec::new())
}

/// As many bytes of notes as are read, all of them registers.
fn long_notes() -> Claim {
    let registers = elf::note(qemu::NAME, qemu::TYPE, &qemu::encode(&Kernel::new().cpu));
    let notes = registers.repeat((32 << 20) / registers.len());
    Claim::elf("32 MiB of registers", &[(0, PAGE_LEN, PAGE_LEN)], &notes, Vec::new())
}

/// What VMCOREINFO says of a kernel that is mapped one to one, but for one number.
fn described(top_table: u64, prb: u64, other: &[(&str, u32)]) -> Vec<u8> {
    let mut text = format!(
        "OSRELEASE=6.1.0\nNUMBER(phys_base)=0\nSYMBOL(init_top_pgt)={:x}\nSYMBOL(prb)={:x}\n{DESCRIBED}",
        START_KERNEL_MAP + top_table,
        START_KERNEL_MAP + prb
    );
    for (key, value) in other {
        let at = text.find(key).expect("it is described") + key.len() + 1;
        let end = at + text[at..].find('\n').expect("a line");
        text.replace_range(at..end, &value.to_string());
    }
    elf::note(vmcoreinfo::NAME, vmcoreinfo::TYPE, text.as_bytes())
}

/// The pointer to a ring, and its head: numbers of descriptors and of text as powers of two, and where the arrays are.
fn ring_head(count_bits: u32, text_bits: u32, arrays: [u64; 3]) -> Vec<u8> {
    let [descs, infos, text] = arrays;
    let mut head = (START_KERNEL_MAP + 8).to_le_bytes().to_vec();
    for word in [
        u64::from(count_bits),
        descs,
        infos,
        (1 << count_bits) - 1,
        0,
        0,
        u64::from(text_bits),
        text,
    ] {
        head.extend(word.to_le_bytes());
    }
    head
}

/// A log of 2^17 records, half of which share the same 64 KiB of text.
fn shared_text() -> Claim {
    const COUNT_BITS: u32 = 17;
    let (descs_at, infos_at, text_at) = (1 << 20, 8 << 20, 16 << 20);
    let notes = described(
        0x1000,
        0,
        &[
            ("SIZE(prb_desc)", 16),
            ("OFFSET(prb_desc.text_blk_lpos)", 0),
            ("SIZE(printk_info)", 24),
        ],
    );
    let image = |at: u64| START_KERNEL_MAP + at;
    let head = ring_head(COUNT_BITS, 20, [image(descs_at), image(infos_at), image(text_at)]);
    // A descriptor's state is where its text begins, too; all end where the ring does.
    let descs = (0..1_u64 << COUNT_BITS).flat_map(|id| [2 << 62 | id, 1 << 20].map(u64::to_le_bytes));
    let infos = [0, 0, 0xffff_u64]
        .map(u64::to_le_bytes)
        .concat()
        .repeat(1 << COUNT_BITS);
    let memory = vec![
        (0, head),
        (descs_at, descs.flatten().collect()),
        (infos_at, infos),
        (text_at, vec![b'x'; 1 << 20]),
    ];
    Claim::elf("log that shares its text", &[(0, 17 << 20, 17 << 20)], &notes, memory)
}

/// A log of 64 MiB of one byte, which is one page that is mapped again and again.
fn longest_log(name: &'static str, byte: u8) -> Claim {
    const RECORDS_BITS: u32 = 10;
    const DIRECT_VA: u64 = 0xffff_8880_0000_0000;
    let notes = described(0x1000, 0, &[]);
    let (descs_at, infos_at, text_at) = (0x10_0000, 0x20_0000, 0x5000);
    let head = ring_head(
        RECORDS_BITS,
        26,
        [START_KERNEL_MAP + descs_at, START_KERNEL_MAP + infos_at, DIRECT_VA],
    );
    let each = |value: u64| value.to_le_bytes().repeat(512);
    let descs = (0..1_u64 << RECORDS_BITS)
        .flat_map(|id| [2 << 62 | id, id << 16, (id + 1) << 16].map(u64::to_le_bytes))
        .flatten();
    let mut info = [0; 88];
    info[16..18].copy_from_slice(&0xfff0_u16.to_le_bytes());
    let memory = vec![
        (0, head),
        (0x1000, each(0x2003)),
        (0x2000, each(0x3003)),
        (0x3000, each(0x4003)),
        (0x4000, each(text_at | 3)),
        (text_at, vec![byte; 4096]),
        (descs_at, descs.collect()),
        (infos_at, info.repeat(1 << RECORDS_BITS)),
    ];
    Claim::elf(name, &[(0, 4 << 20, 4 << 20)], &notes, memory)
}

/// A kdump file whose bitmaps have every second page of 40 GiB: more ranges than are told.
fn bitmap_of_every_second_page() -> Claim {
    const FRAMES: u64 = 10 << 20;
    let header = KdumpHeader {
        version: 6,
        block_len: 4096,
        sub_header_blocks: 1,
        bitmap_blocks: 2 * 320,
        frames: FRAMES,
        ..KdumpHeader::default()
    };
    let bitmaps = vec![0x55; 2 * 320 * 4096];
    let parts = vec![(0, header.encode()), (8192, bitmaps)];
    Claim::new("bitmap of every second page", "kdump", parts, 64 << 20)
}

/// The same as a minidump.
fn minidump_of_every_second_page() -> Claim {
    const BITMAP_LEN: u32 = 5 << 18;
    let mut header = b"minidump FreeBSD/amd64\0\0".to_vec();
    for value in [2, 4096, BITMAP_LEN, 4096] {
        header.extend(value.to_le_bytes());
    }
    header.resize(4096, 0);
    let bitmap = vec![0x55; usize::try_from(BITMAP_LEN).expect("it is small")];
    let parts = vec![(0, header), (8192, bitmap)];
    Claim::new("minidump of every second page", "minidump", parts, 64 << 20)
}

/// A footer that describes a trailer with a body of nearly this length, of a file that has none (docs/trailer.md).
fn trailer(name: &'static str, body_len_max: u64) -> Claim {
    let chunks = (body_len_max - 64) / 96;
    let covered = chunks << 20;
    let body_len = 64 + chunks * 96;
    let trailer_len = (body_len + 128).next_multiple_of(PAGE_LEN);
    let mut footer = b"CFERRYFT".to_vec();
    for value in [1_u32, 128] {
        footer.extend(value.to_le_bytes());
    }
    for value in [covered + trailer_len, covered, trailer_len, body_len] {
        footer.extend(value.to_le_bytes());
    }
    footer.extend([0; 32]);
    footer.resize(96, 0);
    let digest = blake3::hash(&footer);
    footer.extend(digest.as_bytes());
    let head = elf::head(&[(0, 4 << 20, 4 << 20)], &[]);
    let len = covered + trailer_len;
    // It says that pages were left out, else it would not be read.
    let parts = vec![(0, head), (covered + 56, vec![1]), (len - 128, footer)];
    Claim::new(name, "elf", parts, len)
}

/// A kernel without a name, and 8192 processors that may all know it.
fn many_processors() -> Claim {
    let kernel = Kernel::new();
    let registers = elf::note(qemu::NAME, qemu::TYPE, &qemu::encode(&kernel.cpu));
    let mut memory = kernel.memory[..7 << 20].to_vec();
    // The rest of the image's table, so that it seems to go on to its longest.
    let pages = (1..128_u64).flat_map(|large| (((2 << 20) + (large << 21)) | 0x83).to_le_bytes());
    let pages: Vec<u8> = pages.collect();
    let first = 0x3000 + 8 * ((START_KERNEL_MAP + (16 << 20)) >> 21 & 0x1ff) + 8;
    let first = usize::try_from(first).expect("it is small");
    memory[first..first + pages.len()].copy_from_slice(&pages);
    for name in [&b"Linux version"[..], b"VMCOREINFO"] {
        while let Some(at) = memory.windows(name.len()).position(|window| window == name) {
            memory[at] = b'-';
        }
    }
    let segments = [(0, 1 << 30, 1 << 30)];
    // Not zero, so that it is read.
    let rest = vec![b'-'; (260 << 20) - memory.len()];
    let at = memory.len() as u64;
    Claim::elf(
        "8192 processors",
        &segments,
        &registers.repeat(8192),
        vec![(0, memory), (at, rest)],
    )
}
