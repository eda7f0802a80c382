//! The receiver: takes dumps by netdump, stores and proves them, lists them.
//!
//! Sockets and sessions run on plain threads; the protocol itself is the netdump crate's. A byte is acknowledged when it
//! outlives this process, FINISHED when everything outlives a loss of power. The manifests on disk are the truth; the
//! list of cores is an index over them.
//!
//! ```text
//! HERALD ─► session ─► spool/<id> ──FINISHED──► commit ─► cores/<yyyy>/<mm>/<id> ─► acknowledged, listed
//!                        │ silent, stopped, disk full ─► the same, as `incomplete`
//!                        └ receiver died ─► found at the next start, as `incomplete`
//! ```
//!
//! - [`Receiver`]: start, stop, wait for cores (also embedded in other programs)
//! - [`LocalCores`]: the cores of a directory; [`CoreCatalogue`] serves them as [`api::CoreService`]
//! - [`explain()`]: what a core tells of the crash; hostile bytes, so a process of its own runs it ([`confine`])
//! - [`export`]: a core in the form that a tool wants
//! - [`codecs`]: how the pages of kdump files are compressed
//! - [`trains`]: many datagrams by one call, for senders too
//! - `ingest`: sockets and sessions · `store`: what stands on disk · `allow`, `admission`: who
//!   may dump, how often, how much · `hooks`: commands that are run · `events`, `audit`: what is told and written down of
//!   it all · `webhooks`: addresses that are told · `limits`

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

mod admission;
mod allow;
mod audit;
pub mod codecs;
mod cores;
mod escape;
mod events;
mod explain;
pub mod export;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod histogram;
mod hooks;
mod ingest;
pub mod limits;
mod os;
mod receiver;
mod retention;
mod service;
mod store;
mod tokens;
mod webhooks;

/// The format of a canary: a small dump that only shows that dumps arrive.
pub const CANARY_FORMAT: &str = "canary";

/// The first bytes of a canary's file.
pub const CANARY_MAGIC: &[u8] = b"COREFERRY CANARY\n";

pub use admission::{Limits, Rate, Share, ShareError};
pub use allow::{Cidr, CidrError};
pub use cores::{LocalCores, StoredVmcore};
pub use escape::{lines, one_line};
pub use explain::{Effort, GuestLog, VmcoreBytes, explain, kernel_log};
pub use hooks::{HookCommand, HookUser, Hooks};
pub use ingest::SessionRules;
pub use os::{confine, trains};
pub use receiver::{Receiver, ReceiverConfig, ReceiverError};
pub use retention::{Retention, Rule, condemned};
pub use service::CoreCatalogue;
pub use store::StoreError;
pub use store::layout::is_core_folder;
pub use store::verify::Verified;
pub use tokens::{KeptToken, TokenError, Tokens};
pub use webhooks::{Secret as WebhookSecret, Webhook, Webhooks, dead_letters};
