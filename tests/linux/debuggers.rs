//! Debuggers open the cores of a stock guest, and see what the guest was: its tasks, its log, the crashed task's stack and the
//! registers of both processors.
//!
//! One guest tells by fw_cfg where its VMCOREINFO lies; the other one does not, and has forged, stale and broken copies of it in
//! its memory. With everything asked for, both also run without KASLR.

#[path = "debuggers/crash.rs"]
mod crash;
#[path = "debuggers/drgn.rs"]
mod drgn;
#[path = "debuggers/gdb.rs"]
mod gdb;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::case::Case;
use crate::kept::Desk;
use crate::kernels::Kernel;
use crate::ours::OurCore;
use crate::readers;
use crate::seen::Seen;
use crate::testbed::Testbed;

pub(crate) use drgn::run_script;

/// A shell that debuggers shall find, the kernel's own words about itself, and the crash.
pub(crate) const TOLD: &str = r#"
load pvpanic_mmio qemu_fw_cfg
sh -c 'sleep 3600; true' &
echo "NOTE AT $(cat /sys/kernel/vmcoreinfo)"
"#;

/// What a program says last and the kernel's own words share the console: the program's come first.
pub(crate) const CRASH: &str = "sleep 2; echo c > /proc/sysrq-trigger\n";

/// As above without fw_cfg's driver. The note comes from /proc/kcore, which has it behind its headers (fs/proc/kcore.c); its
/// copies are files in memory, so they begin at pages as the real one does.
const SEARCHED: &str = r#"
load pvpanic_mmio
sh -c 'sleep 3600; true' &
echo "NOTE AT $(cat /sys/kernel/vmcoreinfo)"
head -c 16384 /proc/kcore | tr '\000' '\n' | sed -n '/^OSRELEASE=/,/^$/p' | sed '/^$/d' > /tmp/text
field() { sed -n "s/^$1=//p" /tmp/text; }
for key in OSRELEASE BUILD-ID 'SYMBOL(_stext)' 'NUMBER(phys_base)' KERNELOFFSET; do echo "TRUE $key=$(field "$key")"; done
note() {
  len=$(wc -c < $1)
  printf "\\013\\000\\000\\000\\$(printf %o $((len % 256)))\\$(printf %o $((len / 256)))\\000\\000\\000\\000\\000\\000VMCOREINFO\\000\\000"
  cat $1
}
moved() { printf %x $((0x$1 + 0x600000)); }
sed -e "s/^KERNELOFFSET=.*/KERNELOFFSET=$(moved $(field KERNELOFFSET))/" \
  -e "s/^SYMBOL(_stext)=.*/SYMBOL(_stext)=$(moved $(field 'SYMBOL(_stext)'))/" \
  -e "s/^NUMBER(phys_base)=.*/NUMBER(phys_base)=$(($(field 'NUMBER(phys_base)') - 0x400000))/" /tmp/text > /tmp/stale
sed -e 's/^KERNELOFFSET=.*/KERNELOFFSET=1200000/' /tmp/text > /tmp/offset
sed -e 's/^OSRELEASE=.*/OSRELEASE=5.10.0-stale/' /tmp/text > /tmp/other
for copy in text stale offset other; do note /tmp/$copy > /tmp/$copy.note; done
n=0; while [ $n -lt 20 ]; do cp /tmp/stale.note /tmp/copy$n; n=$((n+1)); done
(head -c 1000 /tmp/text.note; head -c 7192 /dev/urandom) > /tmp/broken
echo "OSRELEASE=$(uname -r) VMCOREINFO KERNELOFFSET=0" > /dev/kmsg
"#;

/// Copies that look whole: of the text, of the stale ones, of the one with another offset, of the one with another release, and
/// the kernel's own. The broken one looks whole too, by its beginning.
const COPIES: u32 = 1 + 21 + 1 + 1 + 1 + 1;

/// The guests, of the kernel whose debug information the testbed has.
pub(crate) fn cases(everything: bool) -> Vec<Case> {
    let case = |name, payload: &str| {
        Case::new(name, Kernel::Cloud61)
            .payload(&format!("{payload}{CRASH}"))
            .brings_core()
    };
    let mut cases = vec![
        // What debuggers do not look at must not disturb them.
        case("told", TOLD).options("--keep-kernel").expect(panicked),
        case("searched", SEARCHED).expect(panicked),
    ];
    if everything {
        cases.push(case("told-fixed", TOLD).append("nokaslr").expect(panicked));
        cases.push(case("searched-fixed", SEARCHED).append("nokaslr").expect(panicked));
    }
    cases
}

pub(crate) fn panicked(seen: &Seen) -> Result<String> {
    seen.exited(10)?;
    seen.line("the guest reported a panic (pvpanic)")?;
    seen.never("INSMOD FAILED")?;
    let core = seen.core()?;
    let panic = &core["panic"];
    ensure!(panic == "Kernel panic - not syncing: sysrq triggered crash", "{panic}");
    let stored = core["stored_bytes"].as_u64().context("no stored_bytes")?;
    Ok(format!("{} MiB stored", stored >> 20))
}

