//! The file that a guest makes of its own memory: one page of ELF headers, then all of its RAM, densely, as a full dump of
//! FreeBSD is (sys/kern/kern_dump.c, `dumpsys_generic`).
use crate::boot::{RANGES_MAX, RamRange};

/// Bytes before the memory: one dump block.
pub const HEADERS_LEN: usize = 4096;

// System V ABI, "ELF Header" and "Program Header", ELFCLASS64.
const EHDR_LEN: usize = 64;
const PHDR_LEN: usize = 56;
const IDENT: [u8; 16] = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
/// Readable, writable, executable.
const PF_RWX: u32 = 7;

const _: () = assert!(EHDR_LEN + RANGES_MAX * PHDR_LEN <= HEADERS_LEN);

/// Where everything stands in the file.
#[derive(Clone, Copy, Debug)]
pub struct CoreLayout {
    ranges: [RamRange; RANGES_MAX],
    used: usize,
}

impl CoreLayout {
    /// The layout of a core of `ranges`; of more than [`RANGES_MAX`], the first ones.
    #[must_use]
    pub fn new(ranges: &[RamRange]) -> Self {
        let mut own = [RamRange::default(); RANGES_MAX];
        let used = ranges.len().min(RANGES_MAX);
        for (slot, range) in own.iter_mut().zip(ranges) {
            *slot = *range;
        }
        Self { ranges: own, used }
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        let memory = self
            .segments()
            .fold(0, |sum: u64, (_, range)| sum.saturating_add(range.len_bytes));
        memory.saturating_add(HEADERS_LEN as u64)
    }

    /// The guest-physical address of the byte at `file_offset`, and how many bytes from there on lie together; nothing for
    /// the headers and behind the end.
    #[must_use]
    pub fn memory_at(&self, file_offset: u64) -> Option<(u64, u64)> {
        self.segments().find_map(|(start, range)| {
            let at = file_offset.checked_sub(start)?;
            let rest = range.len_bytes.checked_sub(at).filter(|rest| *rest > 0)?;
            Some((range.gpa.wrapping_add(at), rest))
        })
    }

    /// The file's first bytes.
    #[must_use]
    pub fn headers(&self) -> [u8; HEADERS_LEN] {
        let mut out = [0; HEADERS_LEN];
        let mut writer = Fields { out: &mut out, at: 0 };
        writer.bytes(&IDENT);
        writer.bytes(&ET_CORE.to_le_bytes());
        writer.bytes(&EM_X86_64.to_le_bytes());
        writer.bytes(&1_u32.to_le_bytes());
        // No entry point; program headers follow at once, no section headers, no flags.
        for word in [0, EHDR_LEN as u64, 0] {
            writer.bytes(&word.to_le_bytes());
        }
        writer.bytes(&0_u32.to_le_bytes());
        let phdrs = u16::try_from(self.used).unwrap_or(0);
        for half in [EHDR_LEN_U16, PHDR_LEN_U16, phdrs, 0, 0, 0] {
            writer.bytes(&half.to_le_bytes());
        }
        for (file_offset, range) in self.segments() {
            writer.bytes(&PT_LOAD.to_le_bytes());
            writer.bytes(&PF_RWX.to_le_bytes());
            let (gpa, len) = (range.gpa, range.len_bytes);
            // Memory is mapped one to one: virtual and physical addresses are the same.
            for word in [file_offset, gpa, gpa, len, len, HEADERS_LEN as u64] {
                writer.bytes(&word.to_le_bytes());
            }
        }
        out
    }

    /// Every range with its place in the file.
    fn segments(&self) -> impl Iterator<Item = (u64, RamRange)> {
        let ranges = self.ranges.iter().take(self.used).copied();
        ranges.scan(HEADERS_LEN as u64, |next, range| {
            let start = *next;
            *next = next.saturating_add(range.len_bytes);
            Some((start, range))
        })
    }
}

#[allow(clippy::cast_possible_truncation, reason = "64 and 56 fit; From is not const")]
const EHDR_LEN_U16: u16 = EHDR_LEN as u16;
#[allow(clippy::cast_possible_truncation, reason = "64 and 56 fit; From is not const")]
const PHDR_LEN_U16: u16 = PHDR_LEN as u16;

/// Writes one field after the other; what does not fit is left out.
pub(super) struct Fields<'a> {
    pub(super) out: &'a mut [u8],
    pub(super) at: usize,
}

impl Fields<'_> {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        if let Some(room) = self.out.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
        }
        self.at = end;
    }

    /// A field of `len` bytes with as much of `text` as leaves room for a NUL.
    pub(super) fn text(&mut self, text: &str, len: usize) {
        let start = self.at;
        self.bytes(
            text.get(..text.floor_char_boundary(len.saturating_sub(1)))
                .unwrap_or_default()
                .as_bytes(),
        );
        self.at = start.saturating_add(len);
    }
}
