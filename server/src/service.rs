//! What the receiver's API serves.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::{
    ByteRange, Check, CoreEdit, CoreFileSource, CoreGroup, CoreInfo, CoreQuery, CoreService, CoreState, CoreSummary,
    DeadLetter, Deed, EventLog, Explanation, ExtentPage, GroupQuery, Health, Page, SCHEMA_VERSION, ServiceError,
};

use crate::admission::{self, Admission, Share, Space};
use crate::audit::Audit;
use crate::cores::LocalCores;
use crate::events;
use crate::ingest::Counters;
use crate::webhooks;

/// The cores of a receiver, as a service.
#[derive(Debug)]
pub struct CoreCatalogue {
    root: PathBuf,
    cores: Arc<LocalCores>,
    counters: Arc<Counters>,
    admission: Arc<Admission>,
    events: Arc<EventLog>,
    audit: Audit,
}

impl CoreCatalogue {
    /// The service of a receiver.
    pub(crate) fn new(
        root: PathBuf,
        cores: Arc<LocalCores>,
        counters: Arc<Counters>,
        admission: Arc<Admission>,
        events: Arc<EventLog>,
    ) -> Self {
        Self {
            audit: Audit::new(&root),
            root,
            cores,
            counters,
            admission,
            events,
        }
    }
}

impl CoreService for CoreCatalogue {
    fn list(&self, query: &CoreQuery) -> Result<Page<CoreSummary>, ServiceError> {
        self.cores.page(query)
    }

    fn info(&self, id: &str) -> Result<CoreInfo, ServiceError> {
        self.cores.info(id)
    }

    fn groups(&self, query: &GroupQuery) -> Result<Page<CoreGroup>, ServiceError> {
        self.cores.group_page(query)
    }

    fn extents(&self, id: &str, cursor: Option<&str>, limit: usize) -> Result<ExtentPage, ServiceError> {
        self.cores.extents(id, cursor, limit)
    }

    fn open_file(&self, id: &str, name: &str) -> Result<CoreFileSource, ServiceError> {
        self.cores.open_file(id, name)
    }

    fn explanation(&self, id: &str) -> Result<Option<Explanation>, ServiceError> {
        self.cores.explanation(id)
    }

    fn received(&self, id: &str) -> Result<Vec<ByteRange>, ServiceError> {
        self.cores.received(id)
    }

    fn edit(&self, id: &str, edit: &CoreEdit, if_match: &str, by: &str) -> Result<CoreInfo, ServiceError> {
        let info = self.cores.edit(id, edit, if_match, by)?;
        events::tell(&self.events, "core.changed", events::of_core(&info.summary));
        Ok(info)
    }

    fn remove(&self, id: &str, by: &str) -> Result<(), ServiceError> {
        let info = self.cores.remove_by(id, by)?;
        events::tell(&self.events, "core.removed", events::of_core(&info.summary));
        Ok(())
    }

    fn health(&self) -> Health {
        let space = admission::space_of(&self.root);
        let all = self.cores.all();
        let stored_bytes = all.iter().map(|core| core.stored_bytes).sum();
        let checks = vec![
            writable(&self.root),
            free(&self.root, space, self.admission.limits.free_min),
        ];
        Health {
            schema_version: SCHEMA_VERSION,
            ready: checks.iter().all(|check| check.ok),
            checks,
            size_bytes: space.size_bytes,
            free_bytes: space.free_bytes,
            stored_bytes,
            quota_bytes: self.admission.limits.total_max.of(space.size_bytes),
            cores: all.len() as u64,
            oldest_core: all.last().map(|core| core.received_at.clone()),
            sessions: self.counters.sessions_now.load(Ordering::Relaxed),
            kernel_drops: self.counters.kernel_drops.load(Ordering::Relaxed),
            last_canary: last_canary(&all),
        }
    }

