//! Finds the VMCOREINFO of a frozen Linux guest, and from it where the kernel's text lies.
//!
//! The guest may have said where it is, by fw_cfg or in its panic record; else all of its memory is searched. Stale copies
//! of an earlier kernel, and files of users, look just as good: every copy is held against the processors' page tables and
//! the kernel's own words, and the best one counts. Of two kernels that both have a processor, as when one dumps the other, it is
//! that of the processor that reported the crash.

mod candidate;
#[cfg(test)]
mod tests;

use guest_shim::abi::PanicRecord;
use vmcore::coreferry::VmcoreinfoOrigin;
use vmcore::elf::TextMapping;
use vmcore::linux::search;
use vmcore::scan::Progress;
use vmcore::{CpuState, MemoryRange};

use crate::devices::fw_cfg::VmcoreinfoPlace;
use crate::memory::GuestMemory;
use candidate::{Candidate, Verdict};

/// Most copies that are named in the log one by one. An ordinary guest has one; a hostile one must not fill the log.
const LISTED_MAX: u32 = 16;
/// How much is mapped for debuggers: text and data of distribution kernels end within 64 MiB.
const TEXT_LEN_MAX: u64 = 64 << 20;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The text of VMCOREINFO.
    pub(super) text: Vec<u8>,
    /// Where the kernel's text is mapped.
    pub(super) mapping: Option<TextMapping>,
    /// How it was found.
    pub(super) origin: VmcoreinfoOrigin,
}

/// Finds the text that describes the running kernel; `reporter` is the index of the processor that reported the crash. The search of
/// memory ends early when `go_on` says no.
pub(super) fn find(
    memory: &GuestMemory,
    cpus: &[CpuState],
    reporter: Option<usize>,
    place: Option<VmcoreinfoPlace>,
    record: Option<&PanicRecord>,
    go_on: &dyn Fn() -> bool,
) -> Option<Found> {
    let mut choice = Choice::new(memory, cpus, reporter);
    if let Some(place) = place {
        choice.told("fw_cfg", place.gpa, place.len_bytes.into());
    }
    if let Some(range) = record.and_then(|record| record.vmcoreinfo) {
        choice.told("panic-record", range.gpa, range.len_bytes);
    }
    if !choice.is_settled() {
        search::copies(memory, memory.ranges(), u64::MAX, go_on, &mut |copy| {
            choice.consider(Candidate {
                source: "search",
                gpa: copy.gpa,
                text: copy.text,
            });
            Progress::GoOn
        });
    }
    choice.found()
}

/// The best of the copies looked at so far. Only that one is kept, so a guest full of copies costs no memory.
struct Choice<'a> {
    memory: &'a GuestMemory,
    cpus: &'a [CpuState],
    reporter: Option<&'a CpuState>,
    best: Option<(Verdict, Candidate)>,
    looked_at: u32,
}

impl<'a> Choice<'a> {
    fn new(memory: &'a GuestMemory, cpus: &'a [CpuState], reporter: Option<usize>) -> Self {
        Self {
            memory,
            cpus,
            // One that shut down after a triple fault may have been reset since, and knows no kernel any more.
            reporter: reporter.and_then(|index| cpus.get(index)).filter(|cpu| cpu.cr3 != 0),
            best: None,
            looked_at: 0,
        }
    }

    /// Looks where the guest said.
    fn told(&mut self, source: &'static str, gpa: u64, len_bytes: u64) {
        if let Some(candidate) = Candidate::read(self.memory, source, gpa, len_bytes) {
            self.consider(candidate);
        }
    }

    /// Of equally good copies the first counts: what the guest said, then the lowest in memory.
    fn consider(&mut self, candidate: Candidate) {
        let verdict = Verdict::of(self.memory, self.cpus, self.reporter, &candidate.text);
        self.looked_at = self.looked_at.saturating_add(1);
        if self.looked_at <= LISTED_MAX {
            candidate.tell(verdict);
        } else if self.looked_at == LISTED_MAX + 1 {
            tracing::info!("more copies of VMCOREINFO are looked at, but not named");
        }
        if self.best.as_ref().is_none_or(|(best, _)| verdict > *best) {
            self.best = Some((verdict, candidate));
        }
    }

    /// Whether nothing better can come.
    fn is_settled(&self) -> bool {
        self.best.as_ref().is_some_and(|(verdict, _)| verdict.is_best())
    }

    fn found(self) -> Option<Found> {
        let (verdict, candidate) = self.best?;
        let Candidate { source, gpa, text } = candidate;
        if self.looked_at > 1 {
            let (copies, gpa) = (self.looked_at, format_args!("{gpa:#x}"));
            tracing::info!(source, gpa, copies, "chosen among several copies");
        }
        Some(Found {
            mapping: mapping(self.memory, &text),
            text,
            origin: VmcoreinfoOrigin {
                source: source.to_owned(),
                gpa,
                copies: self.looked_at,
                agrees: verdict.text_is_mapped,
            },
        })
    }
}

/// What debuggers shall find at the kernel's virtual addresses.
fn mapping(memory: &GuestMemory, text: &[u8]) -> Option<TextMapping> {
    let (va, gpa) = candidate::text_start(text)?;
    let within = |range: &&MemoryRange| (range.gpa..range.gpa + range.len_bytes).contains(&gpa);
    let range = memory.ranges().iter().find(within)?;
    Some(TextMapping {
        va,
        gpa,
        len_bytes: TEXT_LEN_MAX.min(range.gpa + range.len_bytes - gpa),
    })
}
