//! The record buffer of Linux 3.5 to 5.9: records one after another, a length of zero means "go on at the beginning".

use super::{Described, KernelLog, LogError, LogRecord, absent};
use crate::bytes::{u16_le, u64_le};
use crate::image::PhysicalMemory;
use crate::limits::{KERNEL_LOG_BYTES_MAX, KERNEL_LOG_RECORDS_MAX};
use crate::linux::space::{Copied, KernelSpace};

/// Reads the log at `SYMBOL(log_buf)`.
pub(super) fn read<M: PhysicalMemory>(space: &KernelSpace<M>, vmcoreinfo: &[u8]) -> Result<KernelLog, LogError> {
    let described = Described(vmcoreinfo);
    let number = |name: &str| -> Result<u32, LogError> {
        let va = described.symbol(name)?;
        space.read_u32(va).map_err(absent("place in the buffer"))
    };
    let buffer_va = space
        .read_u64(described.symbol("log_buf")?)
        .map_err(absent("pointer to the buffer"))?;
    let len = number("log_buf_len")?;
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= KERNEL_LOG_BYTES_MAX)
        .ok_or_else(|| LogError::BadValue {
            part: "buffer",
            value: len.into(),
        })?;
    let buffer = space.copy(buffer_va, len).map_err(absent("buffer"))?;
    let layout = Layout {
        head_len: described.size("printk_log")?,
        time: described.offset("printk_log.ts_nsec")?,
        record_len: described.offset("printk_log.len")?,
        text_len: described.offset("printk_log.text_len")?,
    };
    Ok(layout.log(&buffer, number("log_first_idx")?, number("log_next_idx")?))
}

/// Where the fields of a record are.
#[derive(Debug)]
struct Layout {
    head_len: usize,
    time: usize,
    record_len: usize,
    text_len: usize,
}

impl Layout {
    fn log(&self, buffer: &Copied, first: u32, next: u32) -> KernelLog {
        let mut log = KernelLog::default();
        let mut room = buffer.len_bytes();
        let (mut at, end) = (usize_of(first), usize_of(next));
        let mut wrapped = false;
        for _ in 0..KERNEL_LOG_RECORDS_MAX {
            if at == end {
                return log;
            }
            match self.record_len(buffer, at) {
                Some(0) if !wrapped => {
                    wrapped = true;
                    at = 0;
                }
                Some(len) if len >= self.head_len => {
                    log.push(self.record(buffer, at), &mut room);
                    at += len;
                }
                // Nothing behind this place can be trusted.
                _ => {
                    log.unreadable_records += 1;
                    return log;
                }
            }
        }
        log
    }

    fn record_len(&self, buffer: &Copied, at: usize) -> Option<usize> {
        u16_le(buffer.get(at.checked_add(self.record_len)?, 2)?, 0).map(usize::from)
    }

    fn record(&self, buffer: &Copied, at: usize) -> Option<LogRecord> {
        let head = buffer.get(at, self.head_len)?;
        let text_len = u16_le(head, self.text_len)?;
        Some(LogRecord {
            time_ns: u64_le(head, self.time)?,
            text: buffer.get(at + self.head_len, text_len.into())?.to_vec(),
        })
    }
}

fn usize_of(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
