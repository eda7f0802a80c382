//! Sessions that are not cores yet: what is running, and what lost its receiver.

use std::fs;
use std::fs::File;
use std::path::Path;

use api::{ByteRange, CoreInfo, CoreLabels, CoreState, CoreSummary, SCHEMA_VERSION};

use super::LocalCores;
use crate::store::{commit, examine, expected, facts, journal, layout};

impl LocalCores {
    /// The dumps that are being received.
    pub(crate) fn running(&self) -> Vec<CoreSummary> {
        self.receiving().into_iter().map(|(summary, _)| summary).collect()
    }

    /// The running sessions, and those that lost their receiver and wait for the next one.
    pub(super) fn receiving(&self) -> Vec<(CoreSummary, journal::SessionHead)> {
        let Ok(listing) = fs::read_dir(self.root.join(layout::SPOOL)) else {
            return Vec::new();
        };
        let dirs = listing.filter_map(Result::ok).map(|entry| entry.path());
        dirs.filter_map(|dir| receiving_summary(&dir)).collect()
    }
}

/// What a list shows of a session directory.
fn receiving_summary(dir: &Path) -> Option<(CoreSummary, journal::SessionHead)> {
    let path = dir.join(layout::JOURNAL);
    let live = journal::is_live(&path).ok()?;
    let recovered = journal::look(&path).ok()?;
    let header = commit::parse_header(&fs::read(dir.join(layout::KERNEL_HEADER)).unwrap_or_default());
    let read_facts = || {
        let file = File::open(dir.join(layout::VMCORE_PART)).ok()?;
        facts::Facts::read(&file, &recovered.received).ok()
    };
    let facts = read_facts().unwrap_or_default();
    let head = recovered.head;
    let received = recovered.received;
    let expected = || {
        let file = File::open(dir.join(layout::VMCORE_PART)).ok()?;
        expected::expected_len(&file, &received).ok()?
    };
    let announced = examine::announced_len(header.as_ref()).or_else(expected).unwrap_or(0);
    let gap_as_hole = |gap: std::ops::Range<u64>| ByteRange {
        offset: gap.start,
        length: gap.end - gap.start,
    };
    let holes = if live {
        // What has not come yet is not lost.
        Vec::new()
    } else {
        received.gaps(0..received.end()).map(gap_as_hole).collect()
    };
    let summary = CoreSummary {
        id: head.id.clone(),
        guest: facts.guest(header.as_ref(), head.herald_label.as_deref(), &head.client_addr),
        client_addr: head.client_addr.clone(),
        received_at: head.started_at.clone(),
        state: if live {
            CoreState::Receiving
        } else {
            CoreState::Incomplete
        },
        panic: facts.panic(header.as_ref()),
        signature: None,
        format: if facts.format.is_empty() {
            "unknown"
        } else {
            facts.format
        }
        .to_owned(),
        file_len_bytes: announced.max(received.end()),
        stored_bytes: received.covered_bytes(),
        holes,
        kernel: facts.kernel(header.as_ref()),
        pinned: false,
    };
    Some((summary, head))
}

/// What is known of a running session.
pub(super) fn receiving_info(summary: CoreSummary, head: journal::SessionHead) -> CoreInfo {
    let reason = match summary.state {
        CoreState::Receiving => "it is still being received",
        _ => "the receiver ended before the sender had finished; the next one will keep what came",
    };
    CoreInfo {
        schema_version: SCHEMA_VERSION,
        reason: Some(reason.to_owned()),
        started_at: head.started_at,
        server_addr: head.server_addr,
        herald_label: head.herald_label,
        zero_bytes: 0,
        excluded_bytes: 0,
        lost_bytes: summary.holes.iter().map(|range| range.length).sum(),
        kernel_header: None,
        note: None,
        duplicate_packets: 0,
        crash: None,
        banner: None,
        build_id: None,
        kernel_offset: None,
        booted_at: None,
        uptime_ms: None,
        cpus: Vec::new(),
        log_source: None,
        problems: Vec::new(),
        group: None,
        repaired: false,
        files: Vec::new(),
        written: CoreLabels::default(),
        summary,
    }
}
