//! Header and sub-header (makedumpfile, diskdump_mod.h: `struct disk_dump_header`, `struct kdump_sub_header`).

use crate::bytes::{Writer, slice, u32_le, u64_le, until_nul};

/// First bytes of the file.
pub(crate) const SIGNATURE: [u8; 8] = *b"KDUMP   ";
/// The version that has 64-bit page frame numbers.
const VERSION: u32 = 6;
/// Length of a block; bitmaps, sub-header and pages are counted in it.
pub(crate) const BLOCK_LEN: u64 = 4096;
/// Where the sub-header begins.
pub(crate) const SUB_HEADER_AT: u64 = BLOCK_LEN;
/// Length of the sub-header's fields; the notes follow.
pub(crate) const SUB_HEADER_LEN: u64 = 104;
/// Length of one field of `struct new_utsname` (linux/utsname.h, `__NEW_UTS_LEN` + 1).
const UTS_LEN: usize = 65;
/// Status: not every page that the second bitmap promises is there.
pub(crate) const STATUS_INCOMPLETE: u32 = 8;

/// What `uname` would have said. Readers find the architecture by it: without `sysname`, `release`, `version` and `machine`
/// libkdumpfile, and so drgn, refuses the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Utsname {
    /// `Linux`.
    pub sysname: String,
    /// Name of the host.
    pub nodename: String,
    /// Release of the kernel.
    pub release: String,
    /// Its build.
    pub version: String,
    /// `x86_64`.
    pub machine: String,
    /// Name of the NIS domain.
    pub domainname: String,
}

/// What header and sub-header say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KdumpHeader {
    /// `header_version`.
    pub version: u32,
    /// Whose memory this is.
    pub utsname: Utsname,
    /// When the dump was made, in seconds since 1970.
    pub timestamp_s: u64,
    /// Codecs that occur, and [`KdumpHeader::is_incomplete`].
    pub status: u32,
    /// Length of a block, which is that of a page.
    pub block_len: u32,
    /// Blocks between the header and the bitmaps.
    pub sub_header_blocks: u32,
    /// Blocks of both bitmaps together.
    pub bitmap_blocks: u32,
    /// Number of processors; at least one.
    pub cpus: u32,
    /// Physical address of the kernel's image minus its place in the address space.
    pub phys_base: u64,
    /// makedumpfile's level of filtering, 0 to 31.
    pub dump_level: u32,
    /// Whether this is one file of several.
    pub is_split: bool,
    /// Where the VMCOREINFO text is.
    pub vmcoreinfo: (u64, u64),
    /// Where the notes are: offset and length.
    pub notes: (u64, u64),
    /// One more than the highest page frame.
    pub frames: u64,
}

impl KdumpHeader {
    /// Whether some pages that the second bitmap promises are not there.
    #[must_use]
    pub const fn is_incomplete(&self) -> bool {
        self.status & STATUS_INCOMPLETE != 0
    }

