//! The kernel's file that came with the core, as symbols: a debugger wants a file, so it is written out once, into the cache of
//! this user.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::PathBuf;

use api::{CoreInfo, KeptKernelFacts};
use vmcore::image::FileBytes;
use vmm_agent::kernel::{ReadAt, build_id};

use super::super::kernel;
use super::symbols::{ElfFacts, Fit, Wanted};
use crate::output;

/// What came of it.
pub(super) enum Kept {
    /// This file is of the kernel that crashed and has its debug information.
    Symbols(PathBuf),
    /// Why not, in a sentence.
    No(String),
}

/// Looks at the kernel in the core, and writes it out if it is what is wanted.
pub(super) fn symbols(wanted: &Wanted, info: &CoreInfo, kernel: &KeptKernelFacts, core: &dyn FileBytes) -> Kept {
    let name = format!("{} in the core", kernel.name);
    let lost = kernel::lost_bytes(info, kernel);
    if lost > 0 {
        return Kept::No(format!("{lost} bytes of {name} did not arrive"));
    }
    let Some(facts) = ElfFacts::of(&object::ReadCache::new(Part::new(core, kernel))) else {
        return Kept::No(packed(wanted, &name, &Part::new(core, kernel)));
    };
    match wanted.fit_facts(&facts) {
        Fit::Yes => {}
        Fit::Bare => return Kept::No(format!("{name} is this kernel without debug information")),
        Fit::No => return Kept::No(format!("{name} is of another kernel")),
    }
    match write_out(info, kernel, core) {
        Ok(file) => Kept::Symbols(file),
        Err(why) => Kept::No(format!("{name} cannot be written out: {why}")),
    }
}

/// What is to be said of a kernel that is no ELF file.
fn packed(wanted: &Wanted, name: &str, kernel: &Part<'_>) -> String {
    match build_id::of(kernel) {
        Ok(id) if wanted.is_build_id(&id) => format!("{name} is this kernel, but packed: it has no symbols"),
        Ok(_) => format!("{name} is of another kernel"),
        Err(why) => format!("{name} has no symbols: {why}"),
    }
}

/// The kernel as a file, `vmlinux` in a folder that is named by its digest.
fn write_out(info: &CoreInfo, kernel: &KeptKernelFacts, core: &dyn FileBytes) -> Result<PathBuf, String> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = variable("XDG_CACHE_HOME")
        .filter(|cache| cache.is_absolute())
        .or_else(|| Some(variable("HOME")?.join(".cache")));
    let cache = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set; `cores kernel` writes it anywhere")?;
    // The digest is the sender's word, and becomes part of a path.
    let digest = kernel.digest.strip_prefix("blake3:").unwrap_or_default();
    if digest.len() != 2 * blake3::OUT_LEN || !digest.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(format!("`{}` is no BLAKE3 digest", kernel.digest));
    }
    let folder = cache.join("coreferry/kernels").join(digest);
    let file = folder.join("vmlinux");
    if fs::metadata(&file).is_ok_and(|there| there.len() == kernel.length_bytes) {
        return Ok(file);
    }
    let failed = |why: io::Error| format!("{}: {why}", folder.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(failed)?;
    let part = folder.join(format!("vmlinux.{}.part", std::process::id()));
    let written = File::create(&part).map_err(failed).and_then(|to| {
        kernel::copy(core, &info.summary.id, kernel, &mut |at, bytes| {
            to.write_all_at(bytes, at)
        })
        .map_err(|why| why.sentence())?;
        fs::rename(&part, &file).map_err(failed)
    });
    if let Err(why) = written {
        let _ = fs::remove_file(&part);
        return Err(why);
    }
    output::say(&format!("the kernel that came with the core is now {}", file.display()));
    Ok(file)
}

/// A part of the core as a file of its own.
struct Part<'c> {
    core: &'c dyn FileBytes,
    start: u64,
    len_bytes: u64,
    at: u64,
}

impl<'c> Part<'c> {
    fn new(core: &'c dyn FileBytes, kernel: &KeptKernelFacts) -> Self {
        Self {
            core,
            start: kernel.file_offset,
            len_bytes: kernel.length_bytes,
            at: 0,
        }
    }
}

impl ReadAt for Part<'_> {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let left = usize::try_from(self.len_bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        let room = buf.get_mut(..len).unwrap_or_default();
        let at = self.start.checked_add(at);
        match at.map(|at| self.core.read_at(at, room)) {
            Some(Ok(())) => Ok(len),
            _ => Err(io::Error::other("not in the core")),
        }
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.read_at(buf, self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Part<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len_bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
