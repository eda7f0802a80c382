//! The cores of one directory: an index in memory over the manifests on disk. A database may take its place one day;
//! the manifests stay the truth.

use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use api::{
    ByteRange, CoreFile, CoreFileSource, CoreInfo, CoreQuery, CoreState, CoreSummary, DigestedExtent, ExtentPage, Page,
    SCHEMA_VERSION, ServiceError,
};
use jiff::Timestamp;

use crate::limits::CHUNK_BYTES;
use crate::store::manifest::Manifest;
use crate::store::verify::{Verified, verify};
use crate::store::{self, StoreError, chunks, facts, journal, layout};

/// The cores of a directory. Reading changes nothing on disk.
#[derive(Debug)]
pub struct LocalCores {
    root: PathBuf,
    /// Newest first.
    index: RwLock<Vec<Entry>>,
}

/// A stored core's memory image.
#[derive(Debug, Clone)]
pub struct StoredVmcore {
    /// Its line in the list.
    pub summary: CoreSummary,
    /// Where it is.
    pub path: PathBuf,
    /// Offset and length of every range that arrived, ascending.
    pub received: Vec<(u64, u64)>,
}

/// One core in the index.
#[derive(Debug, Clone)]
struct Entry {
    summary: CoreSummary,
    dump_id: Option<String>,
    dir: PathBuf,
}

