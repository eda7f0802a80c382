//! The guest's side of the panic record: registers its place and fills it, without allocating and without panicking.
use core::fmt;
use core::sync::atomic::{Ordering, fence};

use crate::abi::{COMPLETE, CPU_UNKNOWN, GuestRange, MAGIC, MESSAGE_LEN, RECORD_LEN, RawRecord, Registers, VERSION};
use crate::port;

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
        record.magic = MAGIC.to_le();
        record.version = VERSION.to_le();
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
