//! The panic record: one page of guest memory that a dying kernel fills and the host reads.
//!
//! All numbers are little-endian. The guest writes `sequence_begin` first and `sequence_end` and `complete` last; a host
//! that finds them different has caught the guest in the middle and ignores the record ([`RecordError::Torn`]).
use core::fmt;
use core::mem::{offset_of, size_of};

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

/// Text from a guest: up to `N` bytes, of which everything up to the first invalid UTF-8 or NUL is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes
                .get(..error.valid_up_to())
                .and_then(|valid| core::str::from_utf8(valid).ok())
                .unwrap_or(""),
        }
    }

    fn from_field(field: &[u8], len_max: usize) -> Self {
        let mut bytes = [0; N];
        let used = field.iter().take(len_max).take_while(|byte| **byte != 0);
        let mut len = 0;
        for (slot, byte) in bytes.iter_mut().zip(used) {
            *slot = *byte;
            len += 1;
        }
        Text { bytes, len }
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A whole record, read from guest memory and checked. Every value is still the guest's word: addresses and lengths
/// must be checked against the guest's memory before use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicRecord {
    /// Layout version that the guest wrote.
    pub version: u16,
    /// How many records this guest has filled, counted from 1.
    pub sequence: u32,
    /// The vCPU that panicked, if the guest knew.
    pub crashed_cpu: Option<u32>,
    /// Nanoseconds since 1970 by the guest's clock, if it had one.
    pub time_unix_ns: Option<u64>,
    /// Where the kernel log lies.
    pub kernel_log: Option<GuestRange>,
    /// Where the VMCOREINFO text lies.
    pub vmcoreinfo: Option<GuestRange>,
    /// Registers at the panic, if the guest kept them.
    pub registers: Option<Registers>,
    /// Operating system's name, for example `Linux`.
    pub os_name: Text<OS_NAME_LEN>,
    /// Its release, for example `6.1.0-56-cloud-amd64`.
    pub release: Text<RELEASE_LEN>,
    /// The panic message.
    pub message: Text<MESSAGE_LEN>,
    build_id: [u8; BUILD_ID_LEN],
    build_id_len: usize,
}

/// Why bytes from a guest are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Fewer bytes than a record has.
    Short {
        /// How many bytes there were.
        len_bytes: usize,
    },
    /// The area is registered but holds no record (all of the head is zero).
    Empty,
    /// The first eight bytes are something else.
    Magic {
        /// What they are.
        found: u64,
    },
    /// A version or length that this host cannot read.
    Unsupported {
        /// The record's version.
        version: u16,
        /// The record's length in bytes.
        length: u32,
    },
    /// The guest was stopped while it filled the record, or it never finished.
    Torn {
        /// Sequence number at the head.
        begin: u32,
        /// Sequence number at the end.
        end: u32,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Short { len_bytes } => {
                write!(f, "a panic record has {RECORD_LEN} bytes, these are {len_bytes}")
            }
            RecordError::Empty => f.write_str("the panic record area is empty"),
            RecordError::Magic { found } => write!(f, "not a panic record: it starts with {found:#018x}"),
            RecordError::Unsupported { version, length } => {
                write!(
                    f,
                    "panic record of version {version} with {length} bytes; known is version {VERSION}"
                )
            }
            RecordError::Torn { begin, end } => {
                write!(f, "torn panic record: sequence {begin} at its head, {end} at its end")
            }
        }
    }
}

impl core::error::Error for RecordError {}

