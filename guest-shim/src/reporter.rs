//! The guest's side of the panic record: registers its place and fills it, without allocating and without panicking.
use core::fmt;
use core::sync::atomic::{Ordering, fence};

use crate::abi::{COMPLETE, CPU_UNKNOWN, GuestRange, MAGIC, MESSAGE_LEN, RECORD_LEN, RawRecord, Registers, VERSION};
use crate::port;

// Records are little-endian, and so is every machine that this reporter runs on.
const _: () = assert!(cfg!(target_endian = "little"));

/// How the reporter reaches the host's registers: I/O ports or the PCI function's BAR.
pub trait ShimRegisters {
    /// Reads the 32-bit register at `offset` (see [`crate::port`]).
    fn read(&mut self, offset: u16) -> u32;
    /// Writes the 32-bit register at `offset`.
    fn write(&mut self, offset: u16, value: u32);
}

/// What a guest knows when it panics; what it does not know stays at its default.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Index of the CPU that panicked, [`CPU_UNKNOWN`] if not known.
    pub crashed_cpu: u32,
    /// Nanoseconds since 1970, 0 if not known.
    pub time_unix_ns: u64,
    /// Operating system's name, cut to its field.
    pub os_name: &'a str,
    /// Its release, cut to its field.
    pub release: &'a str,
    /// Registers at the panic.
    pub registers: Option<Registers>,
    /// Where the kernel log lies.
    pub kernel_log: GuestRange,
    /// Where the VMCOREINFO text lies.
    pub vmcoreinfo: GuestRange,
    /// The kernel's build id, cut to its field.
    pub build_id: &'a [u8],
}

impl Default for Report<'_> {
    fn default() -> Self {
        Report {
            crashed_cpu: CPU_UNKNOWN,
            time_unix_ns: 0,
            os_name: "",
            release: "",
            registers: None,
            kernel_log: GuestRange::default(),
            vmcoreinfo: GuestRange::default(),
            build_id: &[],
        }
    }
}

/// Registering failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterError {
    /// No shim answers there: the signature register reads as this.
    NoShim(u32),
    /// The host refused the address.
    Refused,
}

/// Fills one record.
#[derive(Debug)]
pub struct Reporter<'a> {
    record: &'a mut RawRecord,
    sequence: u32,
}

impl<'a> Reporter<'a> {
    /// Wraps the record's memory, which must stay at one guest-physical address.
    pub fn new(record: &'a mut RawRecord) -> Self {
        let sequence = record.sequence_end;
        Reporter { record, sequence }
    }

    /// Tells the host that the record will lie at `gpa`.
    ///
    /// # Errors
    /// [`RegisterError`] if no host answers or it does not take the address.
    pub fn register(&self, registers: &mut impl ShimRegisters, gpa: u64) -> Result<(), RegisterError> {
        let signature = registers.read(port::SIGNATURE);
        if signature != port::SIGNATURE_VALUE {
            return Err(RegisterError::NoShim(signature));
        }
        let [b0, b1, b2, b3, b4, b5, b6, b7] = gpa.to_le_bytes();
        registers.write(port::RECORD_GPA_LOW, u32::from_le_bytes([b0, b1, b2, b3]));
        registers.write(port::RECORD_GPA_HIGH, u32::from_le_bytes([b4, b5, b6, b7]));
        registers.write(port::RECORD_LEN, RECORD_LEN_U32);
        registers.write(port::DOORBELL, port::DOORBELL_REGISTER);
        match registers.read(port::STATUS) {
            port::STATUS_REGISTERED | port::STATUS_COMPLETE => Ok(()),
            _ => Err(RegisterError::Refused),
        }
    }

    /// Fills the record with `report` and the formatted `message`. The host may look at any moment: until the last
    /// store it sees a torn record. The caller triggers pvpanic afterwards.
    pub fn fill(&mut self, report: &Report<'_>, message: fmt::Arguments<'_>) {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let record = &mut *self.record;
        record.complete = 0;
        record.sequence_end = 0;
        record.sequence_begin = self.sequence;
        fence(Ordering::SeqCst);
        record.magic = MAGIC;
        record.version = VERSION;
        record.length = RECORD_LEN_U32;
        record.crashed_cpu = report.crashed_cpu;
        record.time_unix_ns = report.time_unix_ns;
        record.kernel_log = report.kernel_log;
        record.vmcoreinfo = report.vmcoreinfo;
        record.registers_valid = u32::from(report.registers.is_some());
        record.registers = report.registers.unwrap_or_default();
        record.build_id_len = copy_cut(&mut record.build_id, report.build_id);
        copy_cut(&mut record.os_name, report.os_name.as_bytes());
        copy_cut(&mut record.release, report.release.as_bytes());
        let mut writer = MessageWriter {
            message: &mut record.message,
            used: 0,
        };
        // A message that does not fit is cut by the writer, never refused.
        let _ = fmt::write(&mut writer, message);
        record.message_len = writer.used;
        fence(Ordering::SeqCst);
        record.sequence_end = self.sequence;
        record.complete = COMPLETE;
        fence(Ordering::SeqCst);
    }

