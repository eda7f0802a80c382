//! The [`machine`] in between, with a Debian in it, runs the binary under test: one receiver, and the guests of the cases.
//!
//! A test makes a list of [`Case`]s and gives them to [`run`], which deals them to [`MACHINES`] machines, side by side; booting one
//! costs about 6 seconds, so a snapshot would save little. What a guest left comes back as soon as it has ended, as a tar archive in
//! its own slot of a disk, and each case's check looks at it as [`Seen`]; the report of a failure names every case that failed, with
//! everything it said.
//!
//! What fails, or does not come back, is run again, and how it failed is printed; what fails in each of [`RUNS`] has failed.
//!
//! ```ignore
//! let crashed = Case::new("crashed", Kernel::Cloud61)
//!     .payload("load pvpanic_mmio; echo c > /proc/sysrq-trigger")
//!     .expect(|seen| {
//!         seen.exited(10)?;
//!         Ok(format!("{} is complete", seen.core()?["id"]))
//!     });
//! outer::run(&testbed, dir.path(), &[crashed])?;
//! ```

use std::fs;
use std::io::{Seek as _, SeekFrom};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::case::Case;
use crate::machine;
use crate::pack;
use crate::run;
use crate::seen::Seen;
use crate::testbed::Testbed;

/// For the machine itself, without its guests: it took 8 seconds with two processors.
const LIMIT: Duration = Duration::from_secs(120);
/// Room for what a guest leaves, on the disk that brings it back. The file is sparse.
const SLOT_LEN: u64 = 1 << 30;
/// An empty file system of a guest. mke2fs makes no journal in a smaller one.
const DISK_LEN: u64 = 16 << 20;

/// How often a case may be run.
const RUNS: usize = 4;

/// How many machines run at once, of all tests together: more of them on two processors only take longer.
const MACHINES: usize = 2;

/// How many run, and what wakes those that wait.
static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// One of the [`MACHINES`], until it is dropped.
struct Turn;

impl Turn {
    fn wait() -> Self {
        let (running, ended) = &RUNNING;
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = ended.wait_while(running, |running| *running == MACHINES);
        *running.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (running, ended) = &RUNNING;
        *running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ended.notify_one();
    }
}

/// What the steps of cases can call.
const LIB: &str = r#"
now() { cut -d' ' -f1 /proc/uptime; }
coreferry() { /p/coreferry "$@"; }
vmm() {
  for process in $(pidof coreferry); do
    tr '\000' ' ' < /proc/$process/cmdline | grep -q "^/p/coreferry run --name $NAME " && echo $process
  done
}
tell() { printf "%-512s" $1 | dd of=$R/disk.img conv=notrunc 2> /dev/null; }
vms() { /p/coreferry vms --api /tmp/$NAME.sock "$1" $NAME; }
said() {
  while true; do
    kill -0 $pid 2> /dev/null; gone=$?
    [ "$(grep -c -e "$1" $OUT)" -ge "${2:-1}" ] && return 0
    [ $gone = 0 ] || { echo "the guest ended and never said: $1"; return 1; }
    sleep 0.3
  done
}
"#;

/// Runs the guests and has each case look at what it left; tells what they say, and fails with all failures together.
///
/// What they left stays below `dir`.
pub(crate) fn run(testbed: &Testbed, dir: &Path, cases: &[Case]) -> Result<Vec<Seen>> {
    ensure!(!cases.is_empty(), "no case is left (COREFERRY_CASES)");
    let mut left: Vec<&Case> = cases.iter().collect();
    let mut passed = Vec::new();
    let mut failures = String::new();
    for number in 1..=RUNS {
        let began = Instant::now();
        let dir = dir.join(format!("run-{number}"));
        fs::create_dir(&dir)?;
        failures = String::new();
        let came = boot_all(testbed, &dir, &left);
        eprintln!("{} guests took {:.0} s", left.len(), began.elapsed().as_secs_f64());
        let mut back = Vec::new();
        for came in came {
            let came = came.context("the machine in between")?;
            back.extend(came.back);
            failures += &came.failure.unwrap_or_default();
        }
        passed.extend(look(&dir, &back, &mut left, &mut failures));
        if left.is_empty() {
            // In the order of the cases, whenever they ran.
            let place = |seen: &Seen| cases.iter().position(|case| case.name == seen.name);
            passed.sort_by_key(place);
            return Ok(passed);
        }
        eprintln!("run {number} of {RUNS}: {left:?} failed: {failures}");
    }
    bail!("{failures}")
}

