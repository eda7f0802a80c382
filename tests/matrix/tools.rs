//! The tools, each on each form of a core.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::combination::Combination;
use crate::common::{Serve, path_text, run_ok};
use crate::ours::{self, OurCore};
use crate::testbed::Testbed;
use crate::{guest, readers, run};

/// What came of one tool and one form.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) tool: &'static str,
    pub(crate) form: &'static str,
    pub(crate) said: String,
    pub(crate) failed: bool,
    /// A known fault of the tool, or why it was not asked, in a word or two.
    pub(crate) known: Option<&'static str>,
}

/// It takes ten seconds for each GiB; the rest is room for a busy machine.
const VOLATILITY_LIMIT: Duration = Duration::from_secs(1200);
/// Debian builds makedumpfile without zstd: it must say so, not write nonsense.
const NO_ZSTD: &str = "no zstd";
/// crash 8.0.2 does not know kernels from 6.10 on: see [`fault_of_old_crash`].
const CRASH_TOO_OLD: &str = "too old";
/// gdb reads no compressed cores, nor does Volatility 3.
const ELF_ONLY: &str = "ELF only";
/// It needs debug information, which the testbed has for the short matrix of one kernel only.
const NO_SYMBOLS: &str = "not tried";

/// A guest keeps two processors busy; more of them at a time would only be slower.
static ONE_GUEST: Mutex<()> = Mutex::new(());

/// Makes the core and asks everyone.
pub(crate) fn check(testbed: &Testbed, combination: &Combination) -> Result<Vec<Cell>> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let guest = combination.guest(testbed, dir)?;
    let dump = {
        let _one = ONE_GUEST.lock().unwrap_or_else(PoisonError::into_inner);
        guest::panicked_core(testbed, dir, &guest)?
    };
    ensure!(
        ours::is_told(&dump)? == combination.driver,
        "QEMU's own dump has a VMCOREINFO although there was no driver, or has none"
    );
    let elf = ours::rewrite(&dump, &dir.join("vmcore"), ours::Notes::All)?;
    fs::remove_file(dump)?;
    ensure!(
        elf.cpus.len() == combination.vcpus,
        "registers of {} vCPUs",
        elf.cpus.len()
    );
    ensure!(
        elf.vmcoreinfo("OSRELEASE")? == combination.release(testbed)?,
        "another kernel"
    );
    let mut kdump = elf.clone();
    kdump.path = dir.join("vmcore.kdump");
    let own = own_words(dir, &elf.path, &kdump.path)?;

    let mut cells = vec![cell("coreferry", "ELF", Ok(own), None)];
    let has_symbols = testbed.symbols(elf.vmcoreinfo("OSRELEASE")?).is_some();
    for (form, core) in [("ELF", &elf), ("kdump-zstd", &kdump)] {
        let mut ask = |tool, reader: fn(&Testbed, &Path, &OurCore) -> Result<String>, known| {
            let start = Instant::now();
            let answer = match known {
                Some(NO_SYMBOLS) => Ok("the testbed has no symbols of its kernel".to_owned()),
                _ => reader(testbed, dir, core),
            };
            cells.push(cell(tool, form, answer, known));
            eprintln!("{tool} on {form}: {:.1} s", start.elapsed().as_secs_f64());
        };
        let with_symbols = (!has_symbols).then_some(NO_SYMBOLS);
        match with_symbols {
            None if combination.is_too_new_for_crash() => ask("crash", crash_refuses, Some(CRASH_TOO_OLD)),
            _ => ask("crash", readers::crash, with_symbols),
        }
        ask("drgn", readers::drgn, with_symbols);
        ask("drgn without symbols", drgn_opens, None);
        if form == "ELF" {
            ask("gdb", readers::gdb, with_symbols);
            ask("makedumpfile -d 31", makedumpfile, None);
            ask("Volatility 3", volatility, None);
        } else {
            ask("gdb", gdb_refuses, Some(ELF_ONLY));
            ask("makedumpfile -d 31", makedumpfile_refuses, Some(NO_ZSTD));
            ask("Volatility 3", volatility_finds_nothing, Some(ELF_ONLY));
        }
    }
    Ok(cells)
}

