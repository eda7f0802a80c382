//! What kind of system it was, since when it ran, and how its processors stood.

use std::collections::BTreeMap;

use api::{CpuFacts, Explanation};
use jiff::{SignedDuration, Timestamp};
use vmcore::CpuState;
use vmcore::coreferry::CoreferryNote;
use vmcore::image::FileBytes;
use vmcore::notes::vmcoreinfo;

use super::core::OpenCore;
use crate::escape;
use crate::limits::EXPLAINED_CPUS_MAX;
use crate::store::manifest::Manifest;

/// Tells what notes and registers say.
pub(super) fn tell<F: FileBytes>(core: &OpenCore<F>, manifest: &Manifest, explanation: &mut Explanation) {
    let value = |key| vmcoreinfo::value(core.vmcoreinfo.as_deref()?, key).and_then(escape::some_line);
    let note = manifest.note.as_ref();
    explanation.release = note
        .and_then(|note| note.release.clone())
        .or_else(|| value("OSRELEASE"));
    // The kernel's own word first: the note may have that of the file that was booted, and the guest have gone on to another one.
    explanation.build_id = value("BUILD-ID").or_else(|| note?.build_id.clone());
    let said = core.vmcoreinfo.as_deref().and_then(vmcoreinfo::kernel_offset);
    let offset = said.or_else(|| core.place.as_ref()?.kernel_offset());
    explanation.banner = core.place.as_ref().map(|place| escape::one_line(&place.banner));
    explanation.kernel_offset = offset.map(|offset| format!("{offset:#x}"));
    let shown = core.cpus.iter().take(EXPLAINED_CPUS_MAX).enumerate();
    explanation.cpus = shown
        .map(|(index, cpu)| facts(index, cpu, core.has_control_registers, core.note.as_ref()))
        .collect();
    if core.cpus.len() > EXPLAINED_CPUS_MAX {
        let count = core.cpus.len();
        explanation.problems.push(format!(
            "the registers of {EXPLAINED_CPUS_MAX} of {count} processors are shown"
        ));
    }
}

/// Tells what follows from the log and from the time of the crash.
pub(super) fn tell_from_log(text: Option<&str>, manifest: &Manifest, explanation: &mut Explanation) {
    explanation.banner = text.and_then(banner).or_else(|| explanation.banner.take());
    if explanation.release.is_none() {
        let release = explanation.banner.as_deref().and_then(release_of);
        explanation.release = release.map(str::to_owned);
    }
    if explanation.uptime_ms.is_none() {
        explanation.uptime_ms = text.and_then(last_time_ms);
    }
    let uptime = explanation.uptime_ms.and_then(|ms| i64::try_from(ms).ok());
    let booted = uptime.zip(crashed_at(manifest)).and_then(|(uptime_ms, crashed_at)| {
        let booted = crashed_at.checked_sub(SignedDuration::from_millis(uptime_ms)).ok()?;
        booted.round(jiff::Unit::Second).ok()
    });
    explanation.booted_at = booted.map(|time| time.to_string());
}

/// When the guest crashed: the agent's trigger, else the time in the kernel dump header.
fn crashed_at(manifest: &Manifest) -> Option<Timestamp> {
    let note = manifest.note.as_ref();
    let triggered = note.and_then(|note| note.triggered_at.as_ref()?.parse().ok());
    triggered.or_else(|| {
        let header = manifest
            .kernel_header
            .as_ref()
            .filter(|header| header.dump_time_s > 0)?;
        Timestamp::from_second(i64::try_from(header.dump_time_s).ok()?).ok()
    })
}

