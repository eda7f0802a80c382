//! Dumps: the act of making a core, as a resource.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a caller wants of a dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DumpRequest {
    /// Why, in the caller's words; kept with the core.
    #[serde(default)]
    pub reason: Option<String>,
    /// What is left out of a Linux guest's core, as for `makedumpfile -d`: the sum of 1 (zero pages), 2 (page cache), 4 (page cache
    /// with private data), 8 (pages of user processes), 16 (free pages). The machine's own level where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 31)]
    pub filter: Option<u8>,
}

/// Where a dump stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DumpState {
    /// Asked for, not begun.
    Queued,
    /// Under way.
    Running,
    /// The core is safe, at a receiver or in the spool.
    Done,
    /// The core is lost.
    Failed,
    /// Cancelled by a caller.
    Cancelled,
}

impl DumpState {
    /// Whether nothing more will happen to this dump.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What a running dump is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DumpPhase {
    /// Not begun.
    Queued,
    /// Stopping the processors and reading their registers.
    Freeze,
    /// Laying out the file.
    Plan,
    /// Finding the receiver.
    Connect,
    /// Sending memory.
    Send,
    /// Writing to the spool because no receiver answered.
    Spool,
    /// Waiting until the receiver has everything on disk.
    Finish,
    /// Over.
    Ended,
}

/// A dump and its progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dump {
    /// Version of this object.
    pub schema_version: u32,
    /// Id of the dump.
    pub id: String,
    /// Name of the machine.
    pub vm: String,
    /// Where it stands.
    pub state: DumpState,
    /// What it is doing.
    pub phase: DumpPhase,
    /// Bytes of the file that have to be sent, as far as known.
    pub bytes_total: u64,
    /// Bytes sent at least once.
    pub bytes_sent: u64,
    /// Bytes that the receiver acknowledged.
    pub bytes_acked: u64,
    /// Packets sent more than once.
    pub retransmits: u64,
    /// Bytes acknowledged per second, over the last seconds.
    pub rate_bps: u64,
    /// Seconds that are left at this rate, where a rate is known.
    pub eta_s: Option<u64>,
    /// When it began. RFC 3339, UTC.
    pub started_at: String,
    /// Id of the core at the receiver, where it is known.
    pub core_id: Option<String>,
    /// Path of the core in the spool, when no receiver took it.
    pub spool_path: Option<String>,
    /// What went wrong, in a sentence.
    pub error: Option<String>,
}
