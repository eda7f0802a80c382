//! What `cores export` makes of a core of Linux: crash and drgn open it, makedumpfile agrees with the filter page by page, and what
//! makedumpfile makes is read by us.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use server::VmcoreBytes;
use server::codecs::Codecs;
use vmcore::dumpfile::DumpFile;
use vmcore::image::PhysicalMemory as _;
use vmcore::limits::{PAGE_LEN, PAGE_LEN_USIZE};

use crate::common::{Serve, path_text, run_ok};
use crate::ours::OurCore;
use crate::readers::{self, LIMIT};
use crate::run;
use crate::testbed::Testbed;

pub(crate) type Opened = DumpFile<VmcoreBytes, Codecs>;

/// Exports, and asks the readers.
pub(crate) fn check(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let dir = dir.join("export");
    fs::create_dir_all(&dir)?;
    let serve = Serve::start(&dir.join("store"));
    send(&serve, &core.path, "ours");
    let export = |format: &str, level: &str, name: &str| -> Result<PathBuf> {
        let to = dir.join(name);
        let store = path_text(&serve.dir);
        let arguments = [
            "cores",
            "export",
            "latest",
            "--dir",
            store,
            "--format",
            format,
            "--filter",
            level,
            "-o",
            path_text(&to),
        ];
        let said = run_ok(&arguments);
        ensure!(said.contains("exported as"), "{said}");
        Ok(to)
    };
    let zstd = export("kdump-zstd", "31", "zstd-31")?;
    let zlib = export("kdump-zlib", "0", "zlib-0")?;
    let zlib_31 = export("kdump-zlib", "31", "zlib-31")?;
    let lzo = export("kdump-lzo", "31", "lzo-31")?;
    let flat = export("kdump-flat-snappy", "16", "flat-16")?;
    let elf = export("elf", "31", "elf-31")?;
    let whole = open(&core.path)?;
    for (path, is_whole) in [
        (&zstd, false),
        (&zlib, true),
        (&zlib_31, false),
        (&lzo, false),
        (&flat, false),
        (&elf, false),
    ] {
        holds_the_same(&whole, &open(path)?, is_whole).with_context(|| path.display().to_string())?;
    }
    let own = dir.join("readers");
    fs::create_dir_all(&own)?;
    let mut said = String::new();
    for path in [&zstd, &zlib_31, &lzo, &elf] {
        let exported = core.at(path);
        readers::drgn(testbed, &own, &exported).with_context(|| format!("drgn on {}", path.display()))?;
        // crash takes its time; of the ELF core's segments gdb and drgn see as much.
        if path != &elf {
            readers::crash(testbed, &own, &exported).with_context(|| format!("crash on {}", path.display()))?;
        } else {
            // Kernel data by virtual address, although pages within the kernel's image are left out.
            readers::gdb(testbed, &own, &exported).with_context(|| format!("gdb on {}", path.display()))?;
        }
    }
    // It reads every page that it keeps by the library that defines LZO.
    readers::makedumpfile_only(testbed, &own, &core.at(&lzo)).context("makedumpfile on kdump-lzo")?;
    said += &against_makedumpfile(testbed, &dir, core, &zlib_31)?;
    said += &read_makedumpfile(testbed, &dir, &serve, core)?;
    let len = |path: &Path| path.metadata().map(|meta| meta.len());
    let (zstd_len, zlib_len) = (len(&zstd)?, len(&zlib_31)?);
    ensure!(
        zstd_len <= zlib_len,
        "kdump-zstd has {zstd_len} bytes, kdump-zlib {zlib_len}"
    );
    Ok(said + &format!("kdump-zstd {zstd_len} bytes"))
}

fn send(serve: &Serve, core: &Path, name: &str) {
    let to = serve.netdump.to_string();
    let before = serve.cores().len();
    run_ok(&["send", path_text(core), "--to", &to, "--hostname", name]);
    serve.settled_cores(before + 1);
}

pub(crate) fn open(path: &Path) -> Result<Opened> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    Ok(DumpFile::open(VmcoreBytes::of(file, len, &[]), Codecs)?)
}

