//! Rules that are read off the source text.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::workspace::{self, Package};

/// A source file of ours: where it is and its lines of code, comments and the trailing test module left out.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the workspace folder, with `/` between its parts.
    path: String,
    lines: Vec<(usize, String)>,
}

/// Folders whose crates get bytes and times from outside and give bytes and deadlines back.
const PURE: &[&str] = &["netdump/src/", "nic-emu/src/", "vmcore/src/"];

/// Paths by which the world would come in.
const WORLD: &[&str] = &[
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::time",
    "Instant::now",
];

/// Folders without any unsafe code.
const SAFE: &[&str] = &["netdump/", "nic-emu/", "vmcore/", "api/", "src/", "xtask/"];

/// Left out of the rule: the demo guest is a program on bare metal, unsafe throughout and outside the workspace's lints;
/// and this folder, whose texts speak of unsafe code.
const BARE: &[&str] = &["guest-shim/demo/", "xtask/src/check/"];

/// Reads all our Rust files.
pub(crate) fn load(packages: &[Package]) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for package in packages {
        for folder in ["src", "tests", "benches", "examples", "build.rs"] {
            collect(&package.dir.join(folder), &mut files)?;
        }
    }
    files.sort();
    files.dedup();
    files.iter().map(|path| Source::read(path)).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
        files.push(path.to_owned());
    } else if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
            collect(&entry?.path(), files)?;
        }
    }
    Ok(())
}

impl Source {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let relative = path.strip_prefix(workspace::root()).unwrap_or(path);
        Ok(Self::new(&relative.to_string_lossy(), &text))
    }

    fn new(path: &str, text: &str) -> Self {
        let numbered = text
            .lines()
            .enumerate()
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        let lines = numbered.map(|(index, line)| (index + 1, code(line).to_owned()));
        Self {
            path: path.to_owned(),
            lines: lines.filter(|(_, line)| !line.is_empty()).collect(),
        }
    }

    fn is_in(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// The attribute by which the whole module opts into unsafe code, without white space.
    fn opt_in(&self) -> Option<String> {
        let text: String = self
            .lines
            .iter()
            .flat_map(|(_, line)| line.split_whitespace())
            .collect();
        let starts = ["#![allow(unsafe_code", "#![expect(unsafe_code"];
        let start = starts.iter().find_map(|start| text.find(start))?;
        text[start..].split(")]").next().map(str::to_owned)
    }

    /// `path:line: what` for every line that `fault` finds something in.
    fn faults<'s>(&'s self, fault: impl Fn(&str) -> Option<String> + 's) -> impl Iterator<Item = String> + 's {
        self.lines
            .iter()
            .filter_map(move |(number, line)| Some(format!("{}:{number}: {}", self.path, fault(line)?)))
    }
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(before, _)| before).trim()
}

/// Files that use kvm-ioctls although they are not in the module that wraps it.
pub(crate) fn kvm_outside_its_module(sources: &[Source]) -> Vec<String> {
    let elsewhere = sources
        .iter()
        .filter(|source| !source.is_in(&["vmm-agent/src/kvm", "xtask/"]));
    elsewhere
        .flat_map(|source| source.faults(|line| line.contains("kvm_ioctls").then(|| line.to_owned())))
        .collect()
}

/// Places where a pure crate reaches for the world.
pub(crate) fn impure(sources: &[Source]) -> Vec<String> {
    let found = |line: &str| {
        WORLD
            .iter()
            .find(|path| line.contains(**path))
            .map(|path| format!("uses {path}"))
    };
    sources
        .iter()
        .filter(|source| source.is_in(PURE))
        .flat_map(|source| source.faults(found))
        .collect()
}

/// Unsafe code without the module's opt-in, opt-ins without a reason, and unsafe code where there shall be none.
///
/// The compiler already denies unsafe code without an opt-in; this rule holds the opt-ins to whole, named modules.
pub(crate) fn unsafe_code(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| !source.is_in(BARE)) {
        let opted_in = source.opt_in();
        if let Some(attribute) = &opted_in {
            if !attribute.contains("reason=") {
                broken.push(format!("{}: opts into unsafe code without a reason", source.path));
            }
            if source.path.ends_with("/src/lib.rs") {
                broken.push(format!("{}: opts a whole crate into unsafe code", source.path));
            }
        }
        let in_one_item = |line: &str| {
            let item = line.starts_with("#[allow(unsafe_code") || line.starts_with("#[expect(unsafe_code");
            item.then(|| "opts one item into unsafe code; give it a module of its own".to_owned())
        };
        broken.extend(source.faults(in_one_item));
        if source.is_in(SAFE) || opted_in.is_none() && !opted_in_above(source, sources) {
            let unsafe_here =
                |line: &str| is_unsafe(line).then(|| "unsafe code without the module's opt-in".to_owned());
            broken.extend(source.faults(unsafe_here));
        }
    }
    broken
}

