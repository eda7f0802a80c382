//! What happened, as a CloudEvents 1.0 object: the body of a server-sent event and of a webhook alike.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::types::core::CoreState;

/// One event (CloudEvents 1.0, JSON format).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Version of CloudEvents: `1.0`.
    pub specversion: String,
    /// Id; within one run of a receiver they ascend.
    pub id: String,
    /// Where it comes from: `/coreferry/receiver`.
    pub source: String,
    /// Kind, such as `core.complete`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the core, or of the session that will become one.
    pub subject: String,
    /// When. RFC 3339, UTC.
    pub time: String,
    /// Media type of `data`.
    pub datacontenttype: String,
    /// What it is about.
    pub data: EventData,
}

/// What an event is about, texts escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventData {
    /// Version of this object.
    pub schema_version: u32,
    /// Id of the core, or of the session that will become one.
    pub id: String,
    /// Name of the guest.
    pub guest: String,
    /// What became of it so far.
    pub state: CoreState,
    /// The kernel's panic text, where one came.
    pub panic: Option<String>,
    /// The signature, where it is known.
    pub signature: Option<String>,
    /// Length of the vmcore, as far as it is known.
    pub file_len_bytes: u64,
    /// Bytes of it that arrived.
    pub stored_bytes: u64,
    /// Bytes that arrived per second, while it is being received.
    pub rate_bps: Option<u64>,
    /// Why it is not complete, in a sentence.
    pub reason: Option<String>,
}

/// The kinds of events.
pub const EVENT_KINDS: [&str; 7] = [
    "dump.started",
    "dump.progress",
    "core.complete",
    "core.incomplete",
    "core.explained",
    "core.changed",
    "core.removed",
];
