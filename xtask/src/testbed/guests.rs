//! The stock kernels that tests boot as guests, each with an initramfs of the drivers that our machine calls for.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{
    apt::{self, Apt, Package},
    initramfs,
    part::Part,
};

/// One kernel of the matrix.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Its folder below `guests/`.
    pub(crate) name: &'static str,
    /// Names of its packages, a regular expression; the newest is taken. None: it is the kernel of the testbed itself.
    packages: Option<&'static str>,
    /// Modules that this kernel does not have at all.
    lacks: &'static [&'static str],
    /// Its headers are fetched also where not everything is asked for.
    pub(crate) headers_in_every_run: bool,
}

/// Debian 12's kernels: its own and the one of its backports, for virtual machines (cloud) and for everything (generic).
pub(crate) const GUESTS: [Guest; 4] = [
    Guest {
        name: "6.1-cloud",
        packages: None,
        lacks: &["e1000"],
        headers_in_every_run: true,
    },
    Guest {
        name: "6.1-generic",
        packages: Some(r"^linux-image-6\.1\.0-[0-9]+-amd64$"),
        lacks: &[],
        headers_in_every_run: false,
    },
    Guest {
        name: "6.12-cloud",
        packages: Some(r"^linux-image-6\.12\.[0-9]+[+]deb12-cloud-amd64$"),
        lacks: &["e1000"],
        headers_in_every_run: false,
    },
    Guest {
        name: "6.12-generic",
        packages: Some(r"^linux-image-6\.12\.[0-9]+[+]deb12-amd64$"),
        lacks: &[],
        headers_in_every_run: true,
    },
];

impl Guest {
    /// The part of the testbed that it is.
    pub(crate) fn part(&self, testbed: &Path) -> Part {
        let packages = self.packages.unwrap_or("that of the testbed");
        let recipe = format!("1 {packages} {}", initramfs::DRIVERS.text());
        Part::new(testbed, &format!("guests/{}", self.name), recipe)
    }

    /// What `uname -r` says in it, once it is there.
    pub(crate) fn release(&self, testbed: &Path) -> Result<String> {
        let file = testbed.join("guests").join(self.name).join("release");
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// Whether its symbols are those of the testbed itself.
    pub(crate) const fn is_of_the_testbed(&self) -> bool {
        self.packages.is_none()
    }

    /// Fills the folder `place`: `vmlinuz`, `release` and `initrd.cpio`.
    ///
    /// Of a package of up to 400 MB unpacked only these stay.
    pub(crate) fn make(&self, apt: &Apt, testbed: &Path, place: &Path) -> Result<()> {
        fs::create_dir_all(place)?;
        let Some(pattern) = self.packages else {
            return self.take(testbed, &testbed.join("kernel"), place);
        };
        let unpacked = place.join("unpacked");
        let package = apt.newest(pattern)?;
        fetch(apt, &package, &unpacked)?;
        self.take(testbed, &unpacked, place)?;
        fs::remove_dir_all(&unpacked).context("cannot remove the unpacked kernel")
    }

    /// Takes what is wanted out of an unpacked package.
    fn take(&self, testbed: &Path, unpacked: &Path, place: &Path) -> Result<()> {
        let modules = unpacked.join("lib/modules");
        let mut releases = fs::read_dir(&modules)?.map(|entry| Ok(entry?.file_name()));
        let release: std::io::Result<_> = releases.next().context("the package has no modules")?;
        let release = release?.to_string_lossy().into_owned();
        ensure!(releases.next().is_none(), "{} has several kernels", modules.display());
        fs::copy(unpacked.join(format!("boot/vmlinuz-{release}")), place.join("vmlinuz"))
            .with_context(|| format!("no kernel {release}"))?;
        initramfs::DRIVERS.build(testbed, &modules.join(&release), self.lacks, &place.join("initrd.cpio"))?;
        fs::write(place.join("release"), release).context("cannot write the kernel's release")
    }
}

/// Downloads and unpacks a package.
fn fetch(apt: &Apt, package: &Package, unpacked: &Path) -> Result<()> {
    let download = unpacked.with_added_extension("download");
    let archive = apt.download(package, &download)?;
    apt::unpack(&archive, unpacked)?;
    fs::remove_dir_all(&download).context("cannot remove the kernel's package")
}
