//! `manifest.json`: the truth about a core. It is written once and never changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use api::{
    ByteRange, CoreFile, CoreInfo, CoreLabels, CoreState, CoreSummary, KernelHeaderFacts, NoteFacts, SCHEMA_VERSION,
};
use netdump::Extents;
use serde::{Deserialize, Serialize};

use super::chunks::{self, Digest};
use super::layout;
use crate::limits::{CHUNK_BYTES, EXTENTS_MAX, MANIFEST_BYTES_MAX};

/// What arrived, from whom, how much of it, and its digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of this object.
    pub schema_version: u32,
    /// Id of the core and of the session that brought it.
    pub id: String,
    /// What became of it.
    pub state: CoreState,
    /// Why it is not complete, in a sentence.
    pub reason: Option<String>,
    /// Name of the guest.
    pub guest: String,
    /// Operating system and release of the guest.
    pub kernel: Option<String>,
    /// Panic text.
    pub panic: Option<String>,
    /// Kind of file: `elf`, `minidump`, `kdump`, `gzip`, `zstd`, `encrypted`, `unknown`.
    pub format: String,
    /// When the session began. RFC 3339, UTC.
    pub started_at: String,
    /// When the core was kept. RFC 3339, UTC.
    pub received_at: String,
    /// `ADDRESS:PORT` of the sender.
    pub client_addr: String,
    /// `ADDRESS:PORT` that it dialled.
    pub server_addr: String,
    /// The herald's path: a label.
    pub herald_label: Option<String>,
    /// Id of the dump at its sender.
    pub dump_id: Option<String>,
    /// Length of the vmcore, holes included.
    pub file_len_bytes: u64,
    /// Bytes that arrived.
    pub stored_bytes: u64,
    /// What is covered and what is not.
    pub coverage: Coverage,
    /// Digests of the vmcore.
    pub digests: Digests,
    /// The kernel dump header.
    pub kernel_header: Option<KernelHeaderFacts>,
    /// The sender's note.
    pub note: Option<NoteFacts>,
    /// Datagrams that came more than once.
    pub duplicate_packets: u64,
    /// Whether the first page had been sent to a wrong place and was put into its own.
    #[serde(default)]
    pub repaired: bool,
    /// The files beside this one.
    pub files: Vec<CoreFile>,
}

/// Ranges of the vmcore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Coverage {
    /// Offset and length of every range that arrived, ascending.
    pub received: Vec<(u64, u64)>,
    /// Bytes that did not arrive and that the file's own trailer declares to be zero.
    pub zero_bytes: u64,
    /// Bytes that did not arrive and that the trailer declares to be left out.
    pub excluded_bytes: u64,
    /// Ranges that are lost.
    pub lost: Vec<ByteRange>,
}

/// Digests of the vmcore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digests {
    /// How: `blake3`.
    pub algorithm: String,
    /// Length of a chunk.
    pub chunk_len_bytes: u64,
    /// Index of each chunk that has received bytes, and the digest over those bytes in file order.
    pub chunks: Vec<(u64, String)>,
    /// Digest over length, received ranges and chunk digests.
    pub root: String,
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a manifest.
    #[error("{path} is not a manifest: {why}")]
    Malformed {
        /// Its path.
        path: String,
        /// Why not.
        why: String,
    },
}

impl Manifest {
    /// Reads the manifest of a core's directory.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub(crate) fn read(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(layout::MANIFEST);
        let shown = || path.display().to_string();
        let read = || {
            let mut text = Vec::new();
            File::open(&path)?.take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|source| ManifestError::Read { path: shown(), source })?;
        let malformed = |why: String| ManifestError::Malformed { path: shown(), why };
        let manifest: Self = serde_json::from_slice(&text).map_err(|why| malformed(why.to_string()))?;
        match manifest.schema_version {
            SCHEMA_VERSION => Ok(manifest),
            other => Err(malformed(format!(
                "it has version {other}, this program knows version {SCHEMA_VERSION}"
            ))),
        }
    }

    /// The ranges that arrived.
    #[must_use]
    pub(crate) fn received(&self) -> Extents {
        let mut received = Extents::new(EXTENTS_MAX);
        for (offset, length) in &self.coverage.received {
            let _ = received.insert(*offset..offset.saturating_add(*length));
        }
        received
    }

    /// The chunk digests by index; those that cannot be read are left out.
    pub(crate) fn chunk_digests(&self) -> BTreeMap<u64, Digest> {
        let digests = self.digests.chunks.iter();
        digests
            .filter_map(|(index, text)| Some((*index, chunks::from_hex(text)?)))
            .collect()
    }

    /// Its line in a list.
    #[must_use]
    pub(crate) fn summary(&self) -> CoreSummary {
        CoreSummary {
            id: self.id.clone(),
            guest: self.guest.clone(),
            client_addr: self.client_addr.clone(),
            received_at: self.received_at.clone(),
            state: self.state,
            panic: self.panic.clone(),
            signature: None,
            format: self.format.clone(),
            file_len_bytes: self.file_len_bytes,
            stored_bytes: self.stored_bytes,
            holes: self.coverage.lost.clone(),
            kernel: self.kernel.clone(),
            pinned: false,
        }
    }

    /// Everything that callers may know.
    #[must_use]
    pub(crate) fn info(&self) -> CoreInfo {
        CoreInfo {
            schema_version: SCHEMA_VERSION,
            summary: self.summary(),
            reason: self.reason.clone(),
            started_at: self.started_at.clone(),
            server_addr: self.server_addr.clone(),
            herald_label: self.herald_label.clone(),
            zero_bytes: self.coverage.zero_bytes,
            excluded_bytes: self.coverage.excluded_bytes,
            lost_bytes: self.coverage.lost.iter().map(|range| range.length).sum(),
            kernel_header: self.kernel_header.clone(),
            note: self.note.clone(),
            duplicate_packets: self.duplicate_packets,
            repaired: self.repaired,
            crash: None,
            banner: None,
            build_id: None,
            kernel_offset: None,
            booted_at: None,
            uptime_ms: None,
            cpus: Vec::new(),
            log_source: None,
            problems: Vec::new(),
            group: None,
            files: self.files.clone(),
            written: CoreLabels::default(),
        }
    }
}

impl Digests {
    /// The digests of a file of this length.
    pub(crate) fn new(file_len_bytes: u64, received: &Extents, chunks: &BTreeMap<u64, Digest>) -> Self {
        Self {
            algorithm: "blake3".to_owned(),
            chunk_len_bytes: CHUNK_BYTES,
            chunks: chunks
                .iter()
                .map(|(index, digest)| (*index, chunks::hex(digest)))
                .collect(),
            root: root(file_len_bytes, received, chunks),
        }
    }
}

/// The digest of a whole vmcore, made of what is known without reading it again.
pub(crate) fn root(file_len_bytes: u64, received: &Extents, chunks: &BTreeMap<u64, Digest>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file_len_bytes.to_be_bytes());
    for range in received {
        hasher.update(&range.start.to_be_bytes());
        hasher.update(&range.end.to_be_bytes());
    }
    for (index, digest) in chunks {
        hasher.update(&index.to_be_bytes());
        hasher.update(digest);
    }
    hasher.finalize().to_hex().to_string()
}
