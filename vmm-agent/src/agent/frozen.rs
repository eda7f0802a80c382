//! A frozen guest as a dump sees it.

use std::sync::Arc;

use guest_shim::abi::PanicRecord;
use vmcore::{CoreferryNote, CpuState, MemoryRange};

use crate::detect::Trigger;
use crate::dump::{DumpSource, SourceError};
use crate::freeze::FrozenState;
use crate::incarnation::Incarnation;
use crate::memory::{GuestMemory, MemoryError};

/// Longest VMCOREINFO that is taken from a guest; Linux reserves one page for it (kernel/vmcore_info.c).
const VMCOREINFO_LEN_MAX: u64 = 64 * 1024;

/// Memory and registers of an incarnation that stands still. Keeps the memory alive as long as the dump needs it.
#[derive(Debug)]
pub(super) struct FrozenGuest {
    memory: Arc<GuestMemory>,
    cpus: Vec<CpuState>,
    vmcoreinfo: Option<Vec<u8>>,
}

impl FrozenGuest {
    /// Takes hold of a frozen guest.
    pub(super) fn new(memory: Arc<GuestMemory>, state: &FrozenState, record: Option<&PanicRecord>) -> Self {
        let vmcoreinfo = record.and_then(|record| vmcoreinfo_of(&memory, record));
        Self {
            memory,
            cpus: state.cpus.clone(),
            vmcoreinfo,
        }
    }
}

/// The VMCOREINFO text that the guest's record points at. The guest may lie: then there is none.
fn vmcoreinfo_of(memory: &GuestMemory, record: &PanicRecord) -> Option<Vec<u8>> {
    let range = record.vmcoreinfo?;
    if range.len_bytes > VMCOREINFO_LEN_MAX {
        tracing::warn!(
            "the guest's VMCOREINFO of {} bytes is left out: too long",
            range.len_bytes
        );
        return None;
    }
    let mut text = vec![0; usize::try_from(range.len_bytes).ok()?];
    memory
        .read_at(range.gpa, &mut text)
        .inspect_err(|error| tracing::warn!("the guest's VMCOREINFO is left out: {error}"))
        .ok()?;
    Some(text)
}

impl DumpSource for FrozenGuest {
    fn ranges(&self) -> &[MemoryRange] {
        self.memory.ranges()
    }

    fn data_extents(&self, range: MemoryRange) -> Result<Vec<MemoryRange>, SourceError> {
        self.memory
            .data_extents(range)
            .map_err(|error| source_error(range.gpa, range.len_bytes, &error))
    }

    fn read_at(&self, gpa: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.memory
            .read_at(gpa, buf)
            .map_err(|error| source_error(gpa, buf.len() as u64, &error))
    }

    fn cpu_states(&self) -> &[CpuState] {
        &self.cpus
    }

    fn vmcoreinfo(&self) -> Option<Vec<u8>> {
        self.vmcoreinfo.clone()
    }
}

fn source_error(gpa: u64, len_bytes: u64, error: &MemoryError) -> SourceError {
    SourceError {
        gpa,
        len_bytes,
        why: error.to_string(),
    }
}

/// What is known about the crash, for the core.
pub(super) fn note(
    vm: &str,
    dump_id: &str,
    trigger: &Trigger,
    triggered_at: &str,
    incarnation: &Incarnation,
    state: &FrozenState,
    record: Option<&PanicRecord>,
) -> CoreferryNote {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    CoreferryNote {
        dump_id: dump_id.to_owned(),
        vm: vm.to_owned(),
        trigger: trigger.name().to_owned(),
        panic: panic_text(trigger, record),
        os: record.and_then(|record| said(&record.os_name.to_string())),
        release: record.and_then(|record| said(&record.release.to_string())),
        crashed_cpu: record
            .and_then(|record| record.crashed_cpu)
            .or_else(|| state.reporting_vcpu()),
        triggered_at: Some(triggered_at.to_owned()),
        frozen_at: Some(jiff::Timestamp::now().to_string()),
        vcpus: state.stops.clone(),
        build_id: record.and_then(|record| said(&hex(record.build_id()))),
        console_tail: String::from_utf8_lossy(&incarnation.console_tail()).into_owned(),
        ..CoreferryNote::default()
    }
}

/// The panic message: the guest's own words if it left any, else what the trigger says. A guest that did not crash has none.
fn panic_text(trigger: &Trigger, record: Option<&PanicRecord>) -> Option<String> {
    if !trigger.is_crash() {
        return None;
    }
    let own_words = record
        .map(|record| record.message.to_string())
        .filter(|message| !message.is_empty());
    Some(own_words.unwrap_or_else(|| match trigger {
        Trigger::PanicConsole { line } => line.clone(),
        other => other.to_string(),
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
