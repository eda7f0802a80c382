//! The `COREFERRY` note: what the agent knew about the crash, as JSON in an ELF note.
//!
//! Readers ignore fields they do not know and take missing ones as empty; [`SCHEMA_VERSION`] rises only when a field
//! changes its meaning.

use std::borrow::Cow;

use crate::bytes::Writer;
use crate::limits::COREFERRY_LEN_MAX;
use crate::notes;
use serde::{Deserialize, Serialize};

/// Name of the note, without its NUL.
pub const NOTE_NAME: &[u8] = b"COREFERRY";

/// Type of the note: "CF" and the version of the encoding (1 = JSON).
///
/// Not a small number: crash and BFD look at the type before the name and would take type 1 for registers.
pub const NOTE_TYPE: u32 = 0x4346_0001;

/// Version of the JSON's meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// Content of the note. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoreferryNote {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// Id of the dump, a UUID as text.
    pub dump_id: String,
    /// Name of the virtual machine.
    pub vm: String,
    /// What made the agent dump, such as `panic-record`, `pvpanic`, `triple-fault` or `api-request`.
    pub trigger: String,
    /// The panic text, if the guest gave one.
    pub panic: Option<String>,
    /// Operating system of the guest as far as known, such as `linux` or `coreferry-demo`.
    pub os: Option<String>,
    /// Its release, such as `6.1.0-56-cloud-amd64`.
    pub release: Option<String>,
    /// Index of the vCPU that reported the crash.
    pub crashed_cpu: Option<u32>,
    /// When the trigger was seen.
    pub triggered_at: Option<String>,
    /// When the last vCPU had stopped.
    pub frozen_at: Option<String>,
    /// How each vCPU was stopped, in vCPU order.
    pub vcpus: Vec<VcpuStop>,
    /// What did not stand still while memory was read, or could not be read, as sentences. Usually nothing.
    pub troubles: Vec<String>,
    /// Build id of the guest's kernel, lower-case hexadecimal: as the guest says, else that of the file that was booted.
    pub build_id: Option<String>,
    /// Build id of the file that was booted. Another one than `build_id` if the guest has started another kernel since.
    pub booted_build_id: Option<String>,
    /// The kernel's file, if it is in the core.
    pub kept_kernel: Option<KeptKernelNote>,
    /// The kernel's file on the machine that ran the guest, an absolute path.
    pub kernel_file: Option<String>,
    /// How the core's VMCOREINFO was found, if it has one.
    pub vmcoreinfo: Option<VmcoreinfoOrigin>,
    /// What a filter left out of the core, if there was one.
    pub filter: Option<FilterNote>,
    /// The last text of the guest's console. Shortened from its beginning if the note would grow too long.
    pub console_tail: String,
}

impl Default for CoreferryNote {
    fn default() -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            dump_id: String::new(),
            vm: String::new(),
            trigger: String::new(),
            panic: None,
            os: None,
            release: None,
            crashed_cpu: None,
            triggered_at: None,
            frozen_at: None,
            vcpus: Vec::new(),
            troubles: Vec::new(),
            build_id: None,
            booted_build_id: None,
            kept_kernel: None,
            kernel_file: None,
            vmcoreinfo: None,
            filter: None,
            console_tail: String::new(),
        }
    }
}

/// How one vCPU was stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VcpuStop {
    /// vCPU index; its registers are in the PRSTATUS note with `pr_pid = index + 1`.
    pub index: u32,
    /// `reported`, `running`, `halted`, `wait-for-sipi`, `failed` or what a later version adds. The registers of one that
    /// failed are as good as they could be had, zeroes at worst.
    pub state: String,
}

/// Where the VMCOREINFO of a core comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmcoreinfoOrigin {
    /// Who knew: `fw_cfg` or `panic-record` (the guest said where it lies), or `search` of its memory.
    pub source: String,
    /// Guest physical address of the copy that was taken.
    pub gpa: u64,
    /// How many copies were looked at until one was taken.
    pub copies: u32,
    /// Whether a processor's page tables map the kernel where this copy says.
    pub agrees: bool,
}

/// The kernel's file within a core, behind its memory (`docs/trailer.md`, section 1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptKernelNote {
    /// Name of the file, without its folder.
    pub name: String,
    /// Where its first byte stands in the core.
    pub file_offset: u64,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Digest of all of it when it was booted: `blake3:` and hexadecimal digits.
    pub digest: String,
}

/// What a filter left out of a core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterNote {
    /// The level, as for `makedumpfile -d` (makedumpfile(8)).
    pub level: u8,
    /// Pages that were left out.
    pub excluded_pages: u64,
    /// Pages that are in the core although the level leaves them out: they lie too scattered to be told apart.
    pub scattered_pages: u64,
    /// Pages of which the guest did not say what they are used for; they are in the core.
    pub unknown_pages: u64,
}

/// The note could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CoreferryNoteError {
    /// Too long even without console text.
    #[error("COREFERRY note of {len_bytes} bytes without console text is longer than {COREFERRY_LEN_MAX}")]
    TooLong {
        /// Length in bytes that was reached.
        len_bytes: usize,
    },
    /// Not the JSON of a note, or the JSON could not be written.
    #[error("COREFERRY note is not usable JSON")]
    Json(#[from] serde_json::Error),
}

