//! What a core tells of the crash.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was found in a core after it arrived. It is derived: it can be made again at any time, by a better program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Version of this object.
    pub schema_version: u32,
    /// Version of the program that made it.
    pub made_by: String,
    /// The crash, where the log tells of one.
    pub crash: Option<CrashFacts>,
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
