//! The tools, each on each form of a core.

use std::fs;
use std::path::Path;

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

/// Debian builds makedumpfile without zstd: it must say so, not write nonsense.
const NO_ZSTD: &str = "no zstd";
/// gdb reads no compressed cores.
const ELF_ONLY: &str = "ELF only";
/// It needs debug information, which the testbed has for another kernel.
const NO_SYMBOLS: &str = "not tried";

/// Makes the core and asks everyone.
pub(crate) fn check(testbed: &Testbed, combination: &Combination) -> Result<Vec<Cell>> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let guest = combination.guest(testbed, dir)?;
    let dump = guest::panicked_core(testbed, dir, &guest)?;
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
    for (form, core) in [("ELF", &elf), ("kdump-zstd", &kdump)] {
        let known = (!combination.has_symbols()).then_some(NO_SYMBOLS);
        let ask = |reader: fn(&Testbed, &Path, &OurCore) -> Result<String>| match known {
            Some(known) => Ok(known.to_owned()),
            None => reader(testbed, dir, core),
        };
        cells.push(cell("crash", form, ask(readers::crash), known));
        cells.push(cell("drgn, stacks", form, ask(readers::drgn), known));
        cells.push(cell("drgn, VMCOREINFO", form, drgn_opens(testbed, dir, core), None));
        match form {
            "ELF" => {
                cells.push(cell("gdb", form, ask(readers::gdb), known));
                cells.push(cell("makedumpfile -d 31", form, makedumpfile(testbed, dir, core), None));
            }
            _ => {
                cells.push(cell("gdb", form, Ok("it reads ELF only".to_owned()), Some(ELF_ONLY)));
                let refused = makedumpfile_refuses(testbed, dir, core);
                cells.push(cell("makedumpfile -d 31", form, refused, Some(NO_ZSTD)));
            }
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

/// It filters to a file that drgn opens.
fn makedumpfile(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let filtered = dir.join("filtered.kdump");
    let _ = fs::remove_file(&filtered);
    let mut makedumpfile = testbed.command("makedumpfile");
    makedumpfile.args(["-l", "-d", "31"]).arg(&core.path).arg(&filtered);
    let said = run::output(&mut makedumpfile, dir, "", readers::LIMIT)?;
    ensure!(said.contains("dumpfile is saved to"), "{said}");
    let len = filtered.metadata()?.len();
    ensure!(len > 1 << 20, "only {len} bytes left");
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