/// Has each case that came back look at what it left, and keeps those that failed or did not come in `left`.
fn look(dir: &Path, back: &[&str], left: &mut Vec<&Case>, failures: &mut String) -> Vec<Seen> {
    let mut passed = Vec::new();
    let came = |case: &&Case| back.contains(&case.name);
    let (there, mut failed): (Vec<&Case>, Vec<&Case>) = left.iter().partition(|case| came(case));
    for case in there {
        let seen = match Seen::read(case.name, dir.join("seen").join(case.name)) {
            Ok(seen) => seen,
            Err(error) => {
                *failures += &format!("{case:?}: {error:#}\n");
                failed.push(case);
                continue;
            }
        };
        match case.check(&seen) {
            Ok(said) => {
                eprintln!("{case:?}: {said} ({:.0} s)", seen.took_s);
                passed.push(seen);
            }
            Err(error) => {
                eprintln!("{case:?}: FAILED: {error:#}");
                *failures += &format!("{case:?}: {error:#}\n{}", seen.everything());
                failed.push(case);
            }
        }
    }
    *left = failed;
    passed
}

/// What one run of the machine brought.
struct Came<'c> {
    /// Names of the cases whose guests' folders are there.
    back: Vec<&'c str>,
    /// How the machine failed, if it did.
    failure: Option<String>,
}

/// Deals the cases to the machines, and runs these.
fn boot_all<'c>(testbed: &Testbed, dir: &Path, cases: &[&'c Case]) -> Vec<Result<Came<'c>>> {
    thread::scope(|scope| {
        let machine = |first| {
            let hand: Vec<&Case> = cases.iter().skip(first).step_by(MACHINES).copied().collect();
            let boot = move || boot(testbed, dir, &dir.join(format!("machine-{first}")), &hand);
            scope.spawn(boot)
        };
        let machines: Vec<_> = (0..MACHINES.min(cases.len())).map(machine).collect();
        let join =
            |machine: thread::ScopedJoinHandle<'_, _>| machine.join().unwrap_or_else(|panic| resume_unwind(panic));
        machines.into_iter().map(join).collect()
    })
}

/// One run of a machine, in a folder of its own, with everything in it. What its guests left goes below `dir`.
fn boot<'c>(testbed: &Testbed, dir: &Path, own: &Path, cases: &[&'c Case]) -> Result<Came<'c>> {
    let _turn = Turn::wait();
    fs::create_dir(own)?;
    let initrd = own.join("outer.cpio");
    write_initrd(testbed, own, &initrd, cases)?;
    let results = own.join("results");
    let guests = u32::try_from(cases.len())?;
    fs::File::create(&results)?.set_len(u64::from(guests) * SLOT_LEN)?;
    let shorter = if crate::everything() { 1 } else { 4 };
    let mut qemu = machine::qemu(testbed, &initrd);
    qemu.args(["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="])
        .args(["-device", "virtio-blk-pci,drive=results", "-drive"])
        .arg(format!(
            "if=none,id=results,format=raw,cache=unsafe,file={}",
            results.display()
        ));
    // A machine may stand still for good. Few cases take a tenth of what one may on an idle machine; what is cut off here runs
    // again.
    let limits = cases
        .iter()
        .map(|case| Duration::from_secs(case.limit_s.into()) / shorter);
    let ran = machine::run(&mut qemu, own, LIMIT + limits.sum::<Duration>());
    fs::remove_file(&initrd)?;
    let (said, failure) = match ran {
        Ok(said) if said.contains("OUTER END 0") => (said, None),
        Ok(said) => (said.clone(), Some(said)),
        Err(error) => (run::said(own), Some(format!("{error:#}"))),
    };
    let seen = dir.join("seen");
    fs::create_dir_all(&seen)?;
    let mut back = Vec::new();
    for (slot, case) in (0..).zip(cases) {
        if said
            .lines()
            .any(|line| line.trim_end() == format!("{} is back", case.name))
        {
            let mut archive = fs::File::open(&results)?;
            archive.seek(SeekFrom::Start(slot * SLOT_LEN))?;
            // What comes from the guests may be sparse, but busybox packs it whole; the file of the disk may be.
            let unpacked = Command::new("tar")
                .args(["-xf", "-", "-C"])
                .arg(&seen)
                .stdin(archive)
                .status();
            ensure!(unpacked?.success(), "{case:?}: what came back is no archive");
            back.push(case.name);
        }
    }
    fs::remove_file(&results).context("cannot remove the disk")?;
    Ok(Came { back, failure })
}

