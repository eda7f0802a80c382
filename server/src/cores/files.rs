//! What is in a stored core's directory: its files, and its ranges with their digests.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::path::PathBuf;

use api::{ByteRange, CoreFile, CoreFileSource, CoreSummary, DigestedExtent, ExtentPage, SCHEMA_VERSION, ServiceError};

use super::{LocalCores, read_manifest};
use crate::explain::VmcoreBytes;
use crate::limits::CHUNK_BYTES;
use crate::store::{chunks, layout};

/// A stored core's memory image.
#[derive(Debug, Clone)]
pub struct StoredVmcore {
    /// Its line in the list.
    pub summary: CoreSummary,
    /// Where it is.
    pub path: PathBuf,
    /// Offset and length of every range that arrived, ascending.
    pub received: Vec<(u64, u64)>,
    /// Of each chunk (of [`CHUNK_BYTES`]) with received bytes its number, and the BLAKE3 digest of these, one after another.
    pub chunk_digests: BTreeMap<u64, [u8; 32]>,
}

impl LocalCores {
    /// The bytes of a stored core's vmcore: what is lost is absent.
    ///
    /// # Errors
    /// As [`api::CoreService::info`].
    pub fn vmcore_bytes(&self, id: &str) -> Result<VmcoreBytes, ServiceError> {
        let entry = self.resolve(id)?;
        VmcoreBytes::open(&entry.dir, &read_manifest(&entry)?)
            .map_err(|why| ServiceError::Internal(format!("cannot open the core {}: {why}", entry.summary.id)))
    }

    /// The path of a stored core's vmcore and the ranges that arrived, for a copy that keeps the holes.
    ///
    /// # Errors
    /// As [`api::CoreService::info`].
    pub fn vmcore(&self, id: &str) -> Result<StoredVmcore, ServiceError> {
        let entry = self.resolve(id)?;
        let manifest = read_manifest(&entry)?;
        Ok(StoredVmcore {
            path: entry.dir.join(layout::VMCORE),
            summary: entry.summary,
            chunk_digests: manifest.chunk_digests(),
            received: manifest.coverage.received,
        })
    }

    /// The ranges that arrived, ascending.
    pub(crate) fn received(&self, id: &str) -> Result<Vec<ByteRange>, ServiceError> {
        let manifest = read_manifest(&self.resolve(id)?)?;
        let ranges = manifest.coverage.received.into_iter();
        Ok(ranges.map(|(offset, length)| ByteRange { offset, length }).collect())
    }

    /// Received ranges with their digests.
    pub(crate) fn extents(&self, id: &str, cursor: Option<&str>, limit: usize) -> Result<ExtentPage, ServiceError> {
        let entry = self.resolve(id)?;
        let manifest = read_manifest(&entry)?;
        let from: u64 = match cursor {
            None => 0,
            Some(text) => text
                .parse()
                .map_err(|_| ServiceError::BadRequest(format!("`{text}` is not a cursor of this list")))?,
        };
        let received = manifest.received();
        let kept = manifest.chunk_digests();
        let unreadable = |why: std::io::Error| ServiceError::Internal(format!("cannot read the core {id}: {why}"));
        let file = File::open(entry.dir.join(layout::VMCORE)).map_err(unreadable)?;
        let mut items = Vec::new();
        let mut next_cursor = None;
        for (index, digest) in kept.range(from / CHUNK_BYTES..) {
            let ranges = chunks::received_in(&received, *index);
            let whole_chunk_is_one = ranges.len() == 1;
            for range in ranges.into_iter().filter(|range| range.start >= from) {
                if items.len() == limit {
                    next_cursor = Some(range.start.to_string());
                    break;
                }
                let digest = if whole_chunk_is_one {
                    *digest
                } else {
                    chunks::digest_of(&file, std::slice::from_ref(&range)).map_err(unreadable)?
                };
                items.push(DigestedExtent {
                    offset: range.start,
                    length: range.end - range.start,
                    digest: format!("blake3:{}", chunks::hex(&digest)),
                });
            }
            if next_cursor.is_some() {
                break;
            }
        }
        Ok(ExtentPage {
            schema_version: SCHEMA_VERSION,
            file_len_bytes: manifest.file_len_bytes,
            items,
            lost: manifest.coverage.lost,
            next_cursor,
        })
    }

    /// Opens one file of a core.
    pub(crate) fn open_file(&self, id: &str, name: &str) -> Result<CoreFileSource, ServiceError> {
        let entry = self.resolve(id)?;
        let manifest = read_manifest(&entry)?;
        let missing = || ServiceError::NotFound {
            what: "file",
            name: format!("{name} of core {}", entry.summary.id),
        };
        let broken = |why: std::io::Error| match why.kind() {
            std::io::ErrorKind::NotFound => missing(),
            _ => ServiceError::Internal(format!("cannot open {name} of core {}: {why}", entry.summary.id)),
        };
        // The name never becomes a path unless it is one of ours.
        let listed = manifest.files.iter().find(|file| file.name == name);
        let (name, etag) = match listed {
            Some(CoreFile { name, digest, .. }) => (name.as_str(), digest.replace(':', "-")),
            None if [layout::MANIFEST, layout::EXPLANATION].contains(&name) => {
                let bytes = fs::read(entry.dir.join(name)).map_err(broken)?;
                (name, format!("blake3-{}", blake3::hash(&bytes).to_hex()))
            }
            None => return Err(missing()),
        };
        if ![
            layout::VMCORE,
            layout::VMCORE_GZIP,
            layout::VMCORE_ZSTD,
            layout::INFO,
            layout::KERNEL_HEADER,
            layout::KEY,
            layout::MANIFEST,
            layout::EXPLANATION,
        ]
        .contains(&name)
        {
            return Err(missing());
        }
        let file = File::open(entry.dir.join(name)).map_err(broken)?;
        let length_bytes = file.metadata().map_err(broken)?.len();
        Ok(CoreFileSource {
            core: entry.summary.id.clone(),
            file,
            length_bytes,
            etag,
            media_type: match name {
                layout::INFO => "text/plain; charset=utf-8",
                layout::MANIFEST | layout::EXPLANATION => "application/json",
                _ => "application/octet-stream",
            },
        })
    }
}