/// Whether a module above this file opts in for its children, as the compiler lets it.
fn opted_in_above(source: &Source, sources: &[Source]) -> bool {
    let mut folder = source.path.as_str();
    while let Some((above, _)) = folder.rsplit_once('/') {
        folder = above;
        let files = [
            format!("{above}/mod.rs"),
            format!("{above}.rs"),
            format!("{above}/main.rs"),
        ];
        let mut parents = sources.iter().filter(|other| files.contains(&other.path));
        if parents.any(|other| other.opt_in().is_some()) {
            return true;
        }
    }
    false
}

/// Whether a line of code has the keyword where it opens something unsafe.
fn is_unsafe(line: &str) -> bool {
    let openings = [
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe trait",
        "unsafe extern",
        "unsafe(no_mangle)",
    ];
    !line.contains('"') && openings.iter().any(|opening| line.contains(opening))
}

/// Packages whose manifest does not take the lints of the workspace.
///
/// The demo guest stands outside the workspace and cannot; it is built by a build script that says its own flags.
pub(crate) fn lints(packages: &[Package]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for package in packages
        .iter()
        .filter(|package| !package.dir.ends_with("guest-shim/demo"))
    {
        let path = package.dir.join("Cargo.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !text.replace(' ', "").contains("[lints]\nworkspace=true") {
            broken.push(format!("{}: no [lints] workspace = true", path.display()));
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::new(path, text)).collect()
    }

    #[test]
    fn comments_and_tests_do_not_count() {
        let sources = sources(&[
            ("vmm-agent/src/agent.rs", "// kvm_ioctls is elsewhere\nfn f() {}"),
            (
                "vmcore/src/elf.rs",
                "fn f() {}\n#[cfg(test)]\nmod tests { use std::fs; }",
            ),
        ]);
        assert!(kvm_outside_its_module(&sources).is_empty());
        assert!(impure(&sources).is_empty());
    }

    #[test]
    fn kvm_ioctls_is_told_outside_its_module() {
        let sources = sources(&[
            ("vmm-agent/src/kvm/vcpu.rs", "use kvm_ioctls::VcpuFd;"),
            ("vmm-agent/src/freeze.rs", "\nuse kvm_ioctls::VcpuFd;"),
        ]);
        assert_eq!(
            kvm_outside_its_module(&sources),
            ["vmm-agent/src/freeze.rs:2: use kvm_ioctls::VcpuFd;"]
        );
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_told() {
        let sources = sources(&[("netdump/src/client.rs", "let now = std::time::Instant::now();")]);
        assert_eq!(impure(&sources), ["netdump/src/client.rs:1: uses std::time"]);
    }

    #[test]
    fn an_opt_in_with_a_reason_covers_its_module_and_the_modules_below() {
        let sources = sources(&[
            (
                "server/src/sys/mod.rs",
                "#![expect(unsafe_code, reason = \"system calls\")]\nmod gro;",
            ),
            ("server/src/sys/gro.rs", "fn f() { unsafe { g() } }"),
        ]);
        assert_eq!(unsafe_code(&sources), Vec::<String>::new());
    }

    #[test]
    fn opt_ins_are_held_to_named_modules_with_reasons() {
        let sources = sources(&[
            ("server/src/lib.rs", "#![allow(unsafe_code)]"),
            ("server/src/a.rs", "#[allow(unsafe_code)]\nfn f() { unsafe { g() } }"),
            (
                "netdump/src/b.rs",
                "#![allow(unsafe_code, reason = \"speed\")]\nunsafe impl Send for B {}",
            ),
        ]);
        let broken = unsafe_code(&sources);
        assert_eq!(broken.len(), 5, "{broken:?}");
    }
}
