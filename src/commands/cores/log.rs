//! `cores log`: the kernel log out of a core's memory.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use api::{Client, CoreInfo};
use serde_json::json;
use vmcore::image::{Absent, CoreImage, FileBytes};
use vmcore::linux::{KernelLog, KernelSpace};
use vmcore::reader::CoreNotes;

use super::source::{Source, refused, vmcore_path};
use crate::cli_failure::{Exit, Failure, Outcome};
use crate::output;

/// Bytes asked of a receiver at a time: a log needs some page tables and arrays, each in one or a few of these.
const BLOCK_BYTES: u64 = 256 * 1024;
/// Blocks that are kept: the tables are asked for again and again, the arrays once.
const BLOCKS_MAX: usize = 64;
/// Most characters shown: the largest ring that a kernel has is 32 MiB.
const CHARS_MAX: usize = 64 << 20;

/// Prints the log.
pub(super) fn run(source: &Source, id: &str, as_json: bool) -> Outcome {
    let info = source.info(id)?;
    match from_memory(open(source, &info)?) {
        Ok(log) => {
            if as_json {
                print_json(&info, &log)?;
            } else {
                output::line(server::lines(&log.to_text(), CHARS_MAX).trim_end())?;
            }
            if log.unreadable_records > 0 {
                let count = log.unreadable_records;
                output::say(&format!("{count} records of the log could not be read"));
            }
            Ok(Exit::Ok)
        }
        Err(why) => match info.note.and_then(|note| note.console_tail) {
            Some(tail) if !as_json => {
                output::say(&format!("{why}; this is the end of the guest's console instead"));
                output::line(tail.trim_end())?;
                Ok(Exit::Ok)
            }
            _ => Err(Failure::new(
                Exit::Failed,
                format!("core {} gives no kernel log: {why}", info.summary.id),
            )),
        },
    }
}

/// The log of a Linux kernel, or a sentence that says why there is none.
fn from_memory(file: Box<dyn FileBytes + '_>) -> Result<KernelLog, String> {
    let image = CoreImage::open(file).map_err(|why| why.to_string())?;
    let notes = CoreNotes::parse(&image.notes).map_err(|why| why.to_string())?;
    let vmcoreinfo = notes
        .vmcoreinfo
        .ok_or("it has no VMCOREINFO, by which a Linux kernel is read")?;
    let space = KernelSpace::new(&image.memory, vmcoreinfo).map_err(|why| why.to_string())?;
    KernelLog::read(&space, vmcoreinfo).map_err(|why| why.to_string())
}

fn print_json(info: &CoreInfo, log: &KernelLog) -> anyhow::Result<()> {
    let records = log.records.iter().map(|record| {
        let text = String::from_utf8_lossy(&record.text);
        json!({ "time_ns": record.time_ns, "text": text })
    });
    output::json(&json!({
        "schema_version": api::SCHEMA_VERSION,
        "id": info.summary.id,
        "records": records.collect::<Vec<_>>(),
        "unreadable_records": log.unreadable_records,
    }))
}

/// The core's bytes. What is lost is absent, not zero.
fn open<'s>(source: &'s Source, info: &CoreInfo) -> Result<Box<dyn FileBytes + 's>, Failure> {
    let id = &info.summary.id;
    let lost = info
        .summary
        .holes
        .iter()
        .map(|hole| (hole.offset, hole.offset + hole.length));
    let lost = lost.collect();
    let len_bytes = info.summary.file_len_bytes;
    Ok(match source {
        Source::Dir(cores) => {
            let path = cores.vmcore(id).map_err(|why| refused(&why))?.path;
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            Box::new(LocalFile { file, len_bytes, lost })
        }
        Source::Api(client) => Box::new(RemoteFile {
            client,
            path: vmcore_path(id),
            len_bytes,
            lost,
            blocks: RefCell::default(),
        }),
    })
}

/// A vmcore in a directory.
struct LocalFile {
    file: File,
    len_bytes: u64,
    lost: Vec<(u64, u64)>,
}

impl FileBytes for LocalFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = check(&self.lost, self.len_bytes, file_offset, bytes.len())?;
        self.file.read_exact_at(bytes, file_offset).map_err(|_| absent)
    }
}

/// A vmcore behind a receiver's API, read in blocks.
struct RemoteFile<'c> {
    client: &'c Client,
    path: String,
    len_bytes: u64,
    lost: Vec<(u64, u64)>,
    /// By number, oldest first.
    blocks: RefCell<Vec<(u64, Vec<u8>)>>,
}

impl FileBytes for RemoteFile<'_> {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = check(&self.lost, self.len_bytes, file_offset, bytes.len())?;
        let mut at = file_offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let skipped = usize::try_from(at % BLOCK_BYTES).map_err(|_| absent)?;
            let done = self.with_block(at / BLOCK_BYTES, |block| {
                let part = block.get(skipped..).unwrap_or_default();
                let len = part.len().min(rest.len());
                let (target, source) = (rest.get_mut(..len)?, part.get(..len)?);
                target.copy_from_slice(source);
                Some(len).filter(|len| *len > 0)
            });
            let done = done.flatten().ok_or(absent)?;
            rest = rest.get_mut(done..).ok_or(absent)?;
            at += done as u64;
        }
        Ok(())
    }
}

impl RemoteFile<'_> {
    /// Gives a block to `take`, fetched if need be; nothing if it cannot be had.
    fn with_block<T>(&self, number: u64, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let mut blocks = self.blocks.borrow_mut();
        if !blocks.iter().any(|(have, _)| *have == number) {
            let first = number * BLOCK_BYTES;
            let last = (first + BLOCK_BYTES).min(self.len_bytes) - 1;
            let mut block = Vec::new();
            let range = format!("bytes={first}-{last}");
            let got = self.client.download(&self.path, &[("range", &range)], &mut |bytes| {
                block.extend_from_slice(bytes);
                Ok(())
            });
            if let Err(why) = got {
                output::say(&why.to_string());
                return None;
            }
            if blocks.len() == BLOCKS_MAX {
                blocks.remove(0);
            }
            blocks.push((number, block));
        }
        blocks
            .iter()
            .find(|(have, _)| *have == number)
            .map(|(_, block)| take(block))
    }
}

/// Whether bytes are in the file and none of them is lost; gives the error for later use.
fn check(lost: &[(u64, u64)], len_bytes: u64, at: u64, len: usize) -> Result<Absent, Absent> {
    let absent = Absent { at, len_bytes: len };
    let end = at
        .checked_add(len as u64)
        .filter(|end| *end <= len_bytes)
        .ok_or(absent)?;
    let is_lost = lost.iter().any(|(start, lost_end)| *start < end && at < *lost_end);
    if is_lost { Err(absent) } else { Ok(absent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_bytes_are_absent_and_others_are_not() {
        let lost = [(4096, 8192)];
        for (at, len, is_there) in [
            (0, 4096, true),
            (0, 4097, false),
            (8191, 1, false),
            (8192, 100, true),
            (9000, 2000, false),
        ] {
            assert_eq!(check(&lost, 10_000, at, len).is_ok(), is_there, "{at} {len}");
        }
        assert!(check(&[], u64::MAX, u64::MAX, 2).is_err());
    }
}
