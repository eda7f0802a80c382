//! Virtual machines.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// Its processors run.
    Running,
    /// Stopped on request, ready to go on.
    Paused,
    /// It crashed and its memory is being dumped.
    Dumping,
    /// It crashed and is kept as it is.
    Preserved,
    /// It is gone.
    Stopped,
}

impl VmState {
    /// The name used in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Dumping => "dumping",
            Self::Preserved => "preserved",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for VmState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One line of the list of machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmSummary {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: VmState,
    /// Process that runs it.
    pub pid: u32,
    /// Number of processors.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub mem_mib: u64,
    /// Which life of the guest this is, counted from 1.
    pub incarnation: u64,
    /// When this life began. RFC 3339, UTC.
    pub started_at: String,
}

/// Everything known about one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmInfo {
    /// Version of this object.
    pub schema_version: u32,
    /// The same fields as in the list.
    #[serde(flatten)]
    pub summary: VmSummary,
    /// Kernel file that it booted.
    pub kernel: String,
    /// What happens on a crash.
    pub on_crash: String,
    /// Receivers that a dump is offered to, in order.
    pub netdump: Vec<String>,
    /// Directory for dumps that no receiver took.
    pub spool: Option<String>,
    /// Id of the dump that runs, or of the last one.
    pub last_dump_id: Option<String>,
    /// Crashes seen since the process began.
    pub crashes: u64,
}
