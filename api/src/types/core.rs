//! Cores: stored dumps with their manifests.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::types::edit::CoreLabels;
use crate::types::explanation::{CpuFacts, CrashFacts, GroupPlace, LogSource};

/// What became of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CoreState {
    /// A session is still bringing it.
    Receiving,
    /// No byte is lost.
    Complete,
    /// Bytes are lost, or the sender fell silent.
    Incomplete,
    /// Cancelled by the sender, or refused by the receiver.
    Aborted,
    /// What is stored contradicts its digests or its own trailer.
    Corrupt,
    /// The manifest is there, the file is not.
    Missing,
    /// The file was removed by the retention rules; the record is kept.
    Pruned,
    /// Only the record was taken, the memory never was.
    RecordOnly,
}

impl CoreState {
    /// The name used in JSON, on the command line and in queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Aborted => "aborted",
            Self::Corrupt => "corrupt",
            Self::Missing => "missing",
            Self::Pruned => "pruned",
            Self::RecordOnly => "record-only",
        }
    }

    /// All states, in the order of the contract.
    pub const ALL: [Self; 8] = [
        Self::Receiving,
        Self::Complete,
        Self::Incomplete,
        Self::Aborted,
        Self::Corrupt,
        Self::Missing,
        Self::Pruned,
        Self::RecordOnly,
    ];

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl std::fmt::Display for CoreState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A range of bytes of the vmcore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ByteRange {
    /// First byte, as a file offset.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// One line of the list of cores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoreSummary {
    /// Id, a version 7 UUID: sorts by time.
    pub id: String,
    /// Name of the guest: from the kernel dump header, the sender's note or the herald's label, else its address.
    pub guest: String,
    /// `ADDRESS:PORT` of the sender.
    pub client_addr: String,
    /// When the core was kept; while it is being received, when its session began. RFC 3339, UTC.
    pub received_at: String,
    /// What became of it.
    pub state: CoreState,
    /// The kernel's panic text, where one came.
    pub panic: Option<String>,
    /// Normalised crash site by which cores group, where it is known.
    pub signature: Option<String>,
    /// What kind of file the vmcore is: `elf`, `minidump`, or `unknown`.
    pub format: String,
    /// Length of the vmcore, holes included.
    pub file_len_bytes: u64,
    /// Bytes of it that arrived.
    pub stored_bytes: u64,
    /// Ranges whose content is lost; zero and excluded ranges are not among them.
    pub holes: Vec<ByteRange>,
    /// Operating system and release of the guest, where they are known.
    pub kernel: Option<String>,
    /// Whether somebody pinned it.
    #[serde(default)]
    pub pinned: bool,
}

/// The fields of a FreeBSD kernel dump header (`sys/sys/kerneldump.h`), text escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KernelHeaderFacts {
    /// Architecture, such as `amd64`.
    pub architecture: String,
    /// Version of the header, 1 to 4.
    pub version: u32,
    /// Version of the architecture's part.
    pub architecture_version: u32,
    /// Length of the dump.
    pub dump_length_bytes: u64,
    /// When the dump began, in seconds since 1970.
    pub dump_time_s: u64,
    /// Length of the key block; 0 when the dump is not encrypted.
    pub key_length_bytes: u32,
    /// Block size of the sender.
    pub block_length_bytes: u32,
    /// Compression, as its number: 0 none, 1 gzip, 2 zstd.
    pub compression: u8,
    /// Host name of the guest.
    pub hostname: String,
    /// Version of its kernel.
    pub version_string: String,
    /// Panic text.
    pub panic_string: String,
    /// Whether the header's parity holds.
    pub parity_ok: bool,
}

/// What a filter left out of a core.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilterFacts {
    /// The level, as for `makedumpfile -d`.
    pub level: u8,
    /// Pages that were left out.
    pub excluded_pages: u64,
    /// Pages that are in the core although the level leaves them out, because they lie too scattered.
    pub scattered_pages: u64,
    /// Pages of which the guest did not say what they are used for; they are in the core.
    pub unknown_pages: u64,
}

