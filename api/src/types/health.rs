//! How a receiver is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Short name, such as `store-writable`.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen, in a sentence.
    pub detail: String,
}

/// How a receiver is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Version of this object.
    pub schema_version: u32,
    /// Whether new dumps can be taken: all checks are as they should be.
    pub ready: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// Size of the file system that holds the cores.
    pub size_bytes: u64,
    /// What is free of it.
    pub free_bytes: u64,
    /// Bytes of all cores.
    pub stored_bytes: u64,
    /// What all cores together may take.
    pub quota_bytes: u64,
    /// Cores that are listed.
    pub cores: u64,
    /// When the oldest core was received. RFC 3339, UTC.
    pub oldest_core: Option<String>,
    /// Sessions that run or linger.
    pub sessions: u64,
    /// Datagrams that the kernel dropped because a socket's buffer was full.
    pub kernel_drops: u64,
    /// When the last canary came through whole (`coreferry doctor --to`). RFC 3339, UTC.
    pub last_canary: Option<String>,
}