    /// Rings that the record is filled, so that the host knows it even if the guest then dies otherwise.
    pub fn announce(&self, registers: &mut impl ShimRegisters) {
        registers.write(port::DOORBELL, port::DOORBELL_COMPLETE);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "4096 fits; From is not const")]
const RECORD_LEN_U32: u32 = RECORD_LEN as u32;

/// Copies what fits, clears the rest, returns how many bytes were copied.
fn copy_cut(field: &mut [u8], bytes: &[u8]) -> u32 {
    field.fill(0);
    let mut copied = 0;
    for (slot, byte) in field.iter_mut().zip(bytes) {
        *slot = *byte;
        copied += 1;
    }
    copied
}

struct MessageWriter<'a> {
    message: &'a mut [u8; MESSAGE_LEN],
    used: u32,
}

impl fmt::Write for MessageWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let used = usize::try_from(self.used).map_err(|_| fmt::Error)?;
        for (slot, byte) in self.message.iter_mut().skip(used).zip(text.bytes()) {
            *slot = byte;
            self.used += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{PanicRecord, RecordError};

    /// The record's bytes as a host reads them: the tests know the field order from the specification only.
    fn bytes(record: &RawRecord) -> Vec<u8> {
        let mut out = vec![0; RECORD_LEN];
        let mut put = |offset: usize, value: &[u8]| out[offset..offset + value.len()].copy_from_slice(value);
        put(0x000, &record.magic.to_le_bytes());
        put(0x008, &record.version.to_le_bytes());
        put(0x00c, &record.length.to_le_bytes());
        put(0x010, &record.sequence_begin.to_le_bytes());
        put(0x014, &record.crashed_cpu.to_le_bytes());
        put(0x018, &record.time_unix_ns.to_le_bytes());
        put(0x020, &record.kernel_log.gpa.to_le_bytes());
        put(0x028, &record.kernel_log.len_bytes.to_le_bytes());
        put(0x0c8, &record.registers.rflags.to_le_bytes());
        put(0x100, &record.registers_valid.to_le_bytes());
        put(0x104, &record.build_id_len.to_le_bytes());
        put(0x108, &record.build_id);
        put(0x128, &record.os_name);
        put(0x148, &record.release);
        put(0x1a8, &record.message_len.to_le_bytes());
        put(0x1b0, &record.message);
        put(0xff8, &record.sequence_end.to_le_bytes());
        put(0xffc, &record.complete.to_le_bytes());
        out
    }

    #[test]
    fn what_the_guest_fills_is_what_the_host_reads() {
        let mut record = RawRecord::empty();
        let report = Report {
            crashed_cpu: 1,
            os_name: "demo",
            release: "1.0",
            registers: Some(Registers {
                rflags: 0x202,
                ..Registers::ZERO
            }),
            kernel_log: GuestRange {
                gpa: 0x5000,
                len_bytes: 10,
            },
            build_id: &[1, 2, 3],
            ..Report::default()
        };
        Reporter::new(&mut record).fill(&report, format_args!("out of {}", "rope"));
        let read = PanicRecord::parse(&bytes(&record)).unwrap();
        assert_eq!((read.sequence, read.crashed_cpu, read.time_unix_ns), (1, Some(1), None));
        assert_eq!(
            (read.os_name.as_str(), read.release.as_str(), read.message.as_str()),
            ("demo", "1.0", "out of rope")
        );
        assert_eq!(
            (read.build_id(), read.registers.unwrap().rflags),
            (&[1, 2, 3][..], 0x202)
        );
        assert_eq!((read.kernel_log, read.vmcoreinfo), (Some(report.kernel_log), None));
    }

    #[test]
    fn a_second_report_replaces_the_first_one() {
        let mut record = RawRecord::empty();
        Reporter::new(&mut record).fill(
            &Report {
                build_id: &[9; 32],
                ..Report::default()
            },
            format_args!("a long message"),
        );
        Reporter::new(&mut record).fill(&Report::default(), format_args!("b"));
        let read = PanicRecord::parse(&bytes(&record)).unwrap();
        assert_eq!(
            (read.sequence, read.message.as_str(), read.build_id()),
            (2, "b", &[][..])
        );
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let mut record = RawRecord::empty();
        let long: String = "y".repeat(5000);
        Reporter::new(&mut record).fill(
            &Report {
                release: &long,
                ..Report::default()
            },
            format_args!("{long}{long}"),
        );
        let read = PanicRecord::parse(&bytes(&record)).unwrap();
        assert_eq!(
            (read.message.as_str().len(), read.release.as_str().len()),
            (MESSAGE_LEN, 96)
        );
    }

    #[test]
    fn an_untouched_record_is_empty() {
        assert_eq!(PanicRecord::parse(&bytes(&RawRecord::empty())), Err(RecordError::Empty));
    }

    #[test]
    fn a_guest_without_the_device_is_told_so() {
        struct Nothing;
        impl ShimRegisters for Nothing {
            fn read(&mut self, _: u16) -> u32 {
                u32::MAX
            }
            fn write(&mut self, _: u16, _: u32) {}
        }
        let mut record = RawRecord::empty();
        let answer = Reporter::new(&mut record).register(&mut Nothing, 0x1000);
        assert_eq!(answer, Err(RegisterError::NoShim(u32::MAX)));
    }
}
