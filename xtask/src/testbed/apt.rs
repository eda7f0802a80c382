//! Debian packages without root and without touching the system.
//!
//! apt runs with a state folder of its own and the machine's own list of sources. Its list of installed packages is empty,
//! so that "install" downloads a package with everything it depends on, whatever the machine already has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The suite with the newer kernels of Debian 12.
const BACKPORTS: &str = "bookworm-backports";

/// An apt with private lists, brought up to date when opened.
#[derive(Debug)]
pub(crate) struct Apt {
    dir: PathBuf,
}

/// A package of an exact version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Apt {
    /// Writes the private configuration below `dir` and fetches the package lists.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        for folder in ["lists/partial", "archives/partial", "parts"] {
            fs::create_dir_all(dir.join(folder)).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        copy_sources(Path::new("/etc/apt/sources.list.d"), &dir.join("parts"))?;
        fs::write(dir.join("status"), "")?;
        let place = dir.display();
        // `Sandbox::User`: as root, apt would download as a user who may not enter our folder.
        let configuration = format!(
            "Dir::State::lists \"{place}/lists\";\n\
             Dir::State::status \"{place}/status\";\n\
             Dir::Cache \"{place}\";\n\
             Dir::Etc::sourceparts \"{place}/parts\";\n\
             APT::Sandbox::User \"root\";\n\
             APT::Install-Recommends \"false\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::Retries \"3\";\n"
        );
        fs::write(dir.join("apt.conf"), configuration)?;
        let apt = Self { dir: dir.to_owned() };
        apt.update()?;
        if process::read(&mut apt.command("apt-get", &["indextargets", "--format", "$(SITE)"]))?
            .trim()
            .is_empty()
        {
            bail!("apt has no package source on this machine (apt-get indextargets is empty)");
        }
        apt.add_backports();
        // Made once here, so that calls side by side only read it.
        process::read(&mut apt.command("apt-cache", &["gencaches"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .env("LC_ALL", "C");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// The package that a meta package such as linux-image-cloud-amd64 depends on, in the version it asks for.
    ///
    /// The name of a kernel package carries the number of its ABI and changes with updates.
    pub(crate) fn behind(&self, meta: &str) -> Result<Package> {
        let text = process::read(&mut self.command("apt-cache", &["show", "--no-all-versions", meta]))?;
        let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "));
        let first = depends.and_then(parse_dependency);
        first.with_context(|| format!("package {meta} names no exact version of another package:\n{text}"))
    }

    /// Adds the backports of Debian 12, where its newer kernels are, from the mirror that Debian 12 itself comes from.
    ///
    /// Without them the packages from there are missing, and nothing else.
    fn add_backports(&self) {
        let file = self.dir.join("parts/backports.list");
        let added = self.write_backports(&file).and_then(|()| self.update());
        if let Err(error) = added {
            eprintln!("no {BACKPORTS}: {error:#}");
            let removed = fs::remove_file(&file).map_err(Into::into).and_then(|()| self.update());
            if let Err(error) = removed {
                eprintln!("and back without them: {error:#}");
            }
        }
    }

    fn write_backports(&self, file: &Path) -> Result<()> {
        let targets =
            process::read(&mut self.command("apt-get", &["indextargets", "--format", "$(CODENAME) $(SITE)"]))?;
        let site = targets.lines().find_map(|line| line.strip_prefix("bookworm "));
        let site = site.context("this machine's apt has no source of Debian 12 (bookworm)")?;
        let key = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
        let signed = if key.exists() {
            format!("[signed-by={}] ", key.display())
        } else {
            String::new()
        };
        fs::write(file, format!("deb {signed}{site} {BACKPORTS} main\n")).context("cannot write the list of backports")
    }

    fn update(&self) -> Result<()> {
        process::read(&mut self.command("apt-get", &["-q", "update"])).map(drop)
    }

    /// The package with the greatest numbers in its name among those whose name is like `pattern`, a regular expression.
    pub(crate) fn newest(&self, pattern: &str) -> Result<Package> {
        let found = process::read(&mut self.command("apt-cache", &["search", "--names-only", pattern]))?;
        let names = found.lines().filter_map(|line| line.split_whitespace().next());
        let name = names
            .max_by_key(|name| numbers(name))
            .with_context(|| format!("no package is like {pattern}"))?;
        self.package(name)
    }

    /// The package of that name in the version that apt would take.
    pub(crate) fn package(&self, name: &str) -> Result<Package> {
        let shown = self.show(name)?;
        let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
        Ok(Package {
            name: name.to_owned(),
            version: version
                .with_context(|| format!("package {name} has no version"))?
                .to_owned(),
        })
    }

    /// Names of the packages that it depends on.
    pub(crate) fn depends(&self, package: &Package) -> Result<Vec<String>> {
        let shown = self.show(&package.name)?;
        let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "));
        let names = depends.unwrap_or_default().split([',', '|']);
        Ok(names
            .filter_map(|entry| entry.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    fn show(&self, name: &str) -> Result<String> {
        process::read(&mut self.command("apt-cache", &["show", "--no-all-versions", name]))
    }

    /// Downloads one package into `folder` and returns its file.
    pub(crate) fn download(&self, package: &Package, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let wanted = format!("{}={}", package.name, package.version);
        process::read(
            self.command("apt-get", &["-q", "download", &wanted])
                .current_dir(folder),
        )?;
        let files = debs(folder)?.into_iter();
        let mut mine = files.filter(|file| file_name(file).starts_with(&format!("{}_", package.name)));
        mine.next()
            .with_context(|| format!("apt-get download {wanted} left no file in {}", folder.display()))
    }

    /// Unpacks packages and everything they depend on into `folder`.
    pub(crate) fn unpack_with_dependencies(&self, names: &[&str], folder: &Path) -> Result<()> {
        self.unpack_with_dependencies_but(names, "/", folder)
    }

    /// The same, but without the package whose file begins with `left_out`.
    pub(crate) fn unpack_with_dependencies_but(&self, names: &[&str], left_out: &str, folder: &Path) -> Result<()> {
        process::read(
            self.command("apt-get", &["-q", "-y", "--download-only", "install"])
                .args(names),
        )?;
        let archives = debs(&self.dir.join("archives"))?;
        let mut wanted = archives
            .iter()
            .filter(|archive| !file_name(archive).starts_with(left_out));
        wanted.try_for_each(|archive| unpack(archive, folder))?;
        archives.iter().try_for_each(|archive| {
            fs::remove_file(archive).with_context(|| format!("cannot remove {}", archive.display()))
        })
    }
}

/// Unpacks one package file into `folder`; none of its scripts run.
pub(crate) fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    process::read(Command::new("dpkg-deb").arg("-x").arg(archive).arg(folder)).map(drop)
}

/// Copies the machine's lists of sources, so that one more can stand beside them.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    // A machine may have all its sources in /etc/apt/sources.list, which apt reads anyway.
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if path.extension().is_some_and(|kind| kind == "list" || kind == "sources") {
            fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// The numbers in a name, by which names of kernel packages are newer or older.
fn numbers(name: &str) -> Vec<u64> {
    let parts = name.split(|character: char| !character.is_ascii_digit());
    parts.filter_map(|digits| digits.parse().ok()).collect()
}

/// The package files of a folder.
fn debs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The first `NAME (= VERSION)` of a Depends line.
fn parse_dependency(depends: &str) -> Option<Package> {
    let first = depends.split(',').next()?.trim();
    let (name, version) = first.split_once(" (= ")?;
    Some(Package {
        name: name.to_owned(),
        version: version.strip_suffix(')')?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_behind_its_meta_package_is_read_with_its_version() {
        let package = parse_dependency("linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), other").unwrap();
        assert_eq!(package.name, "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(package.version, "6.1.192-2");
        assert_eq!(parse_dependency("libc6 (>= 2.36)"), None);
    }

    #[test]
    fn a_newer_kernel_has_greater_numbers_whatever_their_length() {
        let names = ["linux-image-6.12.9+deb12-amd64", "linux-image-6.12.117+deb12-amd64"];
        assert_eq!(names.into_iter().max_by_key(|name| numbers(name)), Some(names[1]));
        assert_eq!(numbers("linux-image-6.1.0-56-amd64"), [6, 1, 0, 56, 64]);
    }
}
