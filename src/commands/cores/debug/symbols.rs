//! Looks for the symbols of one kernel: by build id, in folders of this machine, then by debuginfod.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::{Object as _, ObjectSection as _};

use super::kept::Kept;
use super::tool::program;

/// Where debug information is laid out by build id (gdb, "Separate Debug Files").
const BY_BUILD_ID: &str = "/usr/lib/debug/.build-id";
/// Files of a folder that are looked into: one of debug packages holds the modules too, some thousands.
const FILES_MAX: usize = 20_000;
/// Folders below a folder that are looked into: `usr/lib/debug/lib/modules/RELEASE` of an unpacked package.
const DEPTH_MAX: u32 = 6;

/// The kernel whose symbols are looked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    release: Option<String>,
    build_id: Option<Vec<u8>>,
}

/// Symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Symbols {
    pub(super) file: PathBuf,
    /// Whether the build id says that they are of this kernel.
    pub(super) is_proven: bool,
}

/// What came of the search.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) symbols: Option<Symbols>,
    /// Where they were looked for, and what was wrong with what was there, in sentences.
    pub(super) looked_at: Vec<String>,
}

/// What a file is to the search.
pub(super) enum Fit {
    /// It has the debug information of the kernel.
    Yes,
    /// It is the kernel, but without debug information.
    Bare,
    /// It is another kernel's, or no ELF file.
    No,
}

impl Wanted {
    pub(super) fn new(release: Option<&str>, build_id: Option<&str>) -> Self {
        // A release becomes part of paths, and is the guest's word.
        let is_safe = |release: &&str| {
            !release.starts_with('.')
                && release
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c))
        };
        Self {
            release: release.filter(is_safe).map(str::to_owned),
            build_id: build_id.and_then(from_hex).filter(|id| (4..=64).contains(&id.len())),
        }
    }

    /// `ab/cdef.debug` below a folder that is laid out by build id.
    fn place(&self) -> Option<PathBuf> {
        let (first, rest) = self.build_id.as_ref()?.split_first()?;
        Some(PathBuf::from(format!("{first:02x}/{}.debug", hex(rest))))
    }

    /// Whether the core tells which kernel exactly it is.
    pub(super) fn is_exact(&self) -> bool {
        self.build_id.is_some()
    }

    /// Whether this, in hexadecimal, is the build id of the kernel.
    pub(super) fn is_build_id(&self, id: &str) -> bool {
        self.build_id.is_some() && self.build_id == from_hex(id)
    }

    /// Whether a file is what is looked for.
    fn fit(&self, file: &Path) -> Fit {
        let facts = File::open(file)
            .ok()
            .and_then(|file| ElfFacts::of(&object::ReadCache::new(file)));
        facts.map_or(Fit::No, |facts| self.fit_facts(&facts))
    }

    /// The same by what it tells.
    pub(super) fn fit_facts(&self, facts: &ElfFacts) -> Fit {
        match &self.build_id {
            Some(wanted) if facts.build_id.as_ref() != Some(wanted) => Fit::No,
            _ if facts.has_debug_info => Fit::Yes,
            _ => Fit::Bare,
        }
    }
}

impl Found {
    /// Takes a file if it is the right one.
    fn consider(&mut self, wanted: &Wanted, file: &Path) {
        if self.symbols.is_some() || !file.is_file() {
            return;
        }
        match wanted.fit(file) {
            Fit::Yes => {
                self.symbols = Some(Symbols {
                    file: file.to_owned(),
                    is_proven: wanted.build_id.is_some(),
                });
            }
            Fit::Bare => self
                .looked_at
                .push(format!("{} is this kernel without debug information", file.display())),
            Fit::No => self.looked_at.push(format!("{} is of another kernel", file.display())),
        }
    }

    /// Looks into a folder, or at a file.
    fn look_at(&mut self, wanted: &Wanted, path: &Path) {
        if path.is_file() {
            self.consider(wanted, path);
            return;
        }
        if let Some(place) = wanted.place() {
            for folder in [
                path.join(".build-id"),
                path.join("usr/lib/debug/.build-id"),
                path.to_owned(),
            ] {
                self.consider(wanted, &folder.join(&place));
            }
        }
        let mut files = Vec::new();
        list(path, DEPTH_MAX, &mut files);
        for file in files {
            if self.symbols.is_none() && matches!(wanted.fit(&file), Fit::Yes) && may_be_kernel(wanted, &file) {
                self.consider(wanted, &file);
            }
        }
        if self.symbols.is_none() {
            self.looked_at.push(format!("{} has none", path.display()));
        }
    }
}

/// Without a build id only the name can tell a kernel from a module.
fn may_be_kernel(wanted: &Wanted, file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    wanted.build_id.is_some() || name.starts_with("vmlinux")
}