/// What the machine runs.
fn script(cases: &[&Case]) -> String {
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let slots: String = (0..)
        .zip(cases)
        .map(|(slot, case)| format!("{}) slot={slot}; brings={};; ", case.name, case.brings_core))
        .collect();
    let (names, slot_mib) = (names.join(" "), SLOT_LEN >> 20);
    format!(
        r#"cd /p; . ./lib; export COREFERRY_LOG=info NO_COLOR=1
mkdir -p /tmp/r
./coreferry serve --dir /tmp/store --api unix:/tmp/serve.sock > /tmp/r/serve 2>&1 &
until grep -q '^ready ' /tmp/r/serve; do kill -0 $! || exit 1; sleep 0.1; done
back() {{
  case $1 in {slots}esac
  cores=$(grep -l ""$1"" /tmp/store/cores/*/*/*/manifest.json 2> /dev/null | xargs -r -n 1 dirname)
  # A core is explained a little after it has come.
  for core in $cores; do
    for i in $(seq 300); do [ -e $core/explain.json ] && break; sleep 0.1; done
  done
  ./coreferry cores list --json --dir /tmp/store > /tmp/r/$1/cores.json || return 1
  # The names of cores rise with time: the newest comes last.
  for core in $cores; do newest=$core; done
  [ $brings = false ] || mv $newest /tmp/r/$1/core
  tar -cf - -C /tmp/r $1 | dd of=/dev/vda bs=1M seek=$((slot * {slot_mib})) conv=notrunc,fsync 2> /dev/null || return 1
  rm -r /tmp/r/$1; echo "$1 is back"
}}
for name in {names}; do sh /p/cases/$name/run; (back $name); done
exit 0
"#
    )
}

/// Puts the binary under test with the libraries it needs, the guests and the scripts behind the testbed's archive: a kernel
/// unpacks one after the other.
fn write_initrd(testbed: &Testbed, dir: &Path, initrd: &Path, cases: &[&Case]) -> Result<()> {
    let root = dir.join("outer");
    let place = root.join("p");
    fs::create_dir_all(&place)?;
    pack::copy_binary(&root, &place)?;
    for (number, case) in cases.iter().enumerate() {
        let folder = place.join("cases").join(case.name);
        fs::create_dir_all(folder.join("root"))?;
        fs::write(folder.join("run"), case.script(number))?;
        fs::write(folder.join("steps"), &case.steps)?;
        fs::write(folder.join("root/payload"), case.variables(number) + &case.payload)?;
        if let Some(image) = &case.image {
            fs::write(folder.join("kernel"), image)?;
        }
        for (path, bytes) in &case.files {
            let inside = folder.join("root").join(path);
            fs::create_dir_all(inside.parent().context("a file has a folder")?)?;
            fs::write(inside, bytes)?;
        }
        let guest = place.join("guests").join(case.kernel.name());
        fs::create_dir_all(&guest)?;
        for file in ["vmlinuz", "initrd.cpio"] {
            fs::copy(case.kernel.file(testbed, file), guest.join(file))
                .with_context(|| format!("{case:?} has no {file}"))?;
        }
    }
    if cases.iter().any(|case| case.has_disk) {
        write_disk(testbed, dir, &place)?;
    }
    fs::write(place.join("lib"), LIB)?;
    fs::write(place.join("run"), script(cases))?;
    pack::append(testbed, dir, &testbed.path("l1.cpio"), &root, initrd)?;
    fs::remove_dir_all(&root).context("cannot remove what was packed")
}

/// An empty ext4, compressed.
fn write_disk(testbed: &Testbed, dir: &Path, place: &Path) -> Result<()> {
    let disk = place.join("disk");
    fs::File::create(&disk)?.set_len(DISK_LEN)?;
    let mut mke2fs = testbed.command("mke2fs");
    run::output(mke2fs.args(["-q", "-F", "-t", "ext4"]).arg(&disk), dir, "", LIMIT)?;
    let mut gzip = testbed.command("busybox");
    run::output(gzip.args(["gzip", "-1"]).arg(&disk), dir, "", LIMIT).map(drop)
}