impl LocalCores {
    /// Reads the manifests below `root`.
    ///
    /// # Errors
    /// When `root` is not a directory that can be read.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = store::open(root)?;
        let cores = Self {
            index: RwLock::new(Vec::new()),
            root,
        };
        cores.refresh();
        Ok(cores)
    }

    /// Whether `root` looks like a store at all.
    #[must_use]
    pub fn is_store(&self) -> bool {
        self.root.join(layout::CORES).is_dir() || self.root.join(layout::SPOOL).is_dir()
    }

    /// All cores, running sessions among them, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<CoreSummary> {
        let mut all: Vec<CoreSummary> = self.receiving().into_iter().map(|(summary, _)| summary).collect();
        all.extend(self.entries().into_iter().map(|entry| entry.summary));
        all.sort_by(|a, b| key(b).cmp(&key(a)));
        // A session may have become a core between the two looks.
        all.dedup_by(|a, b| a.id == b.id);
        all
    }

    /// The core that was made of the dump with this id at its sender.
    #[must_use]
    pub fn by_dump_id(&self, dump_id: &str) -> Option<CoreSummary> {
        let entries = self.entries().into_iter();
        entries
            .filter(|entry| entry.dump_id.as_deref() == Some(dump_id))
            .map(|entry| entry.summary)
            .next()
    }

    /// The stored core with this full id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<CoreSummary> {
        self.entries()
            .into_iter()
            .map(|entry| entry.summary)
            .find(|summary| summary.id == id)
    }

    /// The directory of a stored core. `id` is a full id, a unique prefix, or `latest`.
    ///
    /// # Errors
    /// As [`api::CoreService::info`].
    pub fn dir(&self, id: &str) -> Result<PathBuf, ServiceError> {
        Ok(self.resolve(id)?.dir)
    }

    /// Verifies a stored core. `id` as for [`LocalCores::dir`].
    ///
    /// # Errors
    /// As [`api::CoreService::info`]; [`ServiceError::Internal`] when the file cannot be read.
    pub fn verify(&self, id: &str) -> Result<Verified, ServiceError> {
        let entry = self.resolve(id)?;
        let manifest = read_manifest(&entry)?;
        verify(&entry.dir, &manifest)
            .map_err(|why| ServiceError::Internal(format!("cannot read the core {}: {why}", entry.summary.id)))
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
            received: manifest.coverage.received,
        })
    }

    /// A page of the list.
    pub(crate) fn page(&self, query: &CoreQuery) -> Result<Page<CoreSummary>, ServiceError> {
        let since = query.since.as_deref().map(parse_time).transpose()?;
        let after = query.cursor.as_deref().map(decode_cursor).transpose()?;
        let wanted = |core: &CoreSummary| {
            query.guest.as_ref().is_none_or(|guest| *guest == core.guest)
                && query
                    .signature
                    .as_ref()
                    .is_none_or(|wanted| Some(wanted) == core.signature.as_ref())
                && query.state.is_none_or(|state| state == core.state)
                && since.is_none_or(|since| parse_time(&core.received_at).is_ok_and(|time| time >= since))
                && after.as_ref().is_none_or(|after| cursor_text(core) < *after)
        };
        let mut items: Vec<CoreSummary> = self.all().into_iter().filter(wanted).collect();
        let more = items.len() > query.limit;
        items.truncate(query.limit);
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|last| encode_cursor(&cursor_text(last)));
        Ok(Page {
            schema_version: SCHEMA_VERSION,
            items,
            next_cursor,
        })
    }

    /// Everything about one core, or about a running session.
    pub(crate) fn info(&self, id: &str) -> Result<CoreInfo, ServiceError> {
        match self.resolve(id) {
            Ok(entry) => {
                let mut info = read_manifest(&entry)?.info();
                info.summary = entry.summary;
                Ok(info)
            }
            Err(ServiceError::NotFound { what, name }) => {
                let receiving = self.receiving();
                let mut matching = receiving
                    .into_iter()
                    .filter(|(summary, _)| !id.is_empty() && summary.id.starts_with(id));
                match (matching.next(), matching.next()) {
                    (Some((summary, head)), None) => Ok(receiving_info(summary, head)),
                    _ => Err(ServiceError::NotFound { what, name }),
                }
            }
            Err(why) => Err(why),
        }
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
            None if name == layout::MANIFEST => {
                let bytes = fs::read(entry.dir.join(layout::MANIFEST)).map_err(broken)?;
                (layout::MANIFEST, format!("blake3-{}", blake3::hash(&bytes).to_hex()))
            }
            None => return Err(missing()),
        };
        if ![
            layout::VMCORE,
            layout::INFO,
            layout::KERNEL_HEADER,
            layout::KEY,
            layout::MANIFEST,
        ]
        .contains(&name)
        {
            return Err(missing());
        }
        let file = File::open(entry.dir.join(name)).map_err(broken)?;
        let length_bytes = file.metadata().map_err(broken)?.len();
        Ok(CoreFileSource {
            file,
            length_bytes,
            etag,
            media_type: match name {
                layout::INFO => "text/plain; charset=utf-8",
                layout::MANIFEST => "application/json",
                _ => "application/octet-stream",
            },
        })
    }

    /// Adds a core that was just kept.
    pub(crate) fn insert(&self, dir: PathBuf, manifest: &Manifest) {
        let entry = Entry {
            summary: manifest.summary(),
            dump_id: manifest.dump_id.clone(),
            dir,
        };
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let at = index.partition_point(|other| key(&other.summary) > key(&entry.summary));
        index.insert(at, entry);
    }

    /// Reads all manifests anew.
    pub(crate) fn refresh(&self) {
        let mut found = Vec::new();
        for dir in core_dirs(&self.root.join(layout::CORES)) {
            match Manifest::read(&dir) {
                Ok(manifest) => found.push(Entry {
                    summary: manifest.summary(),
                    dump_id: manifest.dump_id.clone(),
                    dir,
                }),
                Err(why) => tracing::warn!("core left out: {why}"),
            }
        }
        found.sort_by(|a, b| key(&b.summary).cmp(&key(&a.summary)));
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// The stored cores whose records are still there, with their state as the disk shows it.
    fn entries(&self) -> Vec<Entry> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut entries = index;
        entries.retain_mut(|entry| {
            let has_file = entry.dir.join(layout::VMCORE).exists();
            if !has_file && !matches!(entry.summary.state, CoreState::Pruned | CoreState::RecordOnly) {
                entry.summary.state = CoreState::Missing;
            }
            has_file || entry.dir.join(layout::MANIFEST).exists()
        });
        entries
    }

    /// The stored core that `id` means.
    fn resolve(&self, id: &str) -> Result<Entry, ServiceError> {
        let entries = self.entries();
        let not_found = || ServiceError::NotFound {
            what: "core",
            name: id.to_owned(),
        };
        if id == "latest" {
            return entries.into_iter().next().ok_or_else(not_found);
        }
        if id.is_empty() {
            return Err(not_found());
        }
        let mut matching: Vec<Entry> = entries
            .into_iter()
            .filter(|entry| entry.summary.id.starts_with(id))
            .collect();
        match (matching.pop(), matching.len()) {
            (Some(entry), 0) => Ok(entry),
            (None, _) => Err(not_found()),
            (Some(_), more) => Err(ServiceError::BadRequest(format!(
                "`{id}` is the beginning of {} ids; give more of it",
                more + 1
            ))),
        }
    }

    /// The running sessions, and those that lost their receiver and wait for the next one.
    fn receiving(&self) -> Vec<(CoreSummary, journal::SessionHead)> {
        let Ok(listing) = fs::read_dir(self.root.join(layout::SPOOL)) else {
            return Vec::new();
        };
        let dirs = listing.filter_map(Result::ok).map(|entry| entry.path());
        dirs.filter_map(|dir| receiving_summary(&dir)).collect()
    }
}

