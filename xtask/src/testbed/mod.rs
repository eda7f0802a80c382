//! What the tests need and a new machine lacks: stock kernels with their symbols, crash, makedumpfile, gdb, QEMU, passt,
//! busybox, drgn, an initramfs whose init can crash its kernel, and one of a machine that can run such a guest on KVM.
//!
//! Layout, below `testbed/` of the cache:
//!
//! ```text
//! bin/NAME             runs an unpacked program with its own libraries: crash gdb makedumpfile passt python3 drgn qemu-…
//! pkgs/                unpacked packages, everything they depend on included
//! inside/              ethtool and iperf3 for guests, unpacked with everything they depend on
//! kernel/              the unpacked kernel package; vmlinuz and release (its version) beside boot/ and lib/
//! vmlinux              the same kernel with debug information
//! venv/                drgn for bin/python3
//! volatility/          Volatility 3 for bin/python3
//! browser/bin/NAME     chromedriver, and the headless chromium that it drives; unpacked with all their libraries
//! axe.min.js           rules for accessible pages, run in the browser
//! schemathesis/bin/run tests an API by its own document
//! promtool             reads rules and numbers as Prometheus does
//! guests/NAME/         vmlinuz, release and initrd.cpio of the kernels that tests boot: 6.1-cloud (that of kernel/), 6.1-generic,
//!                      6.12-cloud and 6.12-generic; the initramfs runs what a test adds
//! symbols/NAME/        vmlinux (with debug information) and release of those kernels but the first, for `cargo xtask matrix` alone
//! headers/NAME/build   what a module for that kernel is built by
//! l1.cpio              initramfs of a machine with /dev/kvm, by nesting in QEMU without KVM; runs what a test adds
//! l2.cpio              initramfs of the panicking guest: `crash=1` on the kernel command line makes it panic
//! ```
//!
//! Every part is made in a temporary folder and renamed into place, with a stamp that says what it was made of: a part
//! with another stamp is made anew. A part that cannot be made is told with the reason; the others are not affected.

mod apt;
mod cpio;
mod guests;
mod headers;
mod initramfs;
mod kernel;
mod part;
mod programs;
mod symbols;
mod web;

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{process, workspace};
use apt::Apt;
use guests::{GUESTS, Guest};
use part::Part;
use web::Web;

/// Where the testbed is kept.
pub(crate) fn dir() -> PathBuf {
    workspace::cache_dir().join("testbed")
}

/// What to fetch.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Symbols and headers of all kernels, too (2.5 GB to download, 2 GB on disk), which only `test --all` and `matrix` need.
    #[arg(long)]
    all: bool,
}

/// Fetches and says what could not be had.
pub(crate) fn run(options: &Options) -> Result<()> {
    let missing = fetch(options.all);
    missing.iter().for_each(|reason| println!("SKIP: {reason}"));
    println!("testbed in {}", dir().display());
    if missing.is_empty() {
        Ok(())
    } else {
        bail!("{} parts of the testbed are missing", missing.len())
    }
}

/// Makes what is not there yet and returns a sentence for each part that cannot be made.
pub(crate) fn fetch(all: bool) -> Vec<String> {
    match fetch_parts(all) {
        Ok(failures) => failures.iter().map(|error| format!("testbed: {error:#}")).collect(),
        Err(error) => vec![format!("testbed: {error:#}")],
    }
}

