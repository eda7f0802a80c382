//! A core that the agent filters on its way out, of a real guest: what is left out is what makedumpfile leaves out, it is in no
//! segment of the file, and crash, drgn and gdb open it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use vmcore::elf::TextMapping;
use vmcore::image::PhysicalMemory as _;
use vmcore::limits::{PAGE_LEN, PAGE_LEN_USIZE};
use vmcore::linux::filter::FilterLevel;
use vmcore::{CpuState, MemoryRange};
use vmm_agent::dump::{CoreFile, DumpSource, FilteredMemory, SourceError, filtered_memory};

use crate::export::{Opened, holds_the_same, open};
use crate::ours::OurCore;
use crate::readers::{self, LIMIT};
use crate::run;
use crate::testbed::Testbed;

/// Everything that can be left out.
const ALL: u8 = 31;
/// Everything but pages of user processes.
const ALL_BUT_USER: u8 = 23;

/// A whole core as the machine that it was made of.
struct Machine<'c> {
    core: &'c OurCore,
    memory: Opened,
    ranges: Vec<MemoryRange>,
    text: Option<TextMapping>,
    filtered: FilteredMemory,
}

impl DumpSource for Machine<'_> {
    fn ranges(&self) -> &[MemoryRange] {
        &self.ranges
    }

    fn read_at(&self, gpa: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.memory.read(gpa, buf).map_err(|why| SourceError {
            gpa,
            len_bytes: buf.len() as u64,
            why: why.to_string(),
        })
    }

    fn cpu_states(&self) -> &[CpuState] {
        &self.core.cpus
    }

    fn vmcoreinfo(&self) -> Option<Vec<u8>> {
        Some(self.core.vmcoreinfo.clone().into_bytes())
    }

    fn text(&self) -> Option<TextMapping> {
        self.text
    }

    fn excluded(&self) -> &[MemoryRange] {
        &self.filtered.excluded
    }
}

/// A core of Linux 6.1 with symbols: filtered, compared with makedumpfile page by page, and all readers are let at it.
pub(crate) fn check(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let (path, said) = filter(testbed, dir, core, ALL, true)?;
    let own = dir.join("filtered-readers");
    std::fs::create_dir_all(&own)?;
    let exported = core.at(&path);
    readers::makedumpfile_only(testbed, &own, &exported).context("makedumpfile")?;
    readers::drgn(testbed, &own, &exported).context("drgn")?;
    readers::crash(testbed, &own, &exported).context("crash")?;
    readers::gdb(testbed, &own, &exported).context("gdb")?;
    Ok(said)
}

/// A core of a later kernel. From Linux 6.10 on slab pages are told by their type, no longer by a flag, which makedumpfile
/// learned after Debian's 1.7.2: that takes some of them for pages of user processes and leaves them out. So the two are the same
/// only without that level; with it we leave out none that it keeps.
pub(crate) fn check_later_kernel(testbed: &Testbed, dir: &Path, core: &OurCore) -> Result<String> {
    let (path, without_user) = filter(testbed, dir, core, ALL_BUT_USER, true)?;
    readers::makedumpfile_only(testbed, dir, &core.at(&path)).context("makedumpfile")?;
    let (_, all) = filter(testbed, dir, core, ALL, false)?;
    Ok(format!("{without_user}; {all}"))
}

/// The core as the agent sends it with this level, and what was left out.
fn filter(testbed: &Testbed, dir: &Path, core: &OurCore, level: u8, is_exact: bool) -> Result<(PathBuf, String)> {
    let memory = open(&core.path)?;
    let mut machine = Machine {
        core,
        ranges: memory.ranges(),
        text: text_of(&memory),
        memory,
        filtered: FilteredMemory::default(),
    };
    machine.filtered = filtered_memory(&machine, FilterLevel::new(level).context("no level")?)?;
    let path = dir.join(format!("filtered-{level}"));
    write(&CoreFile::plan(&machine, &core.note)?, &path)?;

    let filtered = open(&path)?;
    ensure!(filtered.ranges() == machine.ranges, "the memory is not what it was");
    holds_the_same(&machine.memory, &filtered, false)?;
    let theirs = makedumpfile(testbed, dir, core, level)?;
    let excluded = compare(&machine, &filtered, &theirs, is_exact)?;
    let said = format!(
        "level {level}: {excluded} pages left out in {} runs, {} too scattered",
        machine.filtered.excluded.len(),
        machine.filtered.scattered_pages
    );
    Ok((path, said))
}

/// The kernel's text as the whole core maps it.
fn text_of(memory: &Opened) -> Option<TextMapping> {
    use server::export::Pages as _;
    memory.texts().into_iter().next()
}

fn write(core: &CoreFile<'_>, path: &Path) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(core.len_bytes())?;
    let mut pieces = core.pieces()?;
    while let Some(piece) = pieces.next_piece()? {
        file.write_all_at(piece.bytes, piece.file_offset)?;
    }
    Ok(())
}

/// What makedumpfile makes of the whole core.
fn makedumpfile(testbed: &Testbed, dir: &Path, core: &OurCore, level: u8) -> Result<Opened> {
    let theirs = dir.join(format!("makedumpfile-{level}"));
    let _ = std::fs::remove_file(&theirs);
    let mut makedumpfile = testbed.command("makedumpfile");
    makedumpfile
        .args(["-l", "-d", &level.to_string()])
        .arg(&core.path)
        .arg(&theirs);
    run::output(&mut makedumpfile, dir, "", LIMIT)?;
    open(&theirs)
}

/// Each page is left out by both or by none, but for those that are told to be too scattered. How many are left out.
fn compare(machine: &Machine<'_>, ours: &Opened, theirs: &Opened, is_exact: bool) -> Result<u64> {
    let (mut excluded, mut scattered) = (0, 0);
    let mut page = [0; PAGE_LEN_USIZE];
    for range in &machine.ranges {
        for gpa in (range.gpa..range.gpa + range.len_bytes).step_by(PAGE_LEN_USIZE) {
            let is_read = ours.read(gpa, &mut page).is_ok();
            match (ours.is_excluded(gpa), theirs.is_excluded(gpa)) {
                (true, true) => excluded += 1,
                (false, true) => scattered += 1,
                (false, false) => {}
                (true, false) => anyhow::bail!("page {gpa:#x} is left out, and makedumpfile keeps it"),
            }
            ensure!(
                is_read != ours.is_excluded(gpa),
                "page {gpa:#x} is neither there nor left out"
            );
        }
    }
    ensure!(excluded > 1000, "only {excluded} pages are left out");
    ensure!(
        excluded == machine.filtered.excluded_pages() && (scattered == machine.filtered.scattered_pages || !is_exact),
        "{excluded} pages are left out and {scattered} kept that makedumpfile leaves out; the filter said {} and {}",
        machine.filtered.excluded_pages(),
        machine.filtered.scattered_pages
    );
    let len = excluded * PAGE_LEN;
    ensure!(
        machine.filtered.excluded.iter().map(|run| run.len_bytes).sum::<u64>() == len,
        "the runs have other pages"
    );
    Ok(excluded)
}