    fn dead_letters(&self, cursor: Option<&str>, limit: usize) -> Result<Page<DeadLetter>, ServiceError> {
        let all = webhooks::dead_letters(&self.root);
        let mut all = all.map_err(|why| ServiceError::Internal(format!("the dead letters cannot be read: {why}")))?;
        if let Some(cursor) = cursor {
            let plain = |byte: u8| byte.is_ascii_digit() || byte == b'-';
            if !cursor.bytes().all(plain) {
                return Err(ServiceError::BadRequest(format!(
                    "`{cursor}` is not a cursor of this list"
                )));
            }
            all.retain(|letter| letter.id.as_str() < cursor);
        }
        let more = all.len() > limit;
        all.truncate(limit);
        Ok(Page {
            schema_version: SCHEMA_VERSION,
            next_cursor: all.last().filter(|_| more).map(|last| last.id.clone()),
            items: all,
        })
    }

    fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.events)
    }

    fn audit(&self, deed: &Deed<'_>) {
        self.audit.note(deed);
    }

    fn metrics(&self) -> String {
        let mut text = self.counters.render();
        text.push_str(&self.admission.refusals.render());
        let all = self.cores.all();
        text.push_str("# HELP coreferry_cores Cores that are listed, by state.\n# TYPE coreferry_cores gauge\n");
        for state in CoreState::ALL {
            let count = all.iter().filter(|core| core.state == state).count();
            let _ = writeln!(text, "coreferry_cores{{state=\"{state}\"}} {count}");
        }
        gauges(&mut text, &self.health());
        text
    }
}

/// Numbers that are made from the health.
fn gauges(text: &mut String, health: &Health) {
    let canary = health
        .last_canary
        .as_deref()
        .and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let mut gauge = |name: &str, help: &str, value: f64| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    };
    // Exact up to 8 PiB: what Prometheus itself keeps.
    #[allow(
        clippy::cast_precision_loss,
        reason = "samples are 64-bit floating point numbers by their format"
    )]
    let float = |count: u64| count as f64;
    gauge(
        "coreferry_spool_free_bytes",
        "Free bytes of the file system that holds the cores.",
        float(health.free_bytes),
    );
    gauge(
        "coreferry_stored_bytes",
        "Bytes of all cores.",
        float(health.stored_bytes),
    );
    let ratio = if health.quota_bytes == 0 {
        1.0
    } else {
        float(health.stored_bytes) / float(health.quota_bytes)
    };
    gauge(
        "coreferry_quota_ratio",
        "Bytes of all cores in relation to what they may take.",
        ratio,
    );
    #[allow(clippy::cast_precision_loss, reason = "as above")]
    let canary = canary.map_or(0.0, |time| time.as_second() as f64);
    let help = "When the last canary came through whole; 0 if none did.";
    gauge("coreferry_last_canary_success_timestamp_seconds", help, canary);
}

/// When the last canary came through.
fn last_canary(newest_first: &[CoreSummary]) -> Option<String> {
    let whole = |core: &&CoreSummary| core.format == crate::CANARY_FORMAT && core.state == CoreState::Complete;
    newest_first.iter().find(whole).map(|core| core.received_at.clone())
}

fn writable(root: &Path) -> Check {
    let shown = root.display();
    let access = rustix::fs::access(root, rustix::fs::Access::WRITE_OK);
    Check {
        name: "store-writable".to_owned(),
        ok: access.is_ok(),
        detail: match access {
            Ok(()) => format!("{shown} can be written"),
            Err(why) => format!("cannot write to {shown}: {why}"),
        },
    }
}

/// Whether there is room for a dump: admission refuses what would take more.
fn free(root: &Path, space: Space, free_min: Share) -> Check {
    let (shown, free_bytes) = (root.display(), space.free_bytes);
    let kept_bytes = free_min.of(space.size_bytes);
    let ok = free_bytes > kept_bytes;
    Check {
        name: "free-space".to_owned(),
        ok,
        detail: if ok {
            format!("{shown} has {free_bytes} bytes free")
        } else {
            format!(
                "{shown} has {free_bytes} bytes free, and {kept_bytes} are to stay free (free-min): no dump is taken"
            )
        },
    }
}
