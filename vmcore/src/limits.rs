//! Every bound of this crate, with the reason for its number.

/// Length of a page, the unit of dumping, in bytes. x86-64 base page; also netdump's data unit.
pub const PAGE_LEN: u64 = 4096;

/// [`PAGE_LEN`] as the type that slices use.
pub const PAGE_LEN_USIZE: usize = 4096;

/// Room for ELF header, program headers and notes at the start of the file, in bytes.
///
/// Fixed, so that the file offset of a page depends on the RAM ranges alone and memory can be sent before the notes are
/// known. 1 MiB holds 1024 vCPUs with their notes and was seen to be accepted by crash, drgn, makedumpfile and gdb.
pub const HEADER_ROOM_LEN: u64 = 1 << 20;

/// The extent of the file that one digest of the trailer covers, in bytes.
///
/// Small enough to name what is damaged and to fetch it again, large enough that the table stays at 96 KiB per GiB.
pub const CHUNK_LEN: u64 = 1 << 20;

/// Pages in a whole chunk; its page map is a bitmap of so many bits.
pub const CHUNK_PAGES: usize = 256;

/// Longest vmcore, in bytes. ext4 with 4 KiB blocks ends a file there, so nothing longer could be stored as one file.
pub const FILE_LEN_MAX: u64 = 16 << 40;

/// Highest guest physical address plus one. x86-64 defines at most 52 physical address bits (AMD64 APM vol. 2, 5.1).
pub const GPA_END_MAX: u64 = 1 << 52;

/// Most program headers a plain ELF header can count; 0xffff (PN_XNUM) means "see section 0" (elf(5)).
pub const PROGRAM_HEADERS_MAX: usize = 65_534;

/// Most program headers that are read from someone else's core.
///
/// QEMU's paging dump of a 512 MiB guest had 65,710; four times that is 14 MiB of table, still harmless.
pub const READ_PROGRAM_HEADERS_MAX: usize = 262_144;

/// Most bytes that are read from the beginning of someone else's core for its head and notes: the longest table, and
/// registers of the most vCPUs with room to spare.
pub const READ_START_LEN_MAX: u64 = 64 << 20;

/// Longest VMCOREINFO text that is kept, in bytes. Linux caps it at one page (VMCOREINFO_BYTES), 64 KiB at most.
pub const VMCOREINFO_LEN_MAX: usize = 65_536;

/// Longest JSON text of a COREFERRY note, in bytes. Leaves room for 1024 vCPUs in the header room.
pub const COREFERRY_LEN_MAX: usize = 131_072;

/// Longest name of an ELF note that is read, in bytes. The longest known ("VMCOREINFO") has 11; a name is never a payload.
pub const NOTE_NAME_LEN_MAX: usize = 256;

/// Most vCPUs whose registers are taken from a foreign core. Above any KVM limit (KVM_MAX_VCPUS is 4096 at most).
pub const READ_CPUS_MAX: usize = 8192;

/// Most bytes of each part of a guest's kernel log. CONFIG_LOG_BUF_SHIFT ends at 25 (32 MiB), log_buf_len= is rarely more.
pub const KERNEL_LOG_BYTES_MAX: usize = 64 << 20;

/// Longest text that is made of a kernel log, in bytes: twice the largest ring that Linux can be built with, since each line gets a
/// time. Of a longer one the end is what matters.
pub const KERNEL_LOG_TEXT_LEN_MAX: usize = 64 << 20;

/// Most records of a guest's kernel log. A ring of 32 MiB has 2^20 descriptors (32 bytes of text each on average,
/// PRB_AVGBITS in kernel/printk/printk.c).
pub const KERNEL_LOG_RECORDS_MAX: usize = 1 << 20;

/// Most memory that is read in search of something. A core of more is rare, what is looked for lies low, and at a few GiB a
/// second it ends within seconds.
pub const SCAN_LEN_MAX: u64 = 32 << 30;

/// Most copies of VMCOREINFO that are looked at. A kernel has one; a guest that wants to waste time has any number.
pub const VMCOREINFO_COPIES_MAX: u32 = 4096;

/// Most of a kernel's image that is searched: text and data of distribution kernels end within 64 MiB.
pub const KERNEL_IMAGE_LEN_MAX: u64 = 256 << 20;

/// Most bytes that are kept of a line of a log. printk() itself cuts at 1 KiB (PRINTKRB_RECORD_MAX).
pub const CRASH_LINE_LEN_MAX: usize = 1024;

/// Most frames that are kept of a call trace: deeper ones repeat.
pub const CRASH_TRACE_FRAMES_MAX: usize = 64;

/// Most blocks of both bitmaps of a kdump file that are written or read: 128 MiB each, which is memory up to 4 TiB.
pub const KDUMP_BITMAP_BLOCKS_MAX: u32 = 65_536;

/// Most records of a flattened file that are read, 40 bytes each in memory. Writers flush buffers of 16 KiB (QEMU) or more, so
/// that these are 64 GiB of compressed pages.
pub const FLATTENED_RECORDS_MAX: usize = 1 << 22;

/// Most ranges of memory that a bitmap of pages is told as, 16 bytes each: more pages lie alone only where somebody wants memory to be
/// wasted, and then the last range has what is left, as if nothing were missing in it.
pub const BITMAP_RANGES_MAX: usize = 1 << 22;

/// Longest page that is read out of a kdump file, compressed. What does not get smaller is stored as it is, and no codec makes a
/// page longer than by a few bytes; twice the page is room for writers that store it nevertheless.
pub const KDUMP_STORED_PAGE_LEN_MAX: usize = 8192;

/// Longest bitmap of a FreeBSD minidump that is read: memory up to 4 TiB, or 4 TiB of it.
pub const MINIDUMP_BITMAP_LEN_MAX: u64 = 128 << 20;

/// Most ranges of RAM that a FreeBSD minidump may name (`PHYS_AVAIL_ENTRIES` is 64 at most).
pub const MINIDUMP_RANGES_MAX: usize = 1024;

/// Longest trailer that is read to learn which pages are excluded: enough for a file of 2 TiB.
pub const TRAILER_READ_LEN_MAX: u64 = 256 << 20;

/// Most runs of excluded pages that are kept of a trailer, 16 bytes each.
pub const EXCLUDED_RUNS_MAX: usize = 1 << 22;

/// Most runs of memory that we leave out of a core of ours. Each makes one more segment; makedumpfile and gdb look through all
/// segments for every page.
pub const EXCLUDED_RUNS_WRITTEN_MAX: usize = 4096;

const _: () = assert!(CHUNK_PAGES as u64 * PAGE_LEN == CHUNK_LEN);
const _: () = assert!(PAGE_LEN_USIZE as u64 == PAGE_LEN);
const _: () = assert!(HEADER_ROOM_LEN.is_multiple_of(CHUNK_LEN));