/// Looks everywhere, the places that the user named first, then at the file that came with the core, then at the one that the guest
/// was started from: an uncompressed kernel has its symbols in it. The core says which file that was, so that only its build id
/// makes it the right one.
pub(super) fn find(
    wanted: &Wanted,
    given: &[PathBuf],
    kept: impl FnOnce() -> Option<Kept>,
    booted: Option<&Path>,
) -> Found {
    let mut found = Found::default();
    for path in given {
        found.look_at(wanted, path);
    }
    if found.symbols.is_none() && wanted.is_exact() {
        match kept() {
            Some(Kept::Symbols(file)) => found.symbols = Some(Symbols { file, is_proven: true }),
            Some(Kept::No(sentence)) => found.looked_at.push(sentence),
            None => {}
        }
    }
    if let Some(file) = booted.filter(|file| file.is_absolute() && wanted.build_id.is_some()) {
        found.consider(wanted, file);
    }
    if let Some(place) = wanted.place() {
        let file = Path::new(BY_BUILD_ID).join(place);
        found.consider(wanted, &file);
        if found.symbols.is_none() {
            found.looked_at.push(format!("{} is not there", file.display()));
        }
    }
    if let Some(release) = &wanted.release {
        for file in [
            format!("/usr/lib/debug/boot/vmlinux-{release}"),
            format!("/usr/lib/debug/lib/modules/{release}/vmlinux"),
            format!("/usr/lib/debug/usr/lib/modules/{release}/vmlinux"),
            format!("/lib/modules/{release}/build/vmlinux"),
            format!("/boot/vmlinux-{release}"),
        ] {
            found.consider(wanted, Path::new(&file));
        }
    }
    if found.symbols.is_none() {
        ask_debuginfod(wanted, &mut found);
    }
    found
}

/// Asks the configured servers (debuginfod-find(1)).
fn ask_debuginfod(wanted: &Wanted, found: &mut Found) {
    let urls = std::env::var("DEBUGINFOD_URLS").unwrap_or_default();
    let Some(build_id) = &wanted.build_id else { return };
    if urls.trim().is_empty() {
        found
            .looked_at
            .push("no debuginfod server is named in DEBUGINFOD_URLS".to_owned());
        return;
    }
    if program("debuginfod-find").is_none() {
        let sentence = "DEBUGINFOD_URLS is set, but debuginfod-find is not in PATH (package debuginfod)";
        found.looked_at.push(sentence.to_owned());
        return;
    }
    let asked = Command::new("debuginfod-find")
        .args(["debuginfo", &hex(build_id)])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let file = match &asked {
        Ok(answer) if answer.status.success() => String::from_utf8_lossy(&answer.stdout).trim().to_owned(),
        _ => String::new(),
    };
    if file.is_empty() {
        found.looked_at.push(format!("debuginfod ({urls}) does not have it"));
    } else {
        found.consider(wanted, Path::new(&file));
    }
}

/// Files below a folder that may have symbols: `vmlinux…` and `….debug`.
fn list(folder: &Path, depth: u32, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        if files.len() >= FILES_MAX {
            return;
        }
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => list(&path, depth - 1, files),
            Ok(kind) if !kind.is_dir() && (name.starts_with("vmlinux") || name.ends_with(".debug")) => files.push(path),
            _ => {}
        }
    }
}

/// What the search wants to know of an ELF file. It is told by sections: only they say whether there is debug information.
/// `vmm_agent::kernel::build_id` knows no sections, because it unpacks a kernel no further than to its notes, and their table is at the
/// end of a file: neither reader would be simpler for being both.
pub(super) struct ElfFacts {
    build_id: Option<Vec<u8>>,
    has_debug_info: bool,
}

impl ElfFacts {
    /// Reads headers and notes of a file, nothing more of it.
    pub(super) fn of<'d>(file: impl object::ReadRef<'d>) -> Option<Self> {
        let elf = object::File::parse(file).ok()?;
        let build_id = elf.build_id().ok().flatten().map(<[u8]>::to_vec);
        let mut sections = elf.sections();
        Some(Self {
            build_id,
            has_debug_info: sections.any(|section| matches!(section.name(), Ok(".debug_info" | ".zdebug_info"))),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_never_leads_out_of_a_folder() {
        for release in ["../../etc", "6.1/x", "", ".", "6.1 x"] {
            let wanted = Wanted::new(Some(release), Some("../../../../aa"));
            assert!(wanted.release.is_none_or(|release| release.is_empty()), "{release}");
            assert_eq!(wanted.build_id, None);
        }
        let wanted = Wanted::new(Some("6.1.0-18-amd64"), Some("ab12cd34"));
        assert_eq!(wanted.place(), Some(PathBuf::from("ab/12cd34.debug")));
        assert_eq!(wanted.release.as_deref(), Some("6.1.0-18-amd64"));
    }
}
