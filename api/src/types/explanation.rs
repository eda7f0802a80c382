//! What a core tells of the crash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was found in a core after it arrived. It is derived: it can be made again at any time, by a better program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Version of this object.
    pub schema_version: u32,
    /// Version of the program that made it.
    pub made_by: String,
    /// What the kernel calls itself, such as `Linux version 6.1.0-18-amd64 (…)`.
    #[serde(default)]
    pub banner: Option<String>,
    /// Its release, such as `6.1.0-18-amd64`.
    #[serde(default)]
    pub release: Option<String>,
    /// Build id of the kernel, in hexadecimal.
    #[serde(default)]
    pub build_id: Option<String>,
    /// How far KASLR moved the kernel's virtual addresses, in hexadecimal with `0x`.
    #[serde(default)]
    pub kernel_offset: Option<String>,
    /// When the guest booted: the time of the crash less its uptime. RFC 3339, UTC, to the second.
    #[serde(default)]
    pub booted_at: Option<String>,
    /// The crash, where the log tells of one.
    pub crash: Option<CrashFacts>,
    /// The registers of each processor, where the core has them.
    #[serde(default)]
    pub cpus: Vec<CpuFacts>,
    /// Time from the guest's boot to the last record of its log, in milliseconds.
    pub uptime_ms: Option<u64>,
    /// Where the log is from.
    pub log_source: Option<LogSource>,
    /// The log as dmesg(1) shows it, control characters escaped; of a long one the end.
    pub log: Option<String>,
    /// What could not be told, and why, in sentences.
    pub problems: Vec<String>,
}

/// Where the text of a log is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogSource {
    /// The kernel's own buffer, in its memory.
    Memory,
    /// The end of the console, as the sender's note has it.
    Console,
}

/// One processor as it stood when the guest was stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CpuFacts {
    /// Number of the processor, from 0 on.
    pub index: u32,
    /// How it was stopped, such as `reported`, `running` or `halted`, where the sender's note says so.
    pub state: Option<String>,
    /// Whether it was in user mode.
    pub user_mode: bool,
    /// Its registers by name, in hexadecimal with `0x`; those that the core does not have are left out.
    pub registers: BTreeMap<String, String>,
}

/// The place of a core among those with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupPlace {
    /// 1 for the first one that was received.
    pub ordinal: u64,
    /// How many there are.
    pub count: u64,
    /// Id of the first one.
    pub first_id: String,
    /// When it was received. RFC 3339, UTC.
    pub first_seen: String,
    /// The guest it came from.
    pub first_guest: String,
    /// The kernel of that guest, where it is known.
    pub first_kernel: Option<String>,
}

/// Cores of the same fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoreGroup {
    /// What they have in common.
    pub signature: String,
    /// How many there are.
    pub count: u64,
    /// How many guests they came from.
    pub guest_count: u64,
    /// The guests by name, at most 100.
    pub guests: Vec<String>,
    /// The kernels of those guests in the order in which the receiver first saw them, at most 100.
    pub kernels: Vec<String>,
    /// When the first one was received. RFC 3339, UTC.
    pub first_seen: String,
    /// Its id.
    pub first_id: String,
    /// When the last one was received. RFC 3339, UTC.
    pub last_seen: String,
    /// Its id.
    pub last_id: String,
    /// Whether the fault came back: it was seen with a kernel, then not with a newer one that crashed otherwise, then again
    /// with a still newer one. Newer is what the receiver saw later for the first time.
    pub regressed: bool,
}

/// A crash, told from a kernel log, text escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CrashFacts {
    /// By which cores of the same fault group, such as `null-pointer in ext4_map_blocks`.
    pub signature: String,
    /// Kind of fault, such as `null-pointer`, `hung-task` or `panic`.
    pub kind: String,
    /// The line that tells the cause.
    pub cause: String,
    /// What the kernel said when it gave up.
    pub panic: Option<String>,
    /// The function that failed.
    pub function: Option<String>,
    /// Name of the task that ran.
    pub task: Option<String>,
    /// Its process id.
    pub pid: Option<u32>,
    /// The processor that reported.
    pub cpu: Option<u32>,
    /// Functions of the call trace as logged, innermost first.
    pub trace: Vec<String>,
}
