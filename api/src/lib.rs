//! What programs and people talk to: the types of the REST contract, a client, and routers.
//!
//! The types are plain serde structs with the contract's field names, and grow by addition only. The routers do no
//! work of their own: they translate HTTP to the two service traits, [`VmService`] (one process per machine) and
//! [`CoreService`] (the receiver), and errors to RFC 9457 problems.
//!
//! ```text
//!   CLI ──Client──┐ HTTP/1 over TCP, TLS or a unix socket
//!                 ▼
//!   routes: vms · cores · health · openapi ──► VmService / CoreService
//! ```
//!
//! Features: `types` (default), `client`, `server`, `pages` (the web page, over the same traits).

#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "outgoing")]
pub mod endpoint;
#[cfg(feature = "server")]
pub mod events;
pub mod human;
pub mod limits;
#[cfg(feature = "server")]
pub mod listen;
#[cfg(feature = "outgoing")]
mod outgoing;
#[cfg(feature = "pages")]
pub mod pages;
#[cfg(feature = "server")]
pub mod routes;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "outgoing")]
pub mod tls;
pub mod types;
#[cfg(feature = "server")]
pub mod webhook;

#[cfg(feature = "server")]
pub use auth::{KnownToken, Scope, TokenStore};
#[cfg(feature = "client")]
pub use client::{Client, ClientError};
#[cfg(feature = "outgoing")]
pub use endpoint::Endpoint;
#[cfg(feature = "server")]
pub use events::EventLog;
#[cfg(feature = "server")]
pub use listen::{ApiListener, ListenError, ListenOn};
#[cfg(feature = "server")]
pub use routes::{Peer, core_router, guarded, openapi, vm_router};
#[cfg(feature = "server")]
pub use service::{CoreFileSource, CoreQuery, CoreService, Deed, GroupQuery, ServiceError, VmService};
#[cfg(feature = "server")]
pub use tls::TlsFiles;
#[cfg(feature = "outgoing")]
pub use tls::{TlsClient, TlsError, Trust};
pub use types::core::{
    ByteRange, CoreFile, CoreInfo, CoreState, CoreSummary, DigestedExtent, ExtentPage, FilterFacts, KeptKernelFacts,
    KernelHeaderFacts, NoteFacts,
};
pub use types::dead_letter::DeadLetter;
pub use types::dump::{Dump, DumpPhase, DumpRequest, DumpState};
pub use types::edit::{CoreEdit, CoreLabels};
pub use types::event::{EVENT_KINDS, Event, EventData};
pub use types::explanation::{CoreGroup, CpuFacts, CrashFacts, Explanation, GroupPlace, LogSource};
pub use types::health::{Check, Health};
pub use types::page::Page;
pub use types::problem::Problem;
pub use types::vm::{VmInfo, VmState, VmSummary};

/// Version of the JSON objects; raised only when a field changes its meaning, never for an added field.
pub const SCHEMA_VERSION: u32 = 1;
