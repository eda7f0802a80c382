//! What the routers call: one trait for machines, one for cores.
//!
//! The methods block (they read disks and talk to threads); the routers call them off the event loop.

use std::fs::File;

use std::sync::Arc;

use crate::events::EventLog;
use crate::types::core::{ByteRange, CoreInfo, CoreState, CoreSummary, ExtentPage};
use crate::types::dead_letter::DeadLetter;
use crate::types::dump::{Dump, DumpRequest};
use crate::types::edit::CoreEdit;
use crate::types::explanation::{CoreGroup, Explanation};
use crate::types::health::Health;
use crate::types::page::Page;
use crate::types::problem::Problem;
use crate::types::vm::{VmInfo, VmSummary};

/// Why a service could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is nothing of that name.
    #[error("{what} {name} does not exist")]
    NotFound {
        /// Kind of thing, such as `core`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// Something that exists already is in the way.
    #[error("{detail}")]
    Conflict {
        /// What is in the way, in a sentence.
        detail: String,
        /// Path of the resource that is in the way.
        existing: String,
    },
    /// The thing exists, but its present state does not allow this.
    #[error("{0}")]
    WrongState(String),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// It is not known who the caller is.
    #[error("{0}")]
    Unauthenticated(String),
    /// The thing is not any more what the caller believes it to be.
    #[error("{0}")]
    Changed(String),
    /// The caller has to say what it believes the thing to be.
    #[error("{0}")]
    ConditionMissing(String),
    /// The service is stopping, or a part that it needs is away.
    #[error("{0}")]
    Unavailable(String),
    /// Something broke on this side.
    #[error("{0}")]
    Internal(String),
}

impl ServiceError {
    /// The problem that a caller sees.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::NotFound { .. } => Problem::new(404, "not-found", "Not found", detail),
            Self::Conflict { existing, .. } => {
                let mut problem = Problem::new(409, "conflict", "Conflict with something that exists", detail);
                problem.existing = Some(existing.clone());
                problem
            }
            Self::WrongState(_) => Problem::new(409, "wrong-state", "Not possible in this state", detail),
            Self::BadRequest(_) => Problem::new(400, "bad-request", "Bad request", detail),
            Self::Denied(_) => Problem::new(403, "denied", "Denied", detail),
            Self::Unauthenticated(_) => Problem::new(401, "unauthenticated", "Who are you?", detail),
            Self::Changed(_) => Problem::new(412, "changed", "It was changed meanwhile", detail),
            Self::ConditionMissing(_) => Problem::new(428, "condition-missing", "A condition is missing", detail),
            Self::Unavailable(_) => Problem::new(503, "unavailable", "Unavailable", detail),
            Self::Internal(_) => Problem::new(500, "internal", "Internal error", detail),
        }
    }
}

/// Which cores a list should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CoreQuery {
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// Most items.
    pub limit: usize,
    /// Only cores of this guest.
    pub guest: Option<String>,
    /// Only cores with this signature.
    pub signature: Option<String>,
    /// Only cores in this state.
    pub state: Option<CoreState>,
    /// Only cores received at this time or later, RFC 3339.
    pub since: Option<String>,
}

/// Which groups of cores a list should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupQuery {
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// Most items.
    pub limit: usize,
}

/// Something that has to be accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deed<'a> {
    /// Who did it: the name of a token, a user id, an address.
    pub by: &'a str,
    /// What, such as `download`.
    pub what: &'static str,
    /// The core.
    pub core: &'a str,
    /// Its file, for a download.
    pub file: Option<&'a str>,
    /// First byte and number of bytes, for a download of a part.
    pub range: Option<(u64, u64)>,
}

/// An open file of a core, for a download.
#[derive(Debug)]
pub struct CoreFileSource {
    /// Full id of the core.
    pub core: String,
    /// The file, read from offset 0 to `length_bytes`.
    pub file: File,
    /// Its length.
    pub length_bytes: u64,
    /// Strong entity tag without the quotes; equal only for equal bytes.
    pub etag: String,
    /// Media type.
    pub media_type: &'static str,
}