/// What the sender's own note inside the core says about the crash, text escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NoteFacts {
    /// Id of the dump at the sender.
    pub dump_id: Option<String>,
    /// Name of the machine.
    pub vm: Option<String>,
    /// What made the agent take the dump.
    pub trigger: Option<String>,
    /// Panic text.
    pub panic: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Release of its kernel.
    pub release: Option<String>,
    /// Number of the processor that crashed.
    pub crashed_cpu: Option<u32>,
    /// When the trigger came. RFC 3339, UTC.
    pub triggered_at: Option<String>,
    /// When the machine stood still. RFC 3339, UTC.
    pub frozen_at: Option<String>,
    /// Build id of the kernel, in hexadecimal: as the guest says, else that of the file that was booted.
    pub build_id: Option<String>,
    /// Build id of the file that was booted. Another one than `build_id` if the guest has started another kernel since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted_build_id: Option<String>,
    /// The kernel's file on the machine that ran the guest.
    #[serde(default)]
    pub kernel_file: Option<String>,
    /// The kernel's file within the vmcore, if it came with it. It is whole if no lost range is in it and its digest is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_kernel: Option<KeptKernelFacts>,
    /// What a filter left out, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterFacts>,
    /// The last lines of the console.
    pub console_tail: Option<String>,
    /// What went wrong while the machine was stopped and read, in sentences: a processor or a device that hung.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// The kernel's file within a vmcore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptKernelFacts {
    /// Name of the file, without its folder. Escaped.
    pub name: String,
    /// Where its first byte stands in the vmcore.
    pub file_offset: u64,
    /// Its length.
    pub length_bytes: u64,
    /// Digest of all of it as it was booted, `blake3:` and hexadecimal digits.
    pub digest: String,
}

/// One file of a core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoreFile {
    /// Name, such as `vmcore` or `info.txt`.
    pub name: String,
    /// Length.
    pub length_bytes: u64,
    /// Digest with its method before a colon; for the vmcore it is made over its chunk digests.
    pub digest: String,
}

/// Everything known about one core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoreInfo {
    /// Version of this object.
    pub schema_version: u32,
    /// The same fields as in the list.
    #[serde(flatten)]
    pub summary: CoreSummary,
    /// Why the core is not complete, in a sentence.
    pub reason: Option<String>,
    /// When the session began. RFC 3339, UTC.
    pub started_at: String,
    /// Address and port that the sender dialled.
    pub server_addr: String,
    /// The path that the sender's herald asked for: a label, never a path here. Escaped.
    pub herald_label: Option<String>,
    /// Bytes that the file itself declares to be zero.
    pub zero_bytes: u64,
    /// Bytes that were left out on purpose; their content is unknown.
    pub excluded_bytes: u64,
    /// Bytes that are lost.
    pub lost_bytes: u64,
    /// The kernel dump header, where one came.
    pub kernel_header: Option<KernelHeaderFacts>,
    /// The sender's note, where the core has one.
    pub note: Option<NoteFacts>,
    /// Datagrams that came in more than once.
    pub duplicate_packets: u64,
    /// Whether the first page had been sent to a wrong place, as the second dump after one boot of FreeBSD does it, and
    /// was put into its own.
    #[serde(default)]
    pub repaired: bool,
    /// What its kernel log tells of the crash, where it was explained.
    #[serde(default)]
    pub crash: Option<CrashFacts>,
    /// What the kernel calls itself, where it was explained.
    #[serde(default)]
    pub banner: Option<String>,
    /// Build id of the kernel, in hexadecimal.
    #[serde(default)]
    pub build_id: Option<String>,
    /// How far KASLR moved the kernel's virtual addresses, in hexadecimal with `0x`.
    #[serde(default)]
    pub kernel_offset: Option<String>,
    /// When the guest booted, to the second. RFC 3339, UTC.
    #[serde(default)]
    pub booted_at: Option<String>,
    /// Time from the guest's boot to the last record of its log, in milliseconds.
    #[serde(default)]
    pub uptime_ms: Option<u64>,
    /// The registers of each processor.
    #[serde(default)]
    pub cpus: Vec<CpuFacts>,
    /// Where the log is from, by which it was explained.
    #[serde(default)]
    pub log_source: Option<LogSource>,
    /// What could not be told of the crash, and why, in sentences.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Its place among the cores with its signature.
    #[serde(default)]
    pub group: Option<GroupPlace>,
    /// The files of this core.
    pub files: Vec<CoreFile>,
    /// What people wrote about it.
    #[serde(default)]
    pub written: CoreLabels,
}

impl CoreInfo {
    /// The entity tag of what can be changed of this core, with quotes. An explanation that arrives does not change it.
    #[must_use]
    pub fn etag(&self) -> String {
        let json = serde_json::to_vec(&(&self.summary.id, &self.written)).unwrap_or_default();
        format!("\"{}\"", blake3::hash(&json).to_hex())
    }
}

/// A received range with its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DigestedExtent {
    /// First byte, as a file offset.
    pub offset: u64,
    /// Number of bytes; an extent never crosses a chunk of 1 MiB.
    pub length: u64,
    /// `blake3:` and the digest of these bytes in hexadecimal.
    pub digest: String,
}

/// A run of a core's received ranges, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExtentPage {
    /// Version of this object.
    pub schema_version: u32,
    /// Length of the vmcore, holes included.
    pub file_len_bytes: u64,
    /// The extents.
    pub items: Vec<DigestedExtent>,
    /// Ranges whose content is lost, of the whole file.
    pub lost: Vec<ByteRange>,
    /// What to give as `cursor` for the next run; none at the end.
    pub next_cursor: Option<String>,
}