fn cell(tool: &'static str, form: &'static str, answer: Result<String>, known: Option<&'static str>) -> Cell {
    let failed = answer.is_err();
    let said = answer.unwrap_or_else(|error| format!("{error:#}"));
    Cell {
        tool,
        form,
        said,
        failed,
        known,
    }
}

/// The receiver's explanation of the core, and its export.
fn own_words(dir: &Path, vmcore: &Path, kdump: &Path) -> Result<String> {
    let store = dir.join("store");
    let serve = Serve::start(&store);
    run_ok(&["send", path_text(vmcore), "--to", &serve.netdump.to_string()]);
    serve.settled_cores(1);
    let from = ["--dir", path_text(&store)];
    let log = run_ok(&["cores", "log", "latest", from[0], from[1]]);
    let panic = "Kernel panic - not syncing: sysrq triggered crash";
    ensure!(log.contains(panic), "no panic in the log:\n{log}");
    let export = ["cores", "export", "latest", "--format", "kdump-zstd", "-o"];
    run_ok(&[&export[..], &[path_text(kdump)], &from].concat());
    Ok(format!("a log of {} lines", log.lines().count()))
}

/// drgn takes it for a kernel's core, and finds its VMCOREINFO.
fn drgn_opens(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    const SCRIPT: &str = "import drgn, sys\nprog = drgn.Program()\nprog.set_core_dump(sys.argv[1])\n\
        print(prog['VMCOREINFO'].string_().decode().splitlines()[0])\n";
    let script = dir.join("opens.py");
    fs::write(&script, SCRIPT)?;
    let mut python = testbed.command("python3");
    python.env("DEBUGINFOD_URLS", "").arg(&script).arg(&core.path);
    let said = run::output(&mut python, dir, "", readers::LIMIT)?;
    let expected = format!("OSRELEASE={}", core.vmcoreinfo("OSRELEASE")?);
    ensure!(said.contains(&expected), "{said}");
    Ok(expected)
}

/// It filters to a file.
fn makedumpfile(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let len = readers::makedumpfile_only(testbed, dir, core)?;
    Ok(format!("filtered to {len} bytes"))
}

/// As Debian builds it, it cannot read pages of zstd.
fn makedumpfile_refuses(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    match makedumpfile(testbed, dir, core) {
        Ok(said) => bail!("it reads zstd now ({said}): the fault is to be taken off the list"),
        Err(_) => run::said(dir)
            .lines()
            .find(|line| !line.trim().is_empty())
            .map(str::to_owned)
            .context("it says nothing"),
    }
}

/// It gives up on the core by one of its known faults.
fn crash_refuses(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let release = core.vmcoreinfo("OSRELEASE")?;
    let symbols = testbed.symbols(release).context("no symbols")?;
    let mut crash = testbed.command("crash");
    crash.arg("-d1").arg(symbols).arg(&core.path);
    if let Ok(said) = run::output(&mut crash, dir, "sys\nquit\n", readers::LIMIT) {
        bail!("it opens the core now; the fault is to be taken off the list:\n{said}");
    }
    let said = run::said(dir);
    let is_moved = core.vmcoreinfo("KERNELOFFSET")? != "0";
    let line = fault_of_old_crash(&said, release, is_moved);
    Ok(line
        .with_context(|| format!("another fault than the known one:\n{said}"))?
        .to_owned())
}