/// The receiver's cores.
pub trait CoreService: Send + Sync + 'static {
    /// A page of cores, newest first.
    ///
    /// # Errors
    /// [`ServiceError::BadRequest`] for a cursor or time that cannot be read.
    fn list(&self, query: &CoreQuery) -> Result<Page<CoreSummary>, ServiceError>;

    /// One core. `id` is a full id, a unique prefix, or `latest`.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], or [`ServiceError::BadRequest`] for a prefix of several ids.
    fn info(&self, id: &str) -> Result<CoreInfo, ServiceError>;

    /// A page of the groups of cores with the same signature; the group whose last core is the newest comes first.
    ///
    /// # Errors
    /// [`ServiceError::BadRequest`] for a cursor that cannot be read.
    fn groups(&self, query: &GroupQuery) -> Result<Page<CoreGroup>, ServiceError>;

    /// Received ranges with their digests, from where `cursor` points to.
    ///
    /// # Errors
    /// As [`CoreService::info`]; [`ServiceError::Internal`] when the file cannot be read.
    fn extents(&self, id: &str, cursor: Option<&str>, limit: usize) -> Result<ExtentPage, ServiceError>;

    /// Opens one file of a core.
    ///
    /// # Errors
    /// As [`CoreService::info`]; [`ServiceError::NotFound`] for a name that the core does not have.
    fn open_file(&self, id: &str, name: &str) -> Result<CoreFileSource, ServiceError>;

    /// What was found out about a core's crash, if anything was.
    ///
    /// # Errors
    /// As [`CoreService::info`].
    fn explanation(&self, id: &str) -> Result<Option<Explanation>, ServiceError>;

    /// The ranges of a core that arrived, ascending.
    ///
    /// # Errors
    /// As [`CoreService::info`].
    fn received(&self, id: &str) -> Result<Vec<ByteRange>, ServiceError>;

    /// Changes what people wrote about a core that still has the entity tag `if_match` (`*` for any).
    ///
    /// # Errors
    /// As [`CoreService::info`]; [`ServiceError::Changed`], or [`ServiceError::BadRequest`] for a text that is too long.
    fn edit(&self, id: &str, edit: &CoreEdit, if_match: &str, by: &str) -> Result<CoreInfo, ServiceError>;

    /// Removes a core with all its files.
    ///
    /// # Errors
    /// As [`CoreService::info`]; [`ServiceError::WrongState`] for a pinned core or one that is being received.
    fn remove(&self, id: &str, by: &str) -> Result<(), ServiceError>;

    /// How the receiver is.
    fn health(&self) -> Health;

    /// Events that somebody could not be told of, newest first; `cursor` is one of an earlier page.
    ///
    /// # Errors
    /// [`ServiceError::BadRequest`] for a cursor that is none.
    fn dead_letters(&self, cursor: Option<&str>, limit: usize) -> Result<Page<DeadLetter>, ServiceError>;

    /// What happened lately.
    fn events(&self) -> Arc<EventLog>;

    /// Writes down that somebody did something that has to be accounted for.
    fn audit(&self, deed: &Deed<'_>);

    /// Whether new dumps can be taken; the text says why not.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] with the reason.
    fn ready(&self) -> Result<(), ServiceError> {
        let failed = self.health().checks.into_iter().find(|check| !check.ok);
        failed.map_or(Ok(()), |check| Err(ServiceError::Unavailable(check.detail)))
    }

    /// Numbers in the text format of Prometheus, for `/metrics`.
    fn metrics(&self) -> String;
}

/// One process's machines.
pub trait VmService: Send + Sync + 'static {
    /// All machines.
    fn list(&self) -> Vec<VmSummary>;

    /// One machine.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    fn info(&self, name: &str) -> Result<VmInfo, ServiceError>;

    /// Starts a dump. The same `idempotency_key` gives the same dump again.
    ///
    /// # Errors
    /// [`ServiceError::Conflict`] naming `/api/v1/dumps/{id}` of the one that runs, [`ServiceError::NotFound`],
    /// [`ServiceError::WrongState`].
    fn dump(&self, name: &str, request: DumpRequest, idempotency_key: Option<String>) -> Result<Dump, ServiceError>;

    /// Where a dump stands.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    fn dump_status(&self, id: &str) -> Result<Dump, ServiceError>;

    /// Cancels a dump; the guest goes on by policy.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::WrongState`] when it is over.
    fn cancel_dump(&self, id: &str) -> Result<Dump, ServiceError>;

    /// Injects a non-maskable interrupt.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::WrongState`].
    fn nmi(&self, name: &str) -> Result<(), ServiceError>;

    /// Stops the processors.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::WrongState`].
    fn pause(&self, name: &str) -> Result<(), ServiceError>;

    /// Lets the processors go on.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::WrongState`].
    fn resume(&self, name: &str) -> Result<(), ServiceError>;

    /// Ends the machine.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::WrongState`].
    fn stop(&self, name: &str) -> Result<(), ServiceError>;
}
