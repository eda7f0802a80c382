//! A frozen guest as a dump sees it.

use std::sync::Arc;
use std::time::Instant;

use guest_shim::abi::PanicRecord;
use vmcore::elf::TextMapping;
use vmcore::linux::filter::FilterLevel;
use vmcore::{CoreferryNote, CpuState, FilterNote, MemoryRange, notes};

use super::vmcoreinfo;
use crate::detect::Trigger;
use crate::devices::fw_cfg::VmcoreinfoPlace;
use crate::dump::{DumpSource, SourceError, filtered_memory};
use crate::freeze::FrozenState;
use crate::incarnation::Incarnation;
use crate::kernel::{BootedKernel, KeptKernel};
use crate::limits::PANIC_TEXT_MAX;
use crate::memory::{GuestMemory, MemoryError};

/// Memory and registers of an incarnation that stands still. Keeps the memory alive as long as the dump needs it.
#[derive(Debug)]
pub(super) struct FrozenGuest {
    memory: Arc<GuestMemory>,
    cpus: Vec<CpuState>,
    reporter: Option<usize>,
    place: Option<VmcoreinfoPlace>,
    record: Option<PanicRecord>,
    linux: Option<vmcoreinfo::Found>,
    excluded: Vec<MemoryRange>,
    booted: BootedKernel,
    kernel: Option<Arc<KeptKernel>>,
}

impl FrozenGuest {
    /// Takes hold of a frozen guest that was started from a kernel file.
    pub(super) fn new(
        incarnation: &Incarnation,
        state: &FrozenState,
        record: Option<PanicRecord>,
        booted: BootedKernel,
    ) -> Self {
        Self {
            memory: incarnation.memory(),
            cpus: state.cpus.clone(),
            reporter: state.reporting_vcpu().and_then(|index| index.try_into().ok()),
            place: incarnation.vmcoreinfo_place(),
            record,
            linux: None,
            excluded: Vec::new(),
            booted,
            kernel: None,
        }
    }

    /// Looks for what a Linux kernel says about itself, which may take reading all memory, and completes `note` by it.
    /// Looks no further when `go_on` says no.
    pub(super) fn look_into(&mut self, note: &mut CoreferryNote, go_on: &dyn Fn() -> bool) {
        let (place, record) = (self.place, self.record.as_ref());
        self.linux = vmcoreinfo::find(&self.memory, &self.cpus, self.reporter, place, record, go_on);
        if let Some(linux) = &self.linux {
            add_own_words(note, linux);
        }
    }

    /// Takes what the kernel file tells, and the file itself if it is to be kept; waits for it until `deadline`, or until `go_on` says
    /// no. What the guest said of itself comes first: it may have started another kernel by kexec.
    pub(super) fn take_kernel(
        &mut self,
        deadline: Option<Instant>,
        go_on: &dyn Fn() -> bool,
        note: &mut CoreferryNote,
    ) {
        let facts = self.booted.facts(deadline, go_on);
        add_booted_build_id(note, facts.build_id);
        let checked = facts.kept.map(|kept| match kept {
            Ok(kernel) => kernel.check().map(|()| kernel).map_err(Arc::new),
            Err(why) => Err(why),
        });
        match checked {
            Some(Ok(kernel)) => self.kernel = Some(kernel),
            Some(Err(why)) => note.troubles.push(format!("the kernel file is not in the core: {why}")),
            None => {}
        }
    }

    /// Leaves out of the core what a level leaves out, or nothing if that cannot be told; `note` says which.
    pub(super) fn filter(&mut self, level: FilterLevel, note: &mut CoreferryNote) {
        match filtered_memory(self, level) {
            Ok(found) => {
                note.filter = Some(FilterNote {
                    level: level.number(),
                    excluded_pages: found.excluded_pages(),
                    scattered_pages: found.scattered_pages,
                    unknown_pages: found.unknown_pages,
                });
                self.excluded = found.excluded;
            }
            Err(why) => note.troubles.push(format!("not filtered: {why}")),
        }
    }
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
        self.linux.as_ref().map(|linux| linux.text.clone())
    }

    fn excluded(&self) -> &[MemoryRange] {
        &self.excluded
    }

    fn kernel(&self) -> Option<&KeptKernel> {
        self.kernel.as_deref()
    }

    fn text(&self) -> Option<TextMapping> {
        self.linux.as_ref().and_then(|linux| linux.mapping)
    }
}

/// What a Linux kernel says of itself. If page tables say that it runs, it counts more than a panic record, which a kernel before it may
/// have left.
fn add_own_words(note: &mut CoreferryNote, linux: &vmcoreinfo::Found) {
    let choose = |told: Option<String>, key| {
        let own = notes::vmcoreinfo::value(&linux.text, key).map(str::to_owned);
        if linux.origin.agrees {
            own.or(told)
        } else {
            told.or(own)
        }
    };
    note.release = choose(note.release.take(), "OSRELEASE");
    note.build_id = choose(note.build_id.take(), "BUILD-ID");
    note.vmcoreinfo = Some(linux.origin.clone());
    note.os.get_or_insert_with(|| "linux".to_owned());
}