impl CoreferryNote {
    /// The descriptor of the note, at most [`COREFERRY_LEN_MAX`] bytes. Console text is dropped from its beginning until
    /// it fits: evidence must not fail because a guest was talkative.
    ///
    /// # Errors
    /// [`CoreferryNoteError::TooLong`] if the other fields alone are too long.
    pub fn encode(&self) -> Result<Vec<u8>, CoreferryNoteError> {
        let mut descriptor = serde_json::to_vec(self)?;
        let mut note = self.clone();
        while descriptor.len() > COREFERRY_LEN_MAX {
            if note.console_tail.is_empty() {
                return Err(CoreferryNoteError::TooLong {
                    len_bytes: descriptor.len(),
                });
            }
            // A byte of text becomes at most six bytes of JSON (\u00XX), so a sixth of the excess never cuts too much.
            let cut = (descriptor.len() - COREFERRY_LEN_MAX).div_ceil(6);
            note.console_tail = last_part(&note.console_tail, note.console_tail.len().saturating_sub(cut));
            descriptor = serde_json::to_vec(&note)?;
        }
        Ok(descriptor)
    }

    /// Reads a descriptor.
    ///
    /// # Errors
    /// [`CoreferryNoteError::TooLong`] for more than [`COREFERRY_LEN_MAX`] bytes, else [`CoreferryNoteError::Json`].
    pub fn decode(descriptor: &[u8]) -> Result<Self, CoreferryNoteError> {
        if descriptor.len() > COREFERRY_LEN_MAX {
            return Err(CoreferryNoteError::TooLong {
                len_bytes: descriptor.len(),
            });
        }
        Ok(serde_json::from_slice(descriptor)?)
    }
}

/// The notes of a core for a file without its kernel: `kept_kernel` is left out of the COREFERRY note, everything else stays,
/// what a later version wrote there too.
#[must_use]
pub fn notes_without_kernel(notes: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Writer::with_capacity(notes.len());
    let mut is_changed = false;
    for note in notes::iter(notes) {
        // Notes that cannot be read are left as they are, all of them.
        let Ok(note) = note else { return Cow::Borrowed(notes) };
        let is_ours = note.name == NOTE_NAME && note.kind == NOTE_TYPE;
        let changed = Some(note.descriptor)
            .filter(|_| is_ours)
            .and_then(descriptor_without_kernel);
        is_changed |= changed.is_some();
        let descriptor = changed.as_deref().unwrap_or(note.descriptor);
        notes::put(&mut out, note.name, note.kind, descriptor);
    }
    if is_changed {
        Cow::Owned(out.into_vec())
    } else {
        Cow::Borrowed(notes)
    }
}

/// The descriptor of a COREFERRY note without its kernel; nothing if it has none.
fn descriptor_without_kernel(descriptor: &[u8]) -> Option<Vec<u8>> {
    let descriptor = Some(descriptor).filter(|bytes| bytes.len() <= COREFERRY_LEN_MAX)?;
    let mut note: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(descriptor).ok()?;
    note.remove("kept_kernel").filter(|kernel| !kernel.is_null())?;
    serde_json::to_vec(&note).ok()
}

/// At most the last `len_bytes` bytes of `text`, cut between characters.
fn last_part(text: &str, len_bytes: usize) -> String {
    let start = text.ceil_char_boundary(text.len() - len_bytes.min(text.len()));
    text.get(start..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_it_encodes() {
        let note = CoreferryNote {
            vm: "web-3".into(),
            panic: Some("Kernel panic - not syncing: \"x\"\n".into()),
            crashed_cpu: Some(1),
            vcpus: vec![VcpuStop {
                index: 0,
                state: "halted".into(),
            }],
            ..CoreferryNote::default()
        };
        assert_eq!(CoreferryNote::decode(&note.encode().unwrap()).unwrap(), note);
    }

    #[test]
    fn long_console_text_loses_its_beginning_only() {
        for text in ["x".repeat(300_000), "\u{1}".repeat(200_000), "é".repeat(100_000)] {
            let note = CoreferryNote {
                console_tail: text + "the end",
                ..CoreferryNote::default()
            };
            let descriptor = note.encode().unwrap();
            assert!(descriptor.len() <= COREFERRY_LEN_MAX);
            assert!(descriptor.len() > COREFERRY_LEN_MAX / 2, "cut to {}", descriptor.len());
            assert!(
                CoreferryNote::decode(&descriptor)
                    .unwrap()
                    .console_tail
                    .ends_with("the end")
            );
        }
    }

    #[test]
    fn a_note_that_cannot_fit_is_an_error() {
        let note = CoreferryNote {
            vm: "v".repeat(COREFERRY_LEN_MAX),
            ..CoreferryNote::default()
        };
        assert!(matches!(note.encode(), Err(CoreferryNoteError::TooLong { .. })));
    }

    #[test]
    fn a_file_without_the_kernel_does_not_claim_it() {
        let encoded = |descriptor: &[u8]| {
            let mut out = Writer::with_capacity(0);
            notes::put(&mut out, b"CORE", 1, &[7; 9]);
            notes::put(&mut out, NOTE_NAME, NOTE_TYPE, descriptor);
            notes::put(&mut out, b"VMCOREINFO", 0, b"OSRELEASE=1\n");
            out.into_vec()
        };
        let with = encoded(br#"{"vm":"a","kept_kernel":{"name":"vmlinuz"},"news":[1,2]}"#);
        assert_eq!(*notes_without_kernel(&with), encoded(br#"{"news":[1,2],"vm":"a"}"#));
        for same in [
            encoded(&CoreferryNote::default().encode().unwrap()),
            encoded(b"no JSON"),
            with[..with.len() - 8].to_vec(),
        ] {
            assert!(matches!(notes_without_kernel(&same), Cow::Borrowed(notes) if notes == same));
        }
    }

    #[test]
    fn a_later_writers_fields_are_ignored() {
        let note = CoreferryNote::decode(br#"{"schema_version":1,"vm":"a","news":[1,2]}"#).unwrap();
        assert_eq!(note.vm, "a");
    }
}