fn fetch_parts(all: bool) -> Result<Vec<anyhow::Error>> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("needs Linux on x86-64, for the guests are stock kernels of that machine");
    }
    let dir = dir();
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // Two runs at once would fetch twice and trip over each other.
    let lock = File::create(dir.join("lock")).context("cannot make the testbed's lock file")?;
    lock.lock().context("cannot lock the testbed")?;

    let programs = Part::new(&dir, "pkgs", programs::recipe());
    let inside = Part::new(&dir, "inside", programs::inside_recipe());
    let shims = Part::new(&dir, "bin", programs::shims_recipe());
    let venv = Part::new(&dir, "venv", programs::venv_recipe());
    let kernel = Part::new(&dir, "kernel", kernel::recipe());
    let vmlinux = Part::new(&dir, "vmlinux", kernel::symbols_recipe());
    let guest = Part::new(&dir, "l2.cpio", initramfs::GUEST.text());
    let outer = Part::new(&dir, "l1.cpio", initramfs::OUTER.text());
    let web = Web::new(&dir);
    let volatility = Part::new(&dir, "volatility", programs::volatility_recipe());
    for folder in ["guests", "headers", "symbols"] {
        std::fs::create_dir_all(dir.join(folder)).with_context(|| format!("cannot make the folder {folder}"))?;
    }
    let guests: Vec<(&Guest, Part)> = GUESTS.iter().map(|guest| (guest, guest.part(&dir))).collect();
    let is_there = |parts: &[&Part]| parts.iter().all(|part| part.is_current());
    let whole = [
        &programs,
        &inside,
        &shims,
        &venv,
        &volatility,
        &kernel,
        &vmlinux,
        &guest,
        &outer,
    ];
    let is_whole =
        |(guest, part): &(&Guest, Part)| part.is_current() && more(&dir, guest, all).all(|(part, _)| part.is_current());
    if is_there(&whole) && guests.iter().all(is_whole) && web.is_current() {
        return Ok(Vec::new());
    }
    if let Some(program) = ["apt-get", "apt-cache", "dpkg-deb", "tar"]
        .iter()
        .find(|program| !process::on_path(program))
    {
        bail!("no {program} on the PATH; the stock kernels and tools come as Debian packages");
    }
    // Kernel, symbols and modules are of one version; what is fetched today may be newer than what is there.
    if !kernel.is_current() || !vmlinux.is_current() {
        let of_guests = GUESTS.iter().map(|guest| guest.part(&dir));
        [&kernel, &vmlinux, &guest, &outer]
            .into_iter()
            .try_for_each(Part::forget)?;
        of_guests.into_iter().try_for_each(|part| part.forget())?;
    }
    let apt = Apt::open(&dir.join("apt"))?;
    // The symbols are by far the largest download: they come beside everything else.
    let (programs, kernel, vmlinux) = thread::scope(|scope| {
        let programs = scope.spawn(|| {
            programs.make(|place| programs::unpack(&apt, place))?;
            inside.make(|place| programs::unpack_inside(&apt, place))?;
            shims.make(programs::write_shims)?;
            venv.make(|place| programs::install_drgn(&dir, place))?;
            volatility.make(|place| programs::install_volatility(&dir, place))
        });
        let vmlinux = scope.spawn(|| vmlinux.make(|place| kernel::fetch_symbols(&apt, place)));
        let kernel = kernel.make(|place| kernel::unpack(&apt, place));
        (joined(programs.join()), kernel, joined(vmlinux.join()))
    });
    let mut failures: Vec<anyhow::Error> = [programs, kernel, vmlinux]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    if failures.is_empty() {
        let modules = dir
            .join("kernel/lib/modules")
            .join(std::fs::read_to_string(dir.join("kernel/release"))?);
        failures.extend(
            guest
                .make(|place| initramfs::GUEST.build(&dir, &modules, &[], place))
                .err(),
        );
        failures.extend(
            outer
                .make(|place| initramfs::OUTER.build(&dir, &modules, &[], place))
                .err(),
        );
        let made = guests.iter().map(|(guest, part)| {
            part.make(|place| guest.make(&apt, &dir, place))?;
            more(&dir, guest, all).try_for_each(|(part, make)| part.make(|place| make(&apt, &dir, guest, place)))
        });
        failures.extend(made.filter_map(Result::err));
    }
    failures.append(&mut web.make(&apt));
    Ok(failures)
}

/// How a part that belongs to a guest is made.
type MakeOf = fn(&Apt, &Path, &Guest, &Path) -> Result<()>;

/// What else is wanted of a guest, once it is there itself.
fn more(dir: &Path, guest: &Guest, all: bool) -> impl Iterator<Item = (Part, MakeOf)> {
    let headers = (all || guest.headers_in_every_run).then(|| (headers::part(dir, guest), headers::make as MakeOf));
    let symbols = (all && !guest.is_of_the_testbed()).then(|| (symbols::part(dir, guest), symbols::make as MakeOf));
    headers.into_iter().chain(symbols)
}

fn joined(result: thread::Result<Result<()>>) -> Result<()> {
    result.map_err(|_| anyhow!("a fetching thread panicked"))?
}