/// The line by which a kernel names itself: `linux_banner` (init/version.c), or FreeBSD's `version` (sys/conf/newvers.sh).
fn banner(log: &str) -> Option<String> {
    let bare = log.lines().map(without_time);
    let is_banner = |line: &&str| {
        line.starts_with("Linux version ")
            || line
                .strip_prefix("FreeBSD ")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut found = bare.filter(is_banner);
    // A message buffer of FreeBSD may still have that of earlier boots.
    let last = found.next_back()?;
    escape::some_line(last)
}

/// The line without `[   12.345678] `.
fn without_time(line: &str) -> &str {
    let behind = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    behind.map_or(line, |(_, text)| text)
}

/// `6.1.0-18-amd64` of `Linux version 6.1.0-18-amd64 (…)`, `14.1-RELEASE` of `FreeBSD 14.1-RELEASE …`.
fn release_of(banner: &str) -> Option<&str> {
    let words = banner
        .strip_prefix("Linux version ")
        .or_else(|| banner.strip_prefix("FreeBSD "));
    words?.split_ascii_whitespace().next()
}

/// The time of the last line of a console that prints times.
fn last_time_ms(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| {
        let (seconds, rest) = line.strip_prefix('[')?.split_once(']')?.0.trim().split_once('.')?;
        let millis = rest.get(..3)?.parse::<u64>().ok()?;
        seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(millis)
    })
}

/// One processor.
fn facts(index: usize, cpu: &CpuState, has_control_registers: bool, note: Option<&CoreferryNote>) -> CpuFacts {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let stop = note.and_then(|note| note.vcpus.iter().find(|stop| stop.index == index));
    CpuFacts {
        index,
        state: stop.and_then(|stop| escape::some_line(&stop.state)),
        // The two low bits of CS are the privilege level (AMD64 APM vol. 2, 4.5.1).
        user_mode: cpu.cs.selector & 3 == 3,
        registers: registers(cpu, has_control_registers),
    }
}

fn registers(cpu: &CpuState, has_control_registers: bool) -> BTreeMap<String, String> {
    let general = [
        ("rax", cpu.rax),
        ("rbx", cpu.rbx),
        ("rcx", cpu.rcx),
        ("rdx", cpu.rdx),
        ("rsi", cpu.rsi),
        ("rdi", cpu.rdi),
        ("rbp", cpu.rbp),
        ("rsp", cpu.rsp),
        ("r8", cpu.r8),
        ("r9", cpu.r9),
        ("r10", cpu.r10),
        ("r11", cpu.r11),
        ("r12", cpu.r12),
        ("r13", cpu.r13),
        ("r14", cpu.r14),
        ("r15", cpu.r15),
        ("rip", cpu.rip),
        ("rflags", cpu.rflags),
        ("cs", cpu.cs.selector.into()),
        ("ss", cpu.ss.selector.into()),
        ("fs_base", cpu.fs.base),
        ("gs_base", cpu.gs.base),
    ];
    let control = [("cr0", cpu.cr0), ("cr2", cpu.cr2), ("cr3", cpu.cr3), ("cr4", cpu.cr4)];
    let control = control.into_iter().filter(|_| has_control_registers);
    let all = general.into_iter().chain(control);
    all.map(|(name, value)| (name.to_owned(), format!("{value:#x}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_named_by_its_own_words() {
        let linux = "[    0.000000] Linux version 6.1.0-18-amd64 (debian) #1 SMP\n[    2.5] x\n";
        let name = banner(linux).unwrap();
        assert_eq!(name, "Linux version 6.1.0-18-amd64 (debian) #1 SMP");
        assert_eq!(release_of(&name), Some("6.1.0-18-amd64"));
        let freebsd = "FreeBSD is a registered trademark of The FreeBSD Foundation.\nFreeBSD 13.2-RELEASE old\n\
                       FreeBSD 14.1-RELEASE releng/14.1 GENERIC amd64\n";
        let name = banner(freebsd).unwrap();
        assert_eq!(release_of(&name), Some("14.1-RELEASE"));
        assert_eq!(banner("nothing\n"), None);
    }

    #[test]
    fn the_last_time_of_a_console_is_the_uptime() {
        assert_eq!(
            last_time_ms("[    1.500000] a\n[   12.345678] b\nno time\n"),
            Some(12_345)
        );
        for text in ["", "x", "[a.b] c", "[ 1.2] too short", "[99999999999999999999.000] x"] {
            assert_eq!(last_time_ms(text), None, "{text}");
        }
    }
}