    /// The header's block and the sub-header's fields. Notes begin behind them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut out = Writer::with_capacity(5000);
        out.bytes(&SIGNATURE);
        out.u32_le(VERSION);
        let uts = &self.utsname;
        for (index, field) in [
            &uts.sysname,
            &uts.nodename,
            &uts.release,
            &uts.version,
            &uts.machine,
            &uts.domainname,
        ]
        .into_iter()
        .enumerate()
        {
            let kept = field.get(..field.floor_char_boundary(UTS_LEN - 1)).unwrap_or_default();
            out.bytes(kept.as_bytes());
            out.fill_to(12 + (index + 1) * UTS_LEN, 0);
        }
        out.fill_to(408, 0);
        out.u64_le(self.timestamp_s);
        out.u64_le(0);
        for value in [self.status, self.block_len, self.sub_header_blocks, self.bitmap_blocks] {
            out.u32_le(value);
        }
        out.u32_le(small(self.frames)); // max_mapnr, superseded by the 64-bit one
        for _ in 0..4 {
            out.u32_le(0); // total_ram_blocks, device_blocks, written_blocks, current_cpu
        }
        out.u32_le(self.cpus);
        out.fill_to(4096, 0);
        out.u64_le(self.phys_base);
        out.u32_le(self.dump_level);
        out.u32_le(u32::from(self.is_split));
        let (vmcoreinfo, notes) = (self.vmcoreinfo, self.notes);
        for value in [
            0,
            0, // start_pfn, end_pfn
            vmcoreinfo.0,
            vmcoreinfo.1,
            notes.0,
            notes.1,
            0,
            0, // eraseinfo
            0,
            0, // start_pfn_64, end_pfn_64
            self.frames,
        ] {
            out.u64_le(value);
        }
        out.into_vec()
    }

    /// Reads header and sub-header from the first two blocks of a file; nothing if they are not of this format.
    #[must_use]
    pub fn parse(start: &[u8]) -> Option<Self> {
        if !start.starts_with(&SIGNATURE) {
            return None;
        }
        let version = u32_le(start, 8)?;
        let uts = |index: usize| {
            let field = slice(start, 12 + index * UTS_LEN, UTS_LEN)?;
            Some(String::from_utf8_lossy(until_nul(field)).into_owned())
        };
        let sub = |at: usize| u64_le(start, 4096 + at);
        let since = |first: u32, at: usize| if version >= first { sub(at) } else { Some(0) };
        let frames = match version {
            6.. => sub(96)?,
            _ => u64::from(u32_le(start, 440)?),
        };
        Some(Self {
            version,
            utsname: Utsname {
                sysname: uts(0)?,
                nodename: uts(1)?,
                release: uts(2)?,
                version: uts(3)?,
                machine: uts(4)?,
                domainname: uts(5)?,
            },
            timestamp_s: u64_le(start, 408)?,
            status: u32_le(start, 424)?,
            block_len: u32_le(start, 428)?,
            sub_header_blocks: u32_le(start, 432)?,
            bitmap_blocks: u32_le(start, 436)?,
            cpus: u32_le(start, 460)?,
            phys_base: sub(0)?,
            dump_level: if version >= 1 { u32_le(start, 4096 + 8)? } else { 0 },
            is_split: version >= 2 && u32_le(start, 4096 + 12)? != 0,
            vmcoreinfo: (since(3, 32)?, since(3, 40)?),
            notes: (since(4, 48)?, since(4, 56)?),
            frames,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read() {
        let header = KdumpHeader {
            version: 6,
            utsname: Utsname {
                sysname: "Linux".into(),
                nodename: "n".into(),
                release: "6.1.0-56-cloud-amd64".into(),
                version: "#1 SMP".into(),
                machine: "x86_64".into(),
                domainname: "(none)".into(),
            },
            timestamp_s: 1_700_000_000,
            status: 0x28,
            block_len: 4096,
            sub_header_blocks: 2,
            bitmap_blocks: 64,
            cpus: 3,
            phys_base: 0x2600000,
            dump_level: 31,
            is_split: false,
            vmcoreinfo: (5000, 3000),
            notes: (4200, 4000),
            frames: 1 << 33,
        };
        let bytes = header.encode();
        assert_eq!(bytes.len() as u64, SUB_HEADER_AT + SUB_HEADER_LEN);
        assert_eq!(KdumpHeader::parse(&bytes), Some(header.clone()));
        assert!(header.is_incomplete());
        assert_eq!(KdumpHeader::parse(&bytes[..4199]), None);
        // Offsets as makedumpfile's structures have them.
        assert_eq!(&bytes[12..17], b"Linux");
        assert_eq!(&bytes[12 + 4 * 65..12 + 4 * 65 + 6], b"x86_64");
        assert_eq!(bytes[460], 3);
        assert_eq!(&bytes[4096 + 48..4096 + 50], &4200_u16.to_le_bytes());
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let header = KdumpHeader {
            utsname: Utsname {
                version: format!("{}é", "x".repeat(63)),
                ..Utsname::default()
            },
            ..KdumpHeader::default()
        };
        let read = KdumpHeader::parse(&header.encode()).unwrap();
        assert_eq!(read.utsname.version, "x".repeat(63));
    }
}