/// The build id of the file that was booted, which is the kernel's only if the guest did not say another one.
fn add_booted_build_id(note: &mut CoreferryNote, booted: Option<String>) {
    note.build_id = note.build_id.take().or_else(|| booted.clone());
    note.booted_build_id = booted;
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
    let console_tail = String::from_utf8_lossy(&incarnation.console_tail()).into_owned();
    CoreferryNote {
        dump_id: dump_id.to_owned(),
        vm: vm.to_owned(),
        trigger: trigger.name().to_owned(),
        panic: panic_text(trigger, record, &console_tail),
        os: record.and_then(|record| said(&record.os_name.to_string())),
        release: record.and_then(|record| said(&record.release.to_string())),
        crashed_cpu: record
            .and_then(|record| record.crashed_cpu)
            .or_else(|| state.reporting_vcpu()),
        triggered_at: Some(triggered_at.to_owned()),
        frozen_at: Some(jiff::Timestamp::now().to_string()),
        vcpus: state.stops.clone(),
        troubles: state.troubles.clone(),
        build_id: record.and_then(|record| said(&hex(record.build_id()))),
        console_tail,
        ..CoreferryNote::default()
    }
}

/// The panic message: the guest's own words if it left any, in its record or at last on its console, else what the trigger
/// says. A guest that did not crash has none.
fn panic_text(trigger: &Trigger, record: Option<&PanicRecord>, console_tail: &str) -> Option<String> {
    if !trigger.is_crash() {
        return None;
    }
    let own_words = record
        .map(|record| record.message.to_string())
        .filter(|message| !message.is_empty());
    Some(own_words.unwrap_or_else(|| match trigger {
        Trigger::PanicConsole { line } => line.clone(),
        // A kernel may also panic before its driver of pvpanic is loaded and then reset by a triple fault.
        other => console_words(console_tail).unwrap_or_else(|| other.to_string()),
    }))
}

/// The last line by which Linux says on its console that it panics (kernel/panic.c, `panic`), without its time.
fn console_words(console_tail: &str) -> Option<String> {
    let start = console_tail.rfind("Kernel panic - not syncing")?;
    let line = console_tail.get(start..)?.lines().next()?;
    Some(
        line.chars()
            .take(PANIC_TEXT_MAX)
            .collect::<String>()
            .trim_end()
            .to_owned(),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use vmcore::coreferry::VmcoreinfoOrigin;

    use super::*;

    #[test]
    fn the_kernel_that_runs_counts_more_than_a_record_of_one_before() {
        for (agrees, release, build_id) in [(true, "6.12.0", "bb"), (false, "6.1.0", "aa")] {
            let linux = vmcoreinfo::Found {
                text: b"OSRELEASE=6.12.0\nBUILD-ID=bb\n".to_vec(),
                mapping: None,
                origin: VmcoreinfoOrigin {
                    agrees,
                    ..VmcoreinfoOrigin::default()
                },
            };
            let mut note = CoreferryNote {
                release: Some("6.1.0".to_owned()),
                build_id: Some("aa".to_owned()),
                ..CoreferryNote::default()
            };
            add_own_words(&mut note, &linux);
            assert_eq!(
                (note.release.as_deref(), note.build_id.as_deref()),
                (Some(release), Some(build_id))
            );
            let mut silent = CoreferryNote::default();
            add_own_words(&mut silent, &linux);
            assert_eq!(silent.build_id.as_deref(), Some("bb"));
        }
    }

    #[test]
    fn the_guests_own_word_on_its_kernel_comes_before_that_of_the_file() {
        let with = |said: Option<&str>, booted: Option<&str>| {
            let mut note = CoreferryNote {
                build_id: said.map(str::to_owned),
                ..CoreferryNote::default()
            };
            add_booted_build_id(&mut note, booted.map(str::to_owned));
            (note.build_id, note.booted_build_id)
        };
        let some = |id: &str| Some(id.to_owned());
        assert_eq!(with(Some("aa"), Some("bb")), (some("aa"), some("bb")));
        assert_eq!(with(None, Some("bb")), (some("bb"), some("bb")));
        assert_eq!(with(Some("aa"), None), (some("aa"), None));
    }

    #[test]
    fn the_panic_is_what_the_guest_said_last() {
        let tail = "[    1.0] Kernel panic - not syncing: an earlier one\r\nx\n[    9.4] Kernel panic - not syncing: sysrq\r\n[    9.5] CPU: 0";
        assert_eq!(
            panic_text(&Trigger::Pvpanic, None, tail).as_deref(),
            Some("Kernel panic - not syncing: sysrq")
        );
        assert_eq!(
            panic_text(&Trigger::TripleFault, None, tail).as_deref(),
            Some("Kernel panic - not syncing: sysrq"),
            "a kernel that panics and then resets by a triple fault"
        );
        let without = panic_text(&Trigger::Pvpanic, None, "quiet").unwrap();
        assert_eq!(without, Trigger::Pvpanic.to_string());
        assert_eq!(panic_text(&Trigger::CrashLoaded, None, tail), None);
    }
}
