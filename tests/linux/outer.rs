//! The machine in between: what is put into it, its one run, and what the guests in it said.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::run;
use crate::testbed::Testbed;

/// Everything in it took three minutes on a machine of two processors that had six times as much to do.
const LIMIT: Duration = Duration::from_secs(500);
/// The longest that one guest may take, in seconds.
const GUEST_LIMIT_S: u32 = 150;

/// A guest to be run.
#[derive(Debug)]
pub(crate) struct Guest {
    name: &'static str,
    options: String,
    append: String,
    stop: Option<(&'static str, u32)>,
}

impl Guest {
    /// A guest of that name with more options of `coreferry run` and its kernel's command line.
    pub(crate) fn new(name: &'static str, options: &str, append: &str) -> Self {
        Self {
            name,
            options: options.to_owned(),
            append: append.to_owned(),
            stop: None,
        }
    }

    /// Ends it in the ordinary way once it has said something so many times.
    pub(crate) fn stopped_after(self, said: &'static str, times: u32) -> Self {
        Self {
            stop: Some((said, times)),
            ..self
        }
    }

    /// Runs it; what it says goes into a file, with its exit code at the end.
    fn script(&self) -> String {
        let Self {
            name, options, append, ..
        } = self;
        let run = format!(
            "COREFERRY_LOG=info NO_COLOR=1 ./coreferry run --name {name} --kernel vmlinuz --initrd l2.cpio --mem-mib 128 --vcpus 2 \
             --api /tmp/{name}.sock {options} --append '{append}'"
        );
        let until = match self.stop {
            Some((said, times)) => format!(
                "until [ $(grep -c '{said}' /tmp/{name}.out) -ge {times} ] || [ $n -ge {GUEST_LIMIT_S} ]\n\
                 do sleep 1; n=$((n+1)); done; kill -TERM $pid\n"
            ),
            None => format!(
                "while kill -0 $pid 2> /dev/null && [ $n -lt {GUEST_LIMIT_S} ]; do sleep 1; n=$((n+1)); done\n\
                 [ $n -lt {GUEST_LIMIT_S} ] || kill -KILL $pid\n"
            ),
        };
        format!("{run} > /tmp/{name}.out 2>&1 & pid=$!; n=0\n{until}wait $pid; echo \"EXIT $?\" >> /tmp/{name}.out\n")
    }
}

/// What the machine's serial console showed.
#[derive(Debug)]
pub(crate) struct Outer {
    said: String,
    took: Duration,
}

impl Outer {
    /// Runs the machine with all guests: the lists side by side, the guests of a list one after the other.
    pub(crate) fn run(testbed: &Testbed, dir: &Path, lanes: &[Vec<Guest>]) -> Result<Self> {
        let initrd = dir.join("outer.cpio");
        write_initrd(testbed, dir, &initrd, &script(lanes))?;
        let began = Instant::now();
        let mut qemu = testbed.command("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G"])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
                "-serial",
                "stdio",
            ])
            .args(["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="])
            .args(["-append", "console=ttyS0 quiet panic=-1", "-kernel"])
            .arg(testbed.path("kernel/vmlinuz"))
            .arg("-initrd")
            .arg(&initrd);
        // The console turns a line feed into two characters; so does the guests'.
        let said = run::output(&mut qemu, dir, "", LIMIT)?.replace('\r', "");
        ensure!(said.contains("OUTER END 0"), "the machine in between failed:\n{said}");
        Ok(Self {
            said,
            took: began.elapsed(),
        })
    }

    /// What a guest and its machine said, if it ended with that code.
    pub(crate) fn expect(&self, name: &str, code: u32) -> Result<&str> {
        let start = format!("BEGIN {name}\n");
        let end = format!("END {name}\n");
        let text = self.said.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
        let (text, _) = text.with_context(|| format!("nothing of guest {name}"))?;
        ensure!(
            text.contains(&format!("EXIT {code}\n")),
            "not exit code {code}:\n{text}"
        );
        Ok(text)
    }

    pub(crate) fn everything(&self) -> &str {
        &self.said
    }

    pub(crate) fn figures(&self) -> String {
        format!(
            "the machine in between and its guests took {:.0} s",
            self.took.as_secs_f64()
        )
    }
}

fn script(lanes: &[Vec<Guest>]) -> String {
    let mut script = "cd /p\n".to_owned();
    for lane in lanes {
        let guests: String = lane.iter().map(Guest::script).collect();
        script += &format!("(\n{guests}) &\n");
    }
    script += "wait\n";
    for guest in lanes.iter().flatten() {
        let name = guest.name;
        script += &format!("echo BEGIN {name}; cat /tmp/{name}.out; echo END {name}\n");
    }
    script
}

/// Puts the binary under test with the libraries it needs, the guest's kernel and the script behind the testbed's archive: a
/// kernel unpacks one after the other.
fn write_initrd(testbed: &Testbed, dir: &Path, initrd: &Path, script: &str) -> Result<()> {
    let root = dir.join("outer");
    let place = root.join("p");
    fs::create_dir_all(&place)?;
    let binary = place.join("coreferry");
    strip(Path::new(env!("CARGO_BIN_EXE_coreferry")), &binary)?;
    for library in libraries(&binary)? {
        let inside = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().context("a library has a folder")?)?;
        fs::copy(&library, &inside).with_context(|| format!("cannot copy {library}"))?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
    }
    fs::copy(testbed.path("kernel/vmlinuz"), place.join("vmlinuz"))?;
    fs::copy(testbed.path("l2.cpio"), place.join("l2.cpio"))?;
    fs::write(place.join("run"), script)?;
    fs::copy(testbed.path("l1.cpio"), initrd)?;
    let mut cpio = Command::new("sh");
    cpio.args(["-c", "find . | \"$0\" cpio -o -H newc 2> /dev/null"])
        .arg(testbed.path("bin/busybox"))
        .current_dir(&root)
        .stdin(Stdio::null())
        .stdout(File::options().append(true).open(initrd)?);
    ensure!(cpio.status()?.success(), "busybox cpio failed");
    Ok(())
}

/// Without its debug information the binary is a tenth; a machine without `strip` takes it whole.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let stripped = Command::new("strip").arg("-o").args([to, from]).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(from, to)?;
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
