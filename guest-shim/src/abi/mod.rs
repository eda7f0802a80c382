//! The panic record: one page of guest memory that a dying kernel fills and the host reads.
//!
//! All numbers are little-endian. The guest writes `sequence_begin` first and `sequence_end` and `complete` last; a host
//! that finds them different has caught the guest in the middle and ignores the record ([`RecordError::Torn`]).
mod parse;

use core::fmt;
use core::mem::{offset_of, size_of};

pub use parse::{PanicRecord, RecordError, Text};

/// The first eight bytes of every record: `CFPANIC` and a NUL.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CFPANIC\0");

/// Version of the layout. A host reads records of this version or newer ones that kept the layout (see the docs).
pub const VERSION: u16 = 1;

/// Bytes that a record occupies: one page, so that it can lie page-aligned and alone.
pub const RECORD_LEN: usize = 4096;

/// Value of `complete` once the record is filled: `DONE`.
pub const COMPLETE: u32 = u32::from_le_bytes(*b"DONE");

/// Room for the operating system's name in bytes (`struct utsname` fields are 65 bytes on Linux, 256 on FreeBSD; names
/// are short in practice).
pub const OS_NAME_LEN: usize = 32;
/// Room for the release in bytes.
pub const RELEASE_LEN: usize = 96;
/// Room for a build id in bytes; `ld --build-id=sha1` makes 20, other linkers up to 32.
pub const BUILD_ID_LEN: usize = 32;
/// Room for the panic message in bytes.
pub const MESSAGE_LEN: usize = 2048;

/// `crashed_cpu` of a guest that does not know its CPU.
pub const CPU_UNKNOWN: u32 = u32::MAX;

/// Registers of the crashed CPU as the guest saw them when it panicked. The host has the exact state of every vCPU;
/// these are the ones from *before* the panic path ran.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the Intel SDM, volume 1, 3.4")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// Number of 64-bit values in [`Registers`].
pub const REGISTERS: usize = 24;

/// A piece of guest memory that the record points at. Zero length: not given.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestRange {
    /// Guest-physical address of the first byte.
    pub gpa: u64,
    /// Length in bytes.
    pub len_bytes: u64,
}

/// The record as it lies in memory. Guests fill it through [`crate::reporter`]; hosts read bytes with
/// [`PanicRecord::parse`] and never look at guest memory through this type.
#[repr(C, align(4096))]
#[derive(Clone, Copy)]
pub struct RawRecord {
    pub(crate) magic: u64,
    pub(crate) version: u16,
    pub(crate) reserved0: u16,
    pub(crate) length: u32,
    pub(crate) sequence_begin: u32,
    pub(crate) crashed_cpu: u32,
    pub(crate) time_unix_ns: u64,
    pub(crate) kernel_log: GuestRange,
    pub(crate) vmcoreinfo: GuestRange,
    pub(crate) registers: Registers,
    pub(crate) registers_valid: u32,
    pub(crate) build_id_len: u32,
    pub(crate) build_id: [u8; BUILD_ID_LEN],
    pub(crate) os_name: [u8; OS_NAME_LEN],
    pub(crate) release: [u8; RELEASE_LEN],
    pub(crate) message_len: u32,
    pub(crate) reserved1: u32,
    pub(crate) message: [u8; MESSAGE_LEN],
    pub(crate) reserved2: [u8; RESERVED2_LEN],
    pub(crate) sequence_end: u32,
    pub(crate) complete: u32,
}

const RESERVED2_LEN: usize = 4096 - 8 - MESSAGE_END;
const MESSAGE_END: usize = offsets::MESSAGE + MESSAGE_LEN;

