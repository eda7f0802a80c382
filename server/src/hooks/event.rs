//! What happened, as the arguments and the JSON of a command.

use std::path::{Path, PathBuf};

use api::{ByteRange, CoreState, EventData, SCHEMA_VERSION};
use serde::Serialize;

use crate::escape;
use crate::limits::HOOK_HOLES_MAX;
use crate::store::examine::Ending;
use crate::store::layout;
use crate::store::manifest::Manifest;

/// Which of the commands is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Happened {
    /// The first bytes came.
    Start,
    /// A core is complete.
    Complete,
    /// A core is not complete.
    Incomplete,
    /// There is no room.
    NoSpace,
}

/// What happened to which dump. Texts of the guest are escaped already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HookEvent {
    pub(crate) schema_version: u32,
    #[serde(rename = "event")]
    pub(crate) happened: Happened,
    /// Id of the core, or of the session that will become one.
    pub(crate) id: String,
    /// Name of the guest; its address as long as nothing better is known.
    pub(crate) guest: String,
    /// `ADDRESS:PORT` of the sender.
    pub(crate) client_addr: String,
    /// The directory of the core, or of the session.
    pub(crate) dir: PathBuf,
    pub(crate) state: CoreState,
    /// Why it is not complete, or what there is no room for.
    pub(crate) reason: Option<String>,
    pub(crate) panic: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) file_len_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) lost_bytes: u64,
    /// The first lost ranges.
    pub(crate) holes: Vec<ByteRange>,
    /// netdumpd's word for it.
    #[serde(skip)]
    pub(crate) netdumpd_reason: Option<&'static str>,
}

impl HookEvent {
    /// Something about a dump that is no core yet.
    pub(crate) fn of_session(
        happened: Happened,
        id: &str,
        label: Option<&str>,
        client_addr: &str,
        dir: PathBuf,
    ) -> Self {
        let address = address_of(client_addr);
        Self {
            schema_version: SCHEMA_VERSION,
            happened,
            id: id.to_owned(),
            guest: label.map_or_else(|| address.to_owned(), escape::one_line),
            client_addr: client_addr.to_owned(),
            dir,
            state: CoreState::Receiving,
            reason: None,
            panic: None,
            kernel: None,
            file_len_bytes: 0,
            stored_bytes: 0,
            lost_bytes: 0,
            holes: Vec::new(),
            netdumpd_reason: None,
        }
    }

    /// The same for those who listen.
    pub(crate) fn as_data(&self) -> EventData {
        EventData {
            schema_version: SCHEMA_VERSION,
            id: self.id.clone(),
            guest: self.guest.clone(),
            state: self.state,
            panic: self.panic.clone(),
            signature: None,
            file_len_bytes: self.file_len_bytes,
            stored_bytes: self.stored_bytes,
            rate_bps: None,
            reason: self.reason.clone(),
        }
    }

    /// A core was made.
    pub(crate) fn of_core(dir: PathBuf, manifest: &Manifest, ending: &Ending) -> Self {
        let complete = manifest.state == CoreState::Complete;
        let lost = &manifest.coverage.lost;
        Self {
            schema_version: SCHEMA_VERSION,
            happened: if complete {
                Happened::Complete
            } else {
                Happened::Incomplete
            },
            id: manifest.id.clone(),
            guest: manifest.guest.clone(),
            client_addr: manifest.client_addr.clone(),
            dir,
            state: manifest.state,
            reason: manifest.reason.clone(),
            panic: manifest.panic.clone(),
            kernel: manifest.kernel.clone(),
            file_len_bytes: manifest.file_len_bytes,
            stored_bytes: manifest.stored_bytes,
            lost_bytes: lost.iter().map(|range| range.length).sum(),
            holes: lost.iter().take(HOOK_HOLES_MAX).cloned().collect(),
            netdumpd_reason: Some(match ending {
                _ if complete => "success",
                Ending::Silent { .. } | Ending::LeftOver => "timeout",
                Ending::Finished | Ending::Storage(_) | Ending::Refused(_) => "error",
            }),
        }
    }

    /// What follows the command's own arguments: event, id, guest, directory.
    pub(super) fn arguments(&self) -> Vec<String> {
        let event = match self.happened {
            Happened::Start => "start",
            Happened::Complete => "complete",
            Happened::Incomplete => "incomplete",
            Happened::NoSpace => "nospace",
        };
        vec![
            event.to_owned(),
            self.id.clone(),
            self.guest.clone(),
            self.dir.display().to_string(),
        ]
    }

    /// The arguments of netdumpd(8)'s handler script: reason, address, host, info file, core file, both relative to the
    /// dump directory, in which it runs. None where netdumpd runs nothing.
    pub(super) fn netdumpd_arguments(&self, root: &Path) -> Option<Vec<String>> {
        let reason = self.netdumpd_reason?;
        let dir = self.dir.strip_prefix(root).unwrap_or(&self.dir);
        Some(vec![
            reason.to_owned(),
            address_of(&self.client_addr).to_owned(),
            self.guest.clone(),
            dir.join(layout::INFO).display().to_string(),
            dir.join(layout::VMCORE).display().to_string(),
        ])
    }

    /// Everything, as one JSON object and a line feed.
    pub(super) fn json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

fn address_of(client_addr: &str) -> &str {
    client_addr.rsplit_once(':').map_or(client_addr, |(address, _)| address)
}
