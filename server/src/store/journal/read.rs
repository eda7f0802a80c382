//! A journal read back, by whoever wants to know or takes the session over.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use netdump::{DisplacedPage, Extents, ResumePoint};
use rustix::fs::{FlockOperation, flock};

use super::record::{
    KIND_FORGOTTEN, KIND_KERNEL_HEADER, KIND_KEY, KIND_RECEIVED, KIND_SYNC, RECORD_BYTES, RECORD_LEN, Record,
    parse_record, point_from,
};
use super::{FirstLine, Journal, SessionHead, boot_id, len_u64};
use crate::limits::{EXTENTS_MAX, JOURNAL_BYTES_MAX, SMALL_EXTENTS_MAX};
use crate::store::spool::without;

/// A journal that was read back.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Who sent.
    pub(crate) head: SessionHead,
    /// The ranges of the file that count.
    pub(crate) received: Extents,
    /// The ranges of the kernel dump header that came.
    pub(crate) kernel_header: Extents,
    /// The ranges of the key that came.
    pub(crate) key: Extents,
    /// The page that was put to offset 0.
    pub(crate) displaced: Option<DisplacedPage>,
    /// Where the sender was in its bursts.
    pub(crate) point: ResumePoint,
    /// Whether the host has run on since: if not, the sender has long given up, and what was not synced may be gone.
    pub(crate) is_same_boot: bool,
}

/// Reads a journal, whoever writes it. A tail that was cut off is ignored.
pub(crate) fn look(path: &Path) -> io::Result<Recovered> {
    let file = File::open(path)?;
    Ok(read(&file)?.0)
}

/// Whether the session of this journal still has its receiver.
pub(crate) fn is_live(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(why) => Err(why.into()),
    }
}

/// Takes over a journal that nobody writes any more; none when somebody does.
pub(crate) fn take_over(path: &Path) -> io::Result<Option<(Recovered, Journal)>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(why) => return Err(why.into()),
    }
    let (recovered, point_at, end) = read(&file)?;
    let journal = Journal {
        file,
        point_at,
        end,
        last: None,
        point: recovered.point,
    };
    Ok(Some((recovered, journal)))
}

/// Reads the whole file; gives also where the first record is and where the next one goes.
fn read(file: &File) -> io::Result<(Recovered, u64, u64)> {
    let mut bytes = Vec::new();
    file.take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&bytes, &boot_id())
}

/// Reads the first line and the records; `boot_id` is this boot's.
pub(crate) fn parse(bytes: &[u8], boot_id: &str) -> io::Result<(Recovered, u64, u64)> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the journal has {why}"));
    let newline = bytes.iter().position(|byte| *byte == b'\n');
    let line_len = newline.ok_or_else(|| invalid("no first line"))? + 1;
    let (line, records) = bytes.split_at(line_len);
    let first: FirstLine = serde_json::from_slice(line)?;
    let mut records = records.chunks_exact(RECORD_LEN).map_while(parse_record);
    let point = records.next().and_then(point_from).ok_or_else(|| invalid("no place"))?;
    let records: Vec<Record> = records.collect();
    let is_same_boot = first.boot_id == boot_id;
    let trusted = if is_same_boot {
        u64::MAX
    } else {
        let marks = records.iter().filter(|record| record.kind == KIND_SYNC);
        marks.map(|record| record.words[0]).max().unwrap_or(0)
    };
    let mut recovered = Recovered {
        head: first.head,
        received: Extents::new(EXTENTS_MAX),
        kernel_header: Extents::new(SMALL_EXTENTS_MAX),
        key: Extents::new(SMALL_EXTENTS_MAX),
        displaced: None,
        point,
        is_same_boot,
    };
    let point_at = len_u64(line_len);
    let mut position = point_at + RECORD_BYTES;
    for Record { kind, words } in records {
        let [offset, length, _] = words;
        let range = offset..offset.saturating_add(length);
        match kind {
            // One range too many is left out: the core then knows of less than arrived, never of more.
            KIND_RECEIVED if position < trusted => drop(recovered.received.insert(range)),
            KIND_KERNEL_HEADER => drop(recovered.kernel_header.insert(range)),
            KIND_KEY => drop(recovered.key.insert(range)),
            KIND_FORGOTTEN => {
                recovered.received = without(&recovered.received, &range);
                recovered.displaced = Some(DisplacedPage {
                    offset,
                    len_bytes: length,
                });
            }
            _ => {}
        }
        position += RECORD_BYTES;
    }
    Ok((recovered, point_at, position))
}
