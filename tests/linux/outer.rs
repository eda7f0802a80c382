//! The machine in between: a QEMU without KVM (TCG) that emulates AMD's virtualisation, and in it a Debian with the real
//! `kvm_amd`. It runs the binary under test: one receiver, and the guests of the cases.
//!
//! A test makes a list of [`Case`]s and gives them to [`run`]. One run of the machine serves all of them, two side by side, each
//! lane taking the next one; booting it costs about 6 seconds, so a snapshot would save little. What the guests left comes back on
//! a disk as one tar archive, and each case's check looks at it as [`Seen`]; the report of a failure names every case that
//! failed, with everything it said.
//!
//! The emulation itself fails now and then: its own kernel, in which none of our code runs, was seen to die with a stack overflow in
//! `error_entry`, and a guest of it to triple fault on its way up. What fails is therefore run once more, and how it failed the
//! first time is printed; what fails twice has failed.
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
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::case::{Case, LIMIT_S};
use crate::run;
use crate::seen::{self, Seen};
use crate::testbed::Testbed;

/// For the machine itself, without its guests: it took 8 seconds with two processors.
const LIMIT: Duration = Duration::from_secs(120);
/// The disk that brings things back. The file is sparse.
const RESULTS_LEN: u64 = 4 << 30;
/// An empty file system of a guest. mke2fs makes no journal in a smaller one.
const DISK_LEN: u64 = 16 << 20;

/// How often a case may be run.
const RUNS: usize = 2;

/// One machine at a time: two of them on two processors only take twice as long.
static RUNNING: Mutex<()> = Mutex::new(());

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
        let ran = boot(testbed, &dir, &left).context("the machine in between");
        eprintln!("{} guests took {:.0} s", left.len(), began.elapsed().as_secs_f64());
        failures = String::new();
        match ran.and_then(|()| look(&dir, &mut left, &mut failures)) {
            Ok(seen) => passed.extend(seen),
            Err(error) => failures = format!("{error:#}"),
        }
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

/// Has each case look at what it left, and keeps those that failed in `left`.
fn look(dir: &Path, left: &mut Vec<&Case>, failures: &mut String) -> Result<Vec<Seen>> {
    let cores = seen::cores(&dir.join("seen"))?;
    let mut passed = Vec::new();
    let mut failed = Vec::new();
    for case in left.iter() {
        let seen = Seen::read(case.name, dir.join("seen").join(case.name), &cores)?;
        match case.check(&seen) {
            Ok(said) => {
                eprintln!("{case:?}: {said} ({:.0} s)", seen.took_s);
                passed.push(seen);
            }
            Err(error) => {
                eprintln!("{case:?}: FAILED: {error:#}");
                *failures += &format!("{case:?}: {error:#}\n{}", seen.everything());
                failed.push(*case);
            }
        }
    }
    *left = failed;
    Ok(passed)
}

/// One run of the machine with everything in it.
fn boot(testbed: &Testbed, dir: &Path, cases: &[&Case]) -> Result<()> {
    let _alone = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let initrd = dir.join("outer.cpio");
    write_initrd(testbed, dir, &initrd, cases)?;
    let results = dir.join("results.tar");
    fs::File::create(&results)?.set_len(RESULTS_LEN)?;
    let guests = u32::try_from(cases.len())?;
    let mut qemu = testbed.command("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3G"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args([
            "-serial",
            "stdio",
            "-append",
            "console=ttyS0 quiet panic=-1 no_timer_check",
        ])
        .args(["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="])
        .args(["-device", "virtio-blk-pci,drive=results", "-drive"])
        .arg(format!(
            "if=none,id=results,format=raw,cache=unsafe,file={}",
            results.display()
        ))
        .arg("-kernel")
        .arg(testbed.path("kernel/vmlinuz"))
        .arg("-initrd")
        .arg(&initrd);
    let said = run::output(&mut qemu, dir, "", LIMIT + guests * Duration::from_secs(LIMIT_S.into()))?;
    ensure!(said.contains("OUTER END 0"), "it failed:\n{said}");
    fs::remove_file(&initrd)?;
    let seen = dir.join("seen");
    fs::create_dir_all(&seen)?;
    let mut tar = Command::new("tar");
    // What comes from the guests may be sparse, but busybox packs it whole; the file of the disk may be.
    run::output(tar.args(["-xf"]).arg(&results).arg("-C").arg(&seen), dir, "", LIMIT)?;
    fs::remove_file(&results).context("cannot remove the disk")
}

/// What the machine runs.
fn script(cases: &[&Case]) -> String {
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let brought = cases.iter().filter(|case| case.brings_core).map(|case| case.name);
    let brought: Vec<&str> = brought.collect();
    format!(
        r#"cd /p; . ./lib; export COREFERRY_LOG=info NO_COLOR=1
mkdir -p /tmp/r /tmp/taken
./coreferry serve --dir /tmp/store --api unix:/tmp/serve.sock > /tmp/r/serve 2>&1 &
until grep -q '^ready ' /tmp/r/serve; do kill -0 $! || exit 1; sleep 0.1; done
lane() {{ for name in {}; do mkdir /tmp/taken/$name 2> /dev/null && sh /p/cases/$name/run; done; }}
lane & first=$!; lane & second=$!; wait $first; wait $second
./coreferry cores list --json --dir /tmp/store > /tmp/r/cores.json; code=$?
# The names of cores rise with time: the newest comes last.
for name in {}; do
  for core in /tmp/store/cores/*/*/*; do grep -q "\"$name\"" $core/manifest.json && newest=$core; done
  mv $newest /tmp/r/$name/core; newest=
done
tar -cf /dev/vda -C /tmp/r . && exit $code
"#,
        names.join(" "),
        brought.join(" "),
    )
}

/// Puts the binary under test with the libraries it needs, the guests and the scripts behind the testbed's archive: a kernel
/// unpacks one after the other.
fn write_initrd(testbed: &Testbed, dir: &Path, initrd: &Path, cases: &[&Case]) -> Result<()> {
    let root = dir.join("outer");
    let place = root.join("p");
    fs::create_dir_all(&place)?;
    copy_binary(&root, &place)?;
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
    fs::copy(testbed.path("l1.cpio"), initrd)?;
    let mut cpio = Command::new("sh");
    cpio.args([
        "-c",
        "cd \"$2\" && find . | \"$0\" cpio -o -H newc 2> /dev/null >> \"$1\"",
    ])
    .arg(testbed.path("bin/busybox"))
    .args([initrd, &root]);
    run::output(&mut cpio, dir, "", LIMIT)?;
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

/// Without its debug information the binary is a tenth; a machine without `strip` takes it whole.
fn copy_binary(root: &Path, place: &Path) -> Result<()> {
    let (from, to) = (Path::new(env!("CARGO_BIN_EXE_coreferry")), place.join("coreferry"));
    let stripped = Command::new("strip").arg("-o").arg(&to).arg(from).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(from, &to)?;
    }
    for library in libraries(&to)? {
        let inside = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().context("a library has a folder")?)?;
        fs::copy(&library, &inside).with_context(|| format!("cannot copy {library}"))?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The loader and the libraries that `ldd` names; none for a static binary.
fn libraries(binary: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(binary).output().context("cannot run ldd")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("not a dynamic executable"), "ldd: {said}");
        return Ok(Vec::new());
    }
    let said = String::from_utf8(output.stdout)?;
    if said.contains("not found") {
        bail!("a library is missing:\n{said}");
    }
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(str::to_owned).collect())
}