/// By what crash 8.0.2 gives up on a kernel that is too new for it, of all that it said. It tells by the symbol `module_load_offset`,
/// gone since 6.10, that KASLR has moved a kernel: without it, it reads from the wrong place what it needs first, one place in one run and
/// another in the next. A kernel that was moved by nothing it understands, up to the lengths in `struct module`, gone since 6.4.
fn fault_of_old_crash<'s>(said: &'s str, release: &str, is_moved: bool) -> Option<&'s str> {
    if !is_moved {
        return said
            .lines()
            .find(|line| line.contains("invalid structure member offset: module_core_size"));
    }
    let mut versions = said
        .lines()
        .filter_map(|line| line.strip_prefix("base kernel version: "));
    let is_misread = versions.any(|version| !release.starts_with(version.trim()))
        || said
            .lines()
            .any(|line| line.ends_with("cannot determine base kernel version"));
    said.lines().find(|line| {
        let is_absent = line.contains(" error: kernel virtual address: ") && line.contains("page_offset_base");
        is_absent || is_misread && line.ends_with("do not match!")
    })
}

#[test]
fn faults_of_old_crash_are_told_from_others() {
    let release = "6.12.117+deb12-amd64";
    let absent = "crash: read error: kernel virtual address: ffffffff825d85a8  type: \"page_offset_base\"";
    let mismatch = "crash: vmlinux and vmcore do not match!";
    let misread = format!("base kernel version: 4.7.1\n{mismatch}");
    let unreadable = format!("crash: cannot determine base kernel version\n{mismatch}");
    for (said, expected) in [(absent, absent), (&misread, mismatch), (&unreadable, mismatch)] {
        assert_eq!(fault_of_old_crash(said, release, true), Some(expected));
        assert_eq!(fault_of_old_crash(said, release, false), None);
    }
    let lengths = "crash: invalid structure member offset: module_core_size";
    assert_eq!(fault_of_old_crash(lengths, release, false), Some(lengths));
    assert_eq!(fault_of_old_crash(lengths, release, true), None);
    let right = format!("base kernel version: 6.12.117\n{mismatch}");
    assert_eq!(fault_of_old_crash(&right, release, true), None);
}

/// It takes ELF for the only form of a core.
fn gdb_refuses(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let mut gdb = testbed.command("gdb");
    gdb.args(["-batch", "-nx", "-ex"])
        .arg(format!("core-file {}", core.path.display()));
    // Its status tells nothing.
    let said = run::output(&mut gdb, dir, "", readers::LIMIT).unwrap_or_else(|error| format!("{error:#}"));
    let refusal = said.lines().find(|line| line.contains("is not a core dump"));
    let refusal =
        refusal.with_context(|| format!("it opens kdump now; the fault is to be taken off the list:\n{said}"))?;
    Ok(refusal.to_owned())
}

/// Volatility finds the kernel's banner in memory.
fn volatility(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let said = volatility_says(testbed, dir, core)?;
    let banner = format!("Linux version {} ", core.vmcoreinfo("OSRELEASE")?);
    let line = said.lines().find(|line| line.contains(&banner));
    let line = line.with_context(|| format!("no line with {banner:?} in:\n{said}"))?;
    Ok(line.chars().take(120).collect())
}

/// What Volatility's `banners` prints of a file. It must not ask the network for symbols.
fn volatility_says(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    const PROGRAM: &str = "import sys\nsys.path.insert(0, sys.argv.pop(1))\nsys.argv[0] = 'vol'\n\
        from volatility3.cli import main\nsys.exit(main())\n";
    let cache = dir.join("cache");
    fs::create_dir_all(&cache)?;
    let mut python = testbed.command("python3");
    python.args(["-c", PROGRAM]).arg(testbed.path("volatility"));
    python.args(["-q", "--offline", "--cache-path"]).arg(cache);
    python.arg("-f").arg(&core.path).arg("banners.Banners");
    run::output(&mut python, dir, "", VOLATILITY_LIMIT)
}

/// It knows the form not, and finds no banner in compressed pages.
fn volatility_finds_nothing(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let said = volatility_says(testbed, dir, core)?;
    let banner = format!("Linux version {} ", core.vmcoreinfo("OSRELEASE")?);
    ensure!(
        !said.contains(&banner),
        "it finds the banner now; the fault is to be taken off the list:\n{said}"
    );
    Ok("no banner found".to_owned())
}
