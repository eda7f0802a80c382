//! The cores of one directory: an index in memory over the manifests on disk. A database may take its place one day;
//! the manifests stay the truth.

mod edits;
mod files;
mod groups;
mod list;
mod receiving;

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use api::{CoreInfo, CoreState, CoreSummary, Explanation, ServiceError};

pub use self::files::StoredVmcore;
use self::receiving::receiving_info;
use crate::explain;
use crate::store::manifest::Manifest;
use crate::store::verify::{Verified, verify};
use crate::store::{self, StoreError, layout};

/// The cores of a directory. Reading changes nothing on disk.
#[derive(Debug)]
pub struct LocalCores {
    root: PathBuf,
    /// Newest first.
    index: RwLock<Vec<Entry>>,
}

/// One core in the index.
#[derive(Debug, Clone)]
struct Entry {
    summary: CoreSummary,
    dump_id: Option<String>,
    dir: PathBuf,
}

impl Entry {
    fn new(dir: PathBuf, manifest: &Manifest) -> Self {
        let mut entry = Self {
            summary: manifest.summary(),
            dump_id: manifest.dump_id.clone(),
            dir,
        };
        if let Some(explanation) = explain::read(&entry.dir) {
            entry.tell(&explanation);
        }
        entry.summary.pinned = edits::read(&entry.dir).pinned;
        entry
    }

    /// Adds what was derived from the core to what its manifest says, which comes first.
    fn tell(&mut self, explanation: &Explanation) {
        if let Some(crash) = &explanation.crash {
            self.summary.signature = Some(crash.signature.clone());
            self.summary.panic = self.summary.panic.take().or_else(|| crash.panic.clone());
        }
        if self.summary.kernel.is_none() {
            let release = explanation.release.clone();
            self.summary.kernel = release.or_else(|| explanation.banner.clone());
        }
    }
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

    /// Everything about one core, or about a running session. `id` as for [`LocalCores::dir`].
    ///
    /// # Errors
    /// As [`api::CoreService::info`].
    pub fn info(&self, id: &str) -> Result<CoreInfo, ServiceError> {
        match self.resolve(id) {
            Ok(mut entry) => {
                let mut info = read_manifest(&entry)?.info();
                if let Some(explanation) = explain::read(&entry.dir) {
                    // The index may hear of it a moment later.
                    entry.tell(&explanation);
                    info.build_id = explanation.build_id;
                    info.banner = explanation.banner;
                    info.kernel_offset = explanation.kernel_offset;
                    info.booted_at = explanation.booted_at;
                    info.uptime_ms = explanation.uptime_ms;
                    info.cpus = explanation.cpus;
                    info.log_source = explanation.log_source;
                    info.problems = explanation.problems;
                    info.crash = explanation.crash;
                }
                info.summary = entry.summary;
                info.group = self.place_in_group(&info.summary);
                info.written = edits::read(&entry.dir);
                info.summary.pinned = info.written.pinned;
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

    /// Adds a core that was just kept. One that a look at the disk has found already is not there twice.
    pub(crate) fn insert(&self, dir: PathBuf, manifest: &Manifest) {
        let entry = Entry::new(dir, manifest);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.retain(|other| other.dir != entry.dir);
        let at = index.partition_point(|other| key(&other.summary) > key(&entry.summary));
        index.insert(at, entry);
    }

    /// What a core tells is known now.
    pub(crate) fn explained(&self, dir: &Path, explanation: &Explanation) {
        self.change(dir, |entry| entry.tell(explanation));
    }

    /// Changes what the index says of the core in `dir`.
    fn change(&self, dir: &Path, change: impl FnOnce(&mut Entry)) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = index.iter_mut().find(|entry| entry.dir == dir) {
            change(entry);
        }
    }

    /// Takes a core off the index.
    fn forget(&self, dir: &Path) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.retain(|entry| entry.dir != dir);
    }

    /// Reads all manifests anew.
    pub(crate) fn refresh(&self) {
        let mut found = Vec::new();
        for dir in core_dirs(&self.root.join(layout::CORES)) {
            match Manifest::read(&dir) {
                Ok(manifest) => found.push(Entry::new(dir, &manifest)),
                Err(why) => tracing::warn!("core left out: {why}"),
            }
        }
        found.sort_by(|a, b| key(&b.summary).cmp(&key(&a.summary)));
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// What was found out about a core's crash, if anything was.
    pub(crate) fn explanation(&self, id: &str) -> Result<Option<Explanation>, ServiceError> {
        Ok(explain::read(&self.resolve(id)?.dir))
    }

    /// The guest's address and the stored bytes of each core that is on disk.
    pub(crate) fn stored_bytes(&self) -> Vec<(Ipv4Addr, u64)> {
        let on_disk = self.entries().into_iter().map(|entry| entry.summary);
        let on_disk = on_disk.filter(|core| !matches!(core.state, CoreState::Missing | CoreState::Pruned));
        let counted = on_disk.filter_map(|core| {
            let address: SocketAddrV4 = core.client_addr.parse().ok()?;
            Some((*address.ip(), core.stored_bytes))
        });
        counted.collect()
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