/// Where each field of the record lies, in bytes from its start. `docs/guest-shim.md` lists the same numbers.
pub mod offsets {
    /// u64, [`super::MAGIC`].
    pub const MAGIC: usize = 0x000;
    /// u16, [`super::VERSION`].
    pub const VERSION: usize = 0x008;
    /// u32, [`super::RECORD_LEN`].
    pub const LENGTH: usize = 0x00c;
    /// u32, written first; 0 is no record.
    pub const SEQUENCE_BEGIN: usize = 0x010;
    /// u32, index of the vCPU that panicked or [`super::CPU_UNKNOWN`].
    pub const CRASHED_CPU: usize = 0x014;
    /// u64, nanoseconds since 1970 by the guest's clock; 0 is unknown.
    pub const TIME_UNIX_NS: usize = 0x018;
    /// u64 gpa, u64 length: the kernel log.
    pub const KERNEL_LOG: usize = 0x020;
    /// u64 gpa, u64 length: the VMCOREINFO text.
    pub const VMCOREINFO: usize = 0x030;
    /// 24 u64, see [`super::Registers`].
    pub const REGISTERS: usize = 0x040;
    /// u32, 1 if the registers are filled.
    pub const REGISTERS_VALID: usize = 0x100;
    /// u32, bytes used of the build id.
    pub const BUILD_ID_LEN: usize = 0x104;
    /// 32 bytes.
    pub const BUILD_ID: usize = 0x108;
    /// 32 bytes, NUL padded.
    pub const OS_NAME: usize = 0x128;
    /// 96 bytes, NUL padded.
    pub const RELEASE: usize = 0x148;
    /// u32, bytes used of the message.
    pub const MESSAGE_LEN: usize = 0x1a8;
    /// 2048 bytes, UTF-8.
    pub const MESSAGE: usize = 0x1b0;
    /// u32, equals `sequence_begin` in a whole record.
    pub const SEQUENCE_END: usize = 0xff8;
    /// u32, [`super::COMPLETE`], written last.
    pub const COMPLETE: usize = 0xffc;
}

const _: () = {
    assert!(size_of::<RawRecord>() == RECORD_LEN);
    assert!(size_of::<Registers>() == REGISTERS * 8);
    assert!(offset_of!(RawRecord, magic) == offsets::MAGIC);
    assert!(offset_of!(RawRecord, version) == offsets::VERSION);
    assert!(offset_of!(RawRecord, length) == offsets::LENGTH);
    assert!(offset_of!(RawRecord, sequence_begin) == offsets::SEQUENCE_BEGIN);
    assert!(offset_of!(RawRecord, crashed_cpu) == offsets::CRASHED_CPU);
    assert!(offset_of!(RawRecord, time_unix_ns) == offsets::TIME_UNIX_NS);
    assert!(offset_of!(RawRecord, kernel_log) == offsets::KERNEL_LOG);
    assert!(offset_of!(RawRecord, vmcoreinfo) == offsets::VMCOREINFO);
    assert!(offset_of!(RawRecord, registers) == offsets::REGISTERS);
    assert!(offset_of!(RawRecord, registers_valid) == offsets::REGISTERS_VALID);
    assert!(offset_of!(RawRecord, build_id_len) == offsets::BUILD_ID_LEN);
    assert!(offset_of!(RawRecord, build_id) == offsets::BUILD_ID);
    assert!(offset_of!(RawRecord, os_name) == offsets::OS_NAME);
    assert!(offset_of!(RawRecord, release) == offsets::RELEASE);
    assert!(offset_of!(RawRecord, message_len) == offsets::MESSAGE_LEN);
    assert!(offset_of!(RawRecord, message) == offsets::MESSAGE);
    assert!(offset_of!(RawRecord, sequence_end) == offsets::SEQUENCE_END);
    assert!(offset_of!(RawRecord, complete) == offsets::COMPLETE);
};

impl RawRecord {
    /// A record that holds nothing; the initial value of a guest's static.
    #[must_use]
    pub const fn empty() -> Self {
        const NOTHING: GuestRange = GuestRange { gpa: 0, len_bytes: 0 };
        RawRecord {
            magic: 0,
            version: 0,
            reserved0: 0,
            length: 0,
            sequence_begin: 0,
            crashed_cpu: CPU_UNKNOWN,
            time_unix_ns: 0,
            kernel_log: NOTHING,
            vmcoreinfo: NOTHING,
            registers: Registers::ZERO,
            registers_valid: 0,
            build_id_len: 0,
            build_id: [0; BUILD_ID_LEN],
            os_name: [0; OS_NAME_LEN],
            release: [0; RELEASE_LEN],
            message_len: 0,
            reserved1: 0,
            message: [0; MESSAGE_LEN],
            reserved2: [0; RESERVED2_LEN],
            sequence_end: 0,
            complete: 0,
        }
    }
}

impl fmt::Debug for RawRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRecord")
            .field("sequence_begin", &self.sequence_begin)
            .field("sequence_end", &self.sequence_end)
            .field("message_len", &self.message_len)
            .finish_non_exhaustive()
    }
}

impl Registers {
    /// All registers zero.
    pub const ZERO: Registers = Registers {
        rax: 0,
        rbx: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        rbp: 0,
        rsp: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
        rip: 0,
        rflags: 0,
        cr0: 0,
        cr2: 0,
        cr3: 0,
        cr4: 0,
        fs_base: 0,
        gs_base: 0,
    };
}
