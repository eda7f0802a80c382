//! Reads a panic record out of bytes that a guest controls.
use core::fmt;

use super::{
    BUILD_ID_LEN, COMPLETE, CPU_UNKNOWN, GuestRange, MAGIC, MESSAGE_LEN, OS_NAME_LEN, RECORD_LEN, RELEASE_LEN,
    Registers, VERSION, offsets,
};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record with every field filled.
    fn whole() -> Vec<u8> {
        let mut bytes = vec![0; RECORD_LEN];
        let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(offsets::MAGIC, &MAGIC.to_le_bytes());
        put(offsets::VERSION, &VERSION.to_le_bytes());
        put(offsets::LENGTH, &4096_u32.to_le_bytes());
        put(offsets::SEQUENCE_BEGIN, &7_u32.to_le_bytes());
        put(offsets::CRASHED_CPU, &3_u32.to_le_bytes());
        put(offsets::TIME_UNIX_NS, &99_u64.to_le_bytes());
        put(offsets::KERNEL_LOG, &0x1000_u64.to_le_bytes());
        put(offsets::KERNEL_LOG + 8, &0x200_u64.to_le_bytes());
        put(offsets::REGISTERS + 8 * 16, &0xffff_ffff_8100_0000_u64.to_le_bytes());
        put(offsets::REGISTERS_VALID, &1_u32.to_le_bytes());
        put(offsets::BUILD_ID_LEN, &2_u32.to_le_bytes());
        put(offsets::BUILD_ID, &[0xab, 0xcd, 0xef]);
        put(offsets::OS_NAME, b"Linux");
        put(offsets::RELEASE, b"6.1.0");
        put(offsets::MESSAGE_LEN, &6_u32.to_le_bytes());
        put(offsets::MESSAGE, b"Oops: and what was here before");
        put(offsets::SEQUENCE_END, &7_u32.to_le_bytes());
        put(offsets::COMPLETE, &COMPLETE.to_le_bytes());
        bytes
    }

    #[test]
    fn a_whole_record_is_read_field_by_field() {
        let record = PanicRecord::parse(&whole()).unwrap();
        assert_eq!(
            (record.sequence, record.crashed_cpu, record.time_unix_ns),
            (7, Some(3), Some(99))
        );
        assert_eq!((record.os_name.as_str(), record.release.as_str()), ("Linux", "6.1.0"));
        assert_eq!(
            (record.message.as_str(), record.build_id()),
            ("Oops: ", &[0xab, 0xcd][..])
        );
        assert_eq!(
            record.kernel_log,
            Some(GuestRange {
                gpa: 0x1000,
                len_bytes: 0x200
            })
        );
        assert_eq!(
            (record.vmcoreinfo, record.registers.unwrap().rip),
            (None, 0xffff_ffff_8100_0000)
        );
    }

    #[test]
    fn a_record_that_was_caught_in_the_middle_is_torn() {
        let mut no_end = whole();
        no_end[offsets::SEQUENCE_END] = 6;
        assert_eq!(PanicRecord::parse(&no_end), Err(RecordError::Torn { begin: 7, end: 6 }));
        let mut not_complete = whole();
        not_complete[offsets::COMPLETE] = 0;
        assert_eq!(
            PanicRecord::parse(&not_complete),
            Err(RecordError::Torn { begin: 7, end: 7 })
        );
        let mut never_begun = whole();
        never_begun[offsets::SEQUENCE_BEGIN] = 0;
        never_begun[offsets::SEQUENCE_END] = 0;
        assert_eq!(
            PanicRecord::parse(&never_begun),
            Err(RecordError::Torn { begin: 0, end: 0 })
        );
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert_eq!(PanicRecord::parse(&[0; 4096]), Err(RecordError::Empty));
        assert_eq!(
            PanicRecord::parse(&[0; 4095]),
            Err(RecordError::Short { len_bytes: 4095 })
        );
        assert!(matches!(PanicRecord::parse(&[1; 4096]), Err(RecordError::Magic { .. })));
        let mut newer = whole();
        newer[offsets::VERSION] = 2;
        let error = PanicRecord::parse(&newer).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    #[test]
    fn lengths_that_lie_are_cut_and_bad_text_ends_early() {
        let mut bytes = whole();
        bytes[offsets::MESSAGE_LEN..offsets::MESSAGE_LEN + 4].fill(0xff);
        bytes[offsets::BUILD_ID_LEN..offsets::BUILD_ID_LEN + 4].fill(0xff);
        bytes[offsets::MESSAGE..offsets::MESSAGE + MESSAGE_LEN].fill(b'x');
        bytes[offsets::OS_NAME + 2] = 0xff;
        bytes[offsets::KERNEL_LOG..offsets::KERNEL_LOG + 8].fill(0xff);
        let record = PanicRecord::parse(&bytes).unwrap();
        assert_eq!(
            (record.message.as_str().len(), record.build_id().len()),
            (MESSAGE_LEN, BUILD_ID_LEN)
        );
        assert_eq!((record.os_name.as_str(), record.kernel_log), ("Li", None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            changes in prop::collection::vec((0..RECORD_LEN, any::<u8>()), 0..64),
            len in 0..=RECORD_LEN + 8,
        ) {
            let mut bytes = whole();
            for (at, value) in changes {
                bytes[at] = value;
            }
            bytes.resize(len, 0);
            if let Ok(record) = PanicRecord::parse(&bytes) {
                prop_assert!(record.message.as_str().len() <= MESSAGE_LEN);
                prop_assert!(record.build_id().len() <= BUILD_ID_LEN);
            }
        }
    }
}