/// Each page that is there is what it was; none is missing if the file is whole.
pub(crate) fn holds_the_same(whole: &Opened, exported: &Opened, is_whole: bool) -> Result<()> {
    let (mut a, mut b) = ([0; PAGE_LEN_USIZE], [0; PAGE_LEN_USIZE]);
    let mut pages = 0;
    for range in whole.ranges() {
        for gpa in (range.gpa..range.gpa + range.len_bytes).step_by(PAGE_LEN_USIZE) {
            whole.read(gpa, &mut a)?;
            match exported.read(gpa, &mut b) {
                Ok(()) => ensure!(a == b, "page {gpa:#x} differs"),
                Err(why) => ensure!(!is_whole, "{why}"),
            }
            pages += 1;
        }
    }
    ensure!(pages > 20_000, "only {pages} pages");
    Ok(())
}

/// makedumpfile leaves out the same pages, and its file is hardly smaller.
fn against_makedumpfile(testbed: &Testbed, dir: &Path, core: &OurCore, ours: &Path) -> Result<String> {
    let theirs = dir.join("makedumpfile-31");
    let mut makedumpfile = testbed.command("makedumpfile");
    makedumpfile.args(["-c", "-d", "31"]).arg(&core.path).arg(&theirs);
    run::output(&mut makedumpfile, dir, "", LIMIT)?;
    let (own, other) = (open(ours)?, open(&theirs)?);
    let mut differ = Vec::new();
    for range in own.ranges() {
        for gpa in (range.gpa..range.gpa + range.len_bytes).step_by(PAGE_LEN_USIZE) {
            if own.is_excluded(gpa) != other.is_excluded(gpa) {
                differ.push(gpa / PAGE_LEN);
            }
        }
    }
    ensure!(
        differ.is_empty(),
        "{} pages are filtered otherwise than makedumpfile does: {:x?}",
        differ.len(),
        &differ[..differ.len().min(20)]
    );
    let (ours, theirs) = (ours.metadata()?.len(), theirs.metadata()?.len());
    ensure!(
        ours * 10 <= theirs * 11,
        "kdump-zlib has {ours} bytes, makedumpfile's file {theirs}"
    );
    Ok(format!(
        "kdump-zlib {ours} bytes, makedumpfile -c {theirs}, the same pages; "
    ))
}

/// The log of what makedumpfile made of the core is the core's own, whatever the codec.
fn read_makedumpfile(testbed: &Testbed, dir: &Path, serve: &Serve, core: &OurCore) -> Result<String> {
    let log = |serve: &Serve| run_ok(&["cores", "log", "latest", "--dir", path_text(&serve.dir)]);
    let expected = log(serve);
    ensure!(expected.contains("sysrq triggered crash"), "{expected}");
    // The log as makedumpfile reads it.
    let dmesg = dir.join("dmesg");
    let mut makedumpfile = testbed.command("makedumpfile");
    makedumpfile.arg("--dump-dmesg").arg(&core.path).arg(&dmesg);
    run::output(&mut makedumpfile, dir, "", LIMIT)?;
    // Later lines of a record have its time here, and spaces there; control characters are shown as what they are.
    let text = |line: &str| line.split_once("] ").map_or(line, |(_, text)| text).trim().to_owned();
    let lines = |log: &str| log.lines().map(text).collect::<Vec<_>>();
    let (ours, theirs) = (
        lines(&expected.replace("\\t", "\t")),
        lines(&fs::read_to_string(&dmesg)?),
    );
    if let Some((ours, theirs)) = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs) {
        bail!("makedumpfile reads {theirs:?} where we read {ours:?}");
    }
    ensure!(
        ours.len() == theirs.len(),
        "makedumpfile reads {} lines, we read {}",
        theirs.len(),
        ours.len()
    );
    for (name, options) in [
        ("lzo", &["-l"][..]),
        ("zlib", &["-c"]),
        ("raw", &[]),
        ("flattened", &["-c", "-F"]),
    ] {
        let made = dir.join(name);
        let mut makedumpfile = testbed.command("makedumpfile");
        makedumpfile.args(options).args(["-d", "31"]).arg(&core.path);
        if name == "flattened" {
            let mut shell = std::process::Command::new("sh");
            shell
                .args(["-c", "out=$1; shift; exec \"$@\" > \"$out\"", "sh"])
                .arg(&made);
            shell.arg(makedumpfile.get_program()).args(makedumpfile.get_args());
            run::output(&mut shell, dir, "", LIMIT)?;
        } else {
            run::output(makedumpfile.arg(&made), dir, "", LIMIT)?;
        }
        holds_the_same(&open(&core.path)?, &open(&made)?, false).context(name)?;
        send(serve, &made, name);
        ensure!(log(serve) == expected, "the log of makedumpfile's {name} file differs");
    }
    Ok(format!("{} lines of log from every form; ", theirs.len()))
}