/// What a list shows of a session directory.
fn receiving_summary(dir: &Path) -> Option<(CoreSummary, journal::SessionHead)> {
    let path = dir.join(layout::JOURNAL);
    let live = journal::is_live(&path).ok()?;
    let recovered = journal::look(&path).ok()?;
    let header = store::commit::parse_header(&fs::read(dir.join(layout::KERNEL_HEADER)).unwrap_or_default());
    let read_facts = || {
        let file = File::open(dir.join(layout::VMCORE_PART)).ok()?;
        facts::Facts::read(&file, &recovered.received).ok()
    };
    let facts = read_facts().unwrap_or_default();
    let head = recovered.head;
    let received = recovered.received;
    let announced = store::examine::announced_len(header.as_ref()).unwrap_or(0);
    let gaps = received.gaps(0..received.end());
    let holes = |live: bool| match live {
        // What has not come yet is not lost.
        true => Vec::new(),
        false => gaps
            .map(|gap| ByteRange {
                offset: gap.start,
                length: gap.end - gap.start,
            })
            .collect(),
    };
    let summary = CoreSummary {
        id: head.id.clone(),
        guest: facts.guest(header.as_ref(), head.herald_label.as_deref(), &head.client_addr),
        client_addr: head.client_addr.clone(),
        received_at: head.started_at.clone(),
        state: if live {
            CoreState::Receiving
        } else {
            CoreState::Incomplete
        },
        panic: facts.panic(header.as_ref()),
        signature: None,
        format: if facts.format.is_empty() {
            "unknown"
        } else {
            facts.format
        }
        .to_owned(),
        file_len_bytes: announced.max(received.end()),
        stored_bytes: received.covered_bytes(),
        holes: holes(live),
        kernel: facts.kernel(header.as_ref()),
    };
    Some((summary, head))
}

/// What is known of a running session.
fn receiving_info(summary: CoreSummary, head: journal::SessionHead) -> CoreInfo {
    let reason = match summary.state {
        CoreState::Receiving => "it is still being received",
        _ => "the receiver ended before the sender had finished; the next one will keep what came",
    };
    CoreInfo {
        schema_version: SCHEMA_VERSION,
        reason: Some(reason.to_owned()),
        started_at: head.started_at,
        server_addr: head.server_addr,
        herald_label: head.herald_label,
        zero_bytes: 0,
        excluded_bytes: 0,
        lost_bytes: summary.holes.iter().map(|range| range.length).sum(),
        kernel_header: None,
        note: None,
        duplicate_packets: 0,
        repaired: false,
        files: Vec::new(),
        summary,
    }
}

/// All directories `<yyyy>/<mm>/<id>` below `cores`.
fn core_dirs(cores: &Path) -> Vec<PathBuf> {
    let children = |dir: &Path, wanted: fn(&str) -> bool| -> Vec<PathBuf> {
        let listing = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        let named = listing.filter(|entry| entry.file_name().to_str().is_some_and(wanted));
        named.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let digits = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let years = children(cores, digits);
    let months = years.iter().flat_map(|year| children(year, digits));
    months.flat_map(|month| children(&month, layout::is_id)).collect()
}

/// Reads an entry's manifest.
fn read_manifest(entry: &Entry) -> Result<Manifest, ServiceError> {
    Manifest::read(&entry.dir).map_err(|why| ServiceError::Internal(why.to_string()))
}

/// What cores are sorted by.
fn key(core: &CoreSummary) -> (&str, &str) {
    (&core.received_at, &core.id)
}

/// The same as one text.
fn cursor_text(core: &CoreSummary) -> String {
    format!("{} {}", core.received_at, core.id)
}

/// A cursor that callers do not take apart.
fn encode_cursor(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The text in a cursor.
fn decode_cursor(cursor: &str) -> Result<String, ServiceError> {
    let bad = || ServiceError::BadRequest(format!("`{cursor}` is not a cursor of this list"));
    let digits = cursor.as_bytes();
    if !cursor.is_ascii() || !digits.len().is_multiple_of(2) || digits.len() > 512 {
        return Err(bad());
    }
    let bytes: Option<Vec<u8>> = digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad)
}

/// A time in a query or a record.
fn parse_time(text: &str) -> Result<Timestamp, ServiceError> {
    text.parse()
        .map_err(|_| ServiceError::BadRequest(format!("`{text}` is not a time; write it as 2026-01-31T12:00:00Z")))
}