impl PanicRecord {
    /// Reads a record out of bytes that a guest controls. Lengths inside are cut to their fields; nothing is followed.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are not one whole record.
    pub fn parse(bytes: &[u8]) -> Result<PanicRecord, RecordError> {
        let bytes: &[u8; RECORD_LEN] = bytes
            .get(..RECORD_LEN)
            .and_then(|page| page.try_into().ok())
            .ok_or(RecordError::Short { len_bytes: bytes.len() })?;
        let begin = u32_at(bytes, offsets::SEQUENCE_BEGIN);
        let end = u32_at(bytes, offsets::SEQUENCE_END);
        match u64_at(bytes, offsets::MAGIC) {
            0 => return Err(RecordError::Empty),
            MAGIC => {}
            found => return Err(RecordError::Magic { found }),
        }
        let version = u16_at(bytes, offsets::VERSION);
        let length = u32_at(bytes, offsets::LENGTH);
        if version != VERSION || usize::try_from(length) != Ok(RECORD_LEN) {
            return Err(RecordError::Unsupported { version, length });
        }
        if begin == 0 || begin != end || u32_at(bytes, offsets::COMPLETE) != COMPLETE {
            return Err(RecordError::Torn { begin, end });
        }
        let build_id_len = usize_at(bytes, offsets::BUILD_ID_LEN).min(BUILD_ID_LEN);
        let mut build_id = [0; BUILD_ID_LEN];
        for (slot, byte) in build_id.iter_mut().zip(field(bytes, offsets::BUILD_ID, build_id_len)) {
            *slot = *byte;
        }
        let message_len = usize_at(bytes, offsets::MESSAGE_LEN).min(MESSAGE_LEN);
        Ok(PanicRecord {
            version,
            sequence: begin,
            crashed_cpu: Some(u32_at(bytes, offsets::CRASHED_CPU)).filter(|cpu| *cpu != CPU_UNKNOWN),
            time_unix_ns: Some(u64_at(bytes, offsets::TIME_UNIX_NS)).filter(|time| *time != 0),
            kernel_log: range_at(bytes, offsets::KERNEL_LOG),
            vmcoreinfo: range_at(bytes, offsets::VMCOREINFO),
            registers: (u32_at(bytes, offsets::REGISTERS_VALID) == 1).then(|| registers_at(bytes)),
            os_name: Text::from_field(field(bytes, offsets::OS_NAME, OS_NAME_LEN), OS_NAME_LEN),
            release: Text::from_field(field(bytes, offsets::RELEASE, RELEASE_LEN), RELEASE_LEN),
            message: Text::from_field(field(bytes, offsets::MESSAGE, MESSAGE_LEN), message_len),
            build_id,
            build_id_len,
        })
    }

    /// The kernel's build id; empty if the guest gave none.
    #[must_use]
    pub fn build_id(&self) -> &[u8] {
        self.build_id.get(..self.build_id_len).unwrap_or(&[])
    }
}

fn field(bytes: &[u8; RECORD_LEN], offset: usize, len: usize) -> &[u8] {
    bytes.get(offset..offset.saturating_add(len)).unwrap_or(&[])
}

fn u64_at(bytes: &[u8; RECORD_LEN], offset: usize) -> u64 {
    field(bytes, offset, 8).try_into().map_or(0, u64::from_le_bytes)
}

fn u32_at(bytes: &[u8; RECORD_LEN], offset: usize) -> u32 {
    field(bytes, offset, 4).try_into().map_or(0, u32::from_le_bytes)
}

fn u16_at(bytes: &[u8; RECORD_LEN], offset: usize) -> u16 {
    field(bytes, offset, 2).try_into().map_or(0, u16::from_le_bytes)
}

fn usize_at(bytes: &[u8; RECORD_LEN], offset: usize) -> usize {
    usize::try_from(u32_at(bytes, offset)).unwrap_or(usize::MAX)
}

fn range_at(bytes: &[u8; RECORD_LEN], offset: usize) -> Option<GuestRange> {
    let range = GuestRange {
        gpa: u64_at(bytes, offset),
        len_bytes: u64_at(bytes, offset + 8),
    };
    (range.len_bytes != 0 && range.gpa.checked_add(range.len_bytes).is_some()).then_some(range)
}

fn registers_at(bytes: &[u8; RECORD_LEN]) -> Registers {
    let at = |index: usize| u64_at(bytes, offsets::REGISTERS + 8 * index);
    Registers {
        rax: at(0),
        rbx: at(1),
        rcx: at(2),
        rdx: at(3),
        rsi: at(4),
        rdi: at(5),
        rbp: at(6),
        rsp: at(7),
        r8: at(8),
        r9: at(9),
        r10: at(10),
        r11: at(11),
        r12: at(12),
        r13: at(13),
        r14: at(14),
        r15: at(15),
        rip: at(16),
        rflags: at(17),
        cr0: at(18),
        cr2: at(19),
        cr3: at(20),
        cr4: at(21),
        fs_base: at(22),
        gs_base: at(23),
    }
}