/// Each debugger opens each core, two cores at a time: one process of each would not fill the machine.
pub(crate) fn check(testbed: &Testbed, dir: &Path, all: &[Seen]) -> Result<()> {
    let mut failures = String::new();
    for pair in all.chunks(2) {
        let checked = thread::scope(|scope| {
            let started: Vec<_> = pair
                .iter()
                .map(|seen| scope.spawn(|| check_one(testbed, dir, seen).context(seen.name.clone())))
                .collect();
            started
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|_| Err(anyhow!("the check panicked"))))
                .collect::<Vec<_>>()
        });
        for error in checked.into_iter().filter_map(Result::err) {
            failures += &format!("{error:#}\n");
        }
    }
    ensure!(failures.is_empty(), "{failures}");
    Ok(())
}

fn check_one(testbed: &Testbed, dir: &Path, seen: &Seen) -> Result<()> {
    let dir = dir.join(format!("readers-{}", seen.name));
    fs::create_dir_all(&dir)?;
    let core = OurCore::open(&seen.file("core/vmcore"))?;
    let name = &seen.name;
    eprintln!("{name}: {}", vmcoreinfo(seen, &core)?);
    kept_kernel(testbed, &dir, seen, &core)?;
    // Each one is asked, also when one before it has failed: the report names them all.
    let answers = [
        ("readelf", readers::readelf(testbed, &dir, &core)),
        ("gdb", gdb::check(testbed, &dir, &core)),
        ("drgn", drgn::check(testbed, &dir, &core)),
        ("crash", crash::check(testbed, &dir, &core)),
        ("makedumpfile", readers::makedumpfile(testbed, &dir, &core)),
    ];
    let mut failures = String::new();
    for (reader, answer) in answers {
        match answer {
            Ok(said) => eprintln!("{name}: {reader}: {said}"),
            Err(error) => failures += &format!("{reader}: {error:#}\n"),
        }
    }
    ensure!(failures.is_empty(), "{failures}");
    Ok(())
}

/// The core of the guest whose kernel is kept has the file in it, byte by byte; the other ones have none. It is a packed one, so that
/// who has no symbols hears what is missing and where to get it.
fn kept_kernel(testbed: &Testbed, dir: &Path, seen: &Seen, core: &OurCore) -> Result<()> {
    let is_kept = seen.name == "told";
    ensure!(is_kept == core.note.kept_kernel.is_some(), "{:?}", core.note);
    let Some(kept) = &core.note.kept_kernel else {
        return Ok(());
    };
    let booted = fs::read(Kernel::Cloud61.file(testbed, "vmlinuz"))?;
    let mut found = vec![0; usize::try_from(kept.len_bytes)?];
    File::open(&core.path)?.read_exact_at(&mut found, kept.file_offset)?;
    ensure!(found == booted, "the kernel in the core is not the one that was booted");
    let said = Desk::new(testbed, dir, seen)?.refused(&[])?;
    let release = core.vmcoreinfo("OSRELEASE")?;
    for part in [
        format!(
            "no symbols for kernel {release}, build id {}",
            core.vmcoreinfo("BUILD-ID")?
        ),
        "vmlinuz in the core is this kernel, but packed: it has no symbols".to_owned(),
        "no debuginfod server is named in DEBUGINFOD_URLS".to_owned(),
        format!("the way out: Debian's package linux-image-{release}-dbg"),
    ] {
        ensure!(said.contains(&part), "`{part}` is not said:\n{said}");
    }
    Ok(())
}

/// The core has the kernel's own VMCOREINFO, and its note says how it was found.
fn vmcoreinfo(seen: &Seen, core: &OurCore) -> Result<String> {
    let note = &core.note;
    ensure!((note.trigger.as_str(), note.vcpus.len()) == ("pvpanic", 2), "{note:?}");
    ensure!(note.release.as_deref() == core.vmcoreinfo("OSRELEASE").ok(), "{note:?}");
    let build_id = core.vmcoreinfo("BUILD-ID").ok();
    ensure!(
        note.booted_build_id.as_deref() == build_id && note.build_id.as_deref() == build_id,
        "{note:?}"
    );
    ensure!(note.console_tail.contains("sysrq triggered crash"), "{note:?}");
    let Some(origin) = &note.vmcoreinfo else {
        bail!("the note does not say where the VMCOREINFO is from: {note:?}")
    };
    ensure!(origin.agrees, "{origin:?}");
    // `0x000000000130a000 1024`: address and size (kernel/ksysfs.c).
    let said = seen.line("NOTE AT ")?.trim_start_matches("NOTE AT 0x");
    let at = said.split_whitespace().next().unwrap_or_default();
    ensure!(
        origin.gpa == u64::from_str_radix(at, 16)?,
        "{origin:?}, and the guest says {said}"
    );
    let fixed = seen.name.ends_with("-fixed");
    ensure!(
        fixed == (core.vmcoreinfo("KERNELOFFSET")? == "0"),
        "KASLR is not as asked for"
    );
    if seen.name.starts_with("told") {
        ensure!((origin.source.as_str(), origin.copies) == ("fw_cfg", 1), "{origin:?}");
        return Ok(format!("{origin:?}"));
    }
    ensure!(origin.source == "search" && origin.copies >= COPIES, "{origin:?}");
    for line in seen.output.lines().filter_map(|line| line.strip_prefix("TRUE ")) {
        let (key, value) = line.split_once('=').context("a field has a value")?;
        ensure!(core.vmcoreinfo(key)? == value, "{key} is not {value}");
    }
    // Each copy is named in the log, up to a bound.
    let named = seen.output.lines().filter(|line| line.contains("INFO VMCOREINFO"));
    ensure!(named.count() == 16, "not all copies are named");
    Ok(format!("{origin:?}"))
}
