//! A core's bytes, from a directory or from a receiver's API.

use std::cell::RefCell;

use api::{ByteRange, Client, CoreInfo};
use vmcore::image::{Absent, FileBytes};

use super::source::{Source, refused, vmcore_path};
use crate::cli_failure::Failure;
use crate::output;

/// Bytes asked of a receiver at a time: a log needs some page tables and arrays, each in one or a few of these.
const BLOCK_BYTES: u64 = 256 * 1024;
/// Blocks that are kept: the tables are asked for again and again, the arrays once.
const BLOCKS_MAX: usize = 64;

/// The core's bytes. What is lost is absent, not zero.
pub(super) fn open<'s>(source: &'s Source, info: &CoreInfo) -> Result<Box<dyn FileBytes + 's>, Failure> {
    let id = &info.summary.id;
    Ok(match source {
        Source::Dir(cores) => Box::new(cores.vmcore_bytes(id).map_err(|why| refused(&why))?),
        Source::Api(client) => Box::new(RemoteFile {
            client,
            path: vmcore_path(id),
            len_bytes: info.summary.file_len_bytes,
            lost: info.summary.holes.clone(),
            blocks: RefCell::default(),
        }),
    })
}

/// A vmcore behind a receiver's API, read in blocks.
struct RemoteFile<'c> {
    client: &'c Client,
    path: String,
    len_bytes: u64,
    lost: Vec<ByteRange>,
    /// By number, oldest first.
    blocks: RefCell<Vec<(u64, Vec<u8>)>>,
}

impl FileBytes for RemoteFile<'_> {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        let absent = Absent {
            at: file_offset,
            len_bytes: bytes.len(),
        };
        let end = file_offset.checked_add(bytes.len() as u64).ok_or(absent)?;
        let is_lost = |range: &ByteRange| range.offset < end && file_offset < range.offset.saturating_add(range.length);
        if end > self.len_bytes || self.lost.iter().any(is_lost) {
            return Err(absent);
        }
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
