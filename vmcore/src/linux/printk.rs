//! The kernel log of a Linux guest, out of its memory.
//!
//! Linux 5.10 and later keep it in a lockless ring buffer (kernel/printk/printk_ringbuffer.h), older kernels in a buffer of
//! records that follow one another (`struct printk_log`, kernel/printk/printk.c of 5.9). VMCOREINFO has the layout of either.
//! All of it is the guest's: every size is bounded, and a record that makes no sense costs that record only.

mod records;
mod ring;
mod undescribed;

use std::fmt::Write as _;

use crate::image::{Absent, PhysicalMemory};
use crate::limits::{KERNEL_LOG_RECORDS_MAX, KERNEL_LOG_TEXT_LEN_MAX};
use crate::linux::place::KernelPlace;
use crate::linux::space::KernelSpace;
use crate::notes::vmcoreinfo;

/// The log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelLog {
    /// Its records, oldest first.
    pub records: Vec<LogRecord>,
    /// Records that could not be read: overwritten while the guest died, absent from the core, or senseless.
    pub unreadable_records: u64,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Time since the guest's boot, in nanoseconds, by its own clock.
    pub time_ns: u64,
    /// The text as the kernel formatted it; may hold several lines and any bytes.
    pub text: Vec<u8>,
}

/// There is no log to be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// VMCOREINFO does not describe a log.
    #[error("VMCOREINFO has no usable {key}")]
    NotDescribed {
        /// The key that is missing or makes no sense.
        key: String,
    },
    /// The memory that holds the log's frame is not in the core.
    #[error("the log's {part}: {absent}")]
    Absent {
        /// Which part.
        part: &'static str,
        /// What is not there.
        absent: Absent,
    },
    /// The log claims a size that no kernel has.
    #[error("the log's {part} claims {value}")]
    BadValue {
        /// Which part.
        part: &'static str,
        /// What it claims.
        value: u64,
    },
}

impl KernelLog {
    /// Reads the log of the kernel that `vmcoreinfo` describes.
    ///
    /// # Errors
    /// [`LogError`] if there is none that can be read.
    pub fn read<M: PhysicalMemory>(space: &KernelSpace<M>, vmcoreinfo: &[u8]) -> Result<Self, LogError> {
        if vmcoreinfo::symbol(vmcoreinfo, "prb").is_some() {
            ring::read(space, vmcoreinfo)
        } else {
            records::read(space, vmcoreinfo)
        }
    }

    /// Looks for the ring of 5.10 and later in a kernel's image, without any description of it.
    #[must_use]
    pub fn search<M: PhysicalMemory>(space: &KernelSpace<M>, place: &KernelPlace) -> Option<Self> {
        undescribed::search(space, place)
    }

    /// The log as dmesg(1) shows it: each line behind the seconds since boot. Bytes that are not UTF-8 are replaced, control
    /// characters are left to whoever shows the text. Of a log that would be longer than [`KERNEL_LOG_TEXT_LEN_MAX`], the end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for record in self.last_records() {
            let micros = record.time_ns / 1000;
            let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
            for line in String::from_utf8_lossy(&record.text).split('\n') {
                // Writing to a string does not fail.
                let _ = writeln!(text, "[{seconds:5}.{rest:06}] {line}");
            }
        }
        text
    }

    /// As many of the newest records as surely fit into the longest text.
    fn last_records(&self) -> &[LogRecord] {
        let mut room = KERNEL_LOG_TEXT_LEN_MAX;
        let fits = |record: &LogRecord| {
            let lines = 1 + record.text.iter().filter(|byte| **byte == b'\n').count();
            // A byte that is no UTF-8 becomes a character of three.
            let widest = if record.text.is_ascii() { 1 } else { 3 };
            room = room.checked_sub(record.text.len() * widest + lines * LINE_HEAD_LEN_MAX)?;
            Some(())
        };
        let count = self.records.iter().rev().map_while(fits).count();
        let first = self.records.len().saturating_sub(count);
        self.records.get(first..).unwrap_or_default()
    }

    /// Adds a record, or counts one that cannot be read. `room` is what a log of this length may still hold of text: records that
    /// have more in all share theirs, which only a hostile one does.
    fn push(&mut self, record: Option<LogRecord>, room: &mut usize) {
        let left = record.as_ref().and_then(|record| room.checked_sub(record.text.len()));
        match (record, left) {
            (Some(record), Some(left)) if self.records.len() < KERNEL_LOG_RECORDS_MAX => {
                *room = left;
                self.records.push(record);
            }
            _ => self.unreadable_records += 1,
        }
    }
}

/// What stands before each line of text, and its line feed, at most: seconds of 64 bits of nanoseconds have eleven digits.
const LINE_HEAD_LEN_MAX: usize = 24;

/// The numbers of VMCOREINFO, by key.
#[derive(Debug, Clone, Copy)]
struct Described<'a>(&'a [u8]);

impl Described<'_> {
    fn symbol(self, name: &str) -> Result<u64, LogError> {
        vmcoreinfo::symbol(self.0, name).ok_or_else(|| not_described(format!("SYMBOL({name})")))
    }

    /// The place of a field in its structure, at most a page.
    fn offset(self, field: &str) -> Result<usize, LogError> {
        self.small(format!("OFFSET({field})"))
    }

    /// The length of a structure, at most a page.
    fn size(self, name: &str) -> Result<usize, LogError> {
        self.small(format!("SIZE({name})"))
    }

    fn small(self, key: String) -> Result<usize, LogError> {
        let value = vmcoreinfo::value(self.0, &key).and_then(|value| value.parse().ok());
        value.filter(|value| *value <= 4096).ok_or_else(|| not_described(key))
    }
}

fn not_described(key: String) -> LogError {
    LogError::NotDescribed { key }
}

/// Turns an absent place into the error that names the part of the log.
fn absent(part: &'static str) -> impl Fn(Absent) -> LogError {
    move |absent| LogError::Absent { part, absent }
}
