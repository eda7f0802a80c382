//! What the receiver's API serves.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use api::{
    CoreFileSource, CoreGroup, CoreInfo, CoreQuery, CoreService, CoreState, CoreSummary, ExtentPage, GroupQuery, Page,
    ServiceError,
};

use crate::admission::Admission;
use crate::cores::LocalCores;
use crate::ingest::Counters;

/// Space that must be free before new dumps are welcome: one small guest.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// The cores of a directory, as a service.
#[derive(Debug)]
pub struct CoreCatalogue {
    root: PathBuf,
    cores: Arc<LocalCores>,
    counters: Arc<Counters>,
    admission: Arc<Admission>,
}

impl CoreCatalogue {
    /// The service of a receiver.
    pub(crate) fn new(
        root: PathBuf,
        cores: Arc<LocalCores>,
        counters: Arc<Counters>,
        admission: Arc<Admission>,
    ) -> Self {
        Self {
            root,
            cores,
            counters,
            admission,
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

    fn ready(&self) -> Result<(), ServiceError> {
        let shown = self.root.display();
        let unavailable = |why: rustix::io::Errno| ServiceError::Unavailable(format!("cannot write to {shown}: {why}"));
        rustix::fs::access(&self.root, rustix::fs::Access::WRITE_OK).map_err(unavailable)?;
        let space = rustix::fs::statvfs(&self.root).map_err(unavailable)?;
        let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        if free_bytes < FREE_BYTES_MIN {
            return Err(ServiceError::Unavailable(format!(
                "{shown} has {free_bytes} bytes free, fewer than {FREE_BYTES_MIN}"
            )));
        }
        Ok(())
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
        text
    }
}

/// The same for a directory without a receiver: no numbers of sessions, never ready.
impl CoreService for LocalCores {
    fn list(&self, query: &CoreQuery) -> Result<Page<CoreSummary>, ServiceError> {
        self.page(query)
    }

    fn info(&self, id: &str) -> Result<CoreInfo, ServiceError> {
        Self::info(self, id)
    }

    fn groups(&self, query: &GroupQuery) -> Result<Page<CoreGroup>, ServiceError> {
        self.group_page(query)
    }

    fn extents(&self, id: &str, cursor: Option<&str>, limit: usize) -> Result<ExtentPage, ServiceError> {
        Self::extents(self, id, cursor, limit)
    }

    fn open_file(&self, id: &str, name: &str) -> Result<CoreFileSource, ServiceError> {
        Self::open_file(self, id, name)
    }

    fn ready(&self) -> Result<(), ServiceError> {
        Err(ServiceError::Unavailable("there is no receiver".to_owned()))
    }

    fn metrics(&self) -> String {
        String::new()
    }
}
