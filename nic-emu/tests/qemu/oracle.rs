//! QEMU's e1000, asked by its qtest protocol: lines with an access in, `OK` with a value out.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long one answer may take; normally it is microseconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the machine's BAR0 is put: in the hole for PCI.
const BAR0: u64 = 0xE000_0000;
/// The device's function in the machine's configuration space, by port 0xCF8: bus 0, device 2.
const FUNCTION: u32 = 0x8000_1000;
const COMMAND: u32 = 4;

/// A machine with an e1000, whose processor sleeps.
#[derive(Debug)]
pub(crate) struct Oracle {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Oracle {
    /// Starts one, if the testbed has QEMU. If not, says why on standard error; in CI that is a failure.
    pub(crate) fn start(moderated: bool) -> Option<Self> {
        let program = testbed().join("bin/qemu-system-x86_64");
        if !program.exists() {
            let reason = format!("the testbed lacks {} (cargo xtask testbed)", program.display());
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "CI runs every test, but this one cannot run: {reason}");
            let _ = writeln!(std::io::stderr(), "SKIP: {reason}");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let firmware = dir.path().join("halt");
        std::fs::write(&firmware, halt()).expect("the firmware can be written");
        let device = "e1000,romfile=,addr=2,mac=52:54:00:12:34:56,netdev=n";
        let mut child = Command::new(program)
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"])
            // Time jumps to the next timer while the processor sleeps: nothing waits.
            .args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"])
            .arg("-bios")
            .arg(&firmware)
            .args([
                "-qtest",
                "stdio",
                "-qtest-log",
                "none",
                "-netdev",
                "hubport,id=n,hubid=0",
            ])
            .arg("-device")
            .arg(format!("{device},mitigation={}", if moderated { "on" } else { "off" }))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("QEMU starts");
        let (requests, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines
                .filter(|line| line.starts_with("OK") || line.starts_with("FAIL"))
                .try_for_each(|line| sender.send(line))
        });
        let mut oracle = Self {
            child,
            requests,
            answers,
        };
        oracle.config_write(0x10, BAR0 as u32);
        oracle.config_write(COMMAND, 6);
        // The firmware was read by now.
        drop(dir);
        Some(oracle)
    }

    pub(crate) fn read(&mut self, offset: u32) -> u32 {
        self.ask(&format!("readl {:#x}", BAR0 + u64::from(offset)))
    }

    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        self.ask(&format!("writel {:#x} {value:#x}", BAR0 + u64::from(offset)));
    }

    /// Writes to the machine's memory.
    pub(crate) fn put(&mut self, gpa: u64, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.ask(&format!("write {gpa:#x} {} 0x{digits}", bytes.len()));
    }

    /// The level of INTA#: the interrupt bit of the status register (PCI 2.3, section 6.2.3).
    pub(crate) fn line(&mut self) -> bool {
        self.ask(&format!("outl 0xcf8 {:#x}", FUNCTION | COMMAND));
        self.ask("inl 0xcfc") >> 19 & 1 != 0
    }

    fn config_write(&mut self, at: u32, value: u32) {
        self.ask(&format!("outl 0xcf8 {:#x}", FUNCTION | at));
        self.ask(&format!("outl 0xcfc {value:#x}"));
    }

    fn ask(&mut self, request: &str) -> u32 {
        writeln!(self.requests, "{request}").expect("QEMU takes requests");
        let answer = self.answers.recv_timeout(PATIENCE);
        let answer = answer.unwrap_or_else(|error| panic!("no answer to {request:?}: {error}"));
        let value = answer.strip_prefix("OK");
        let value = value.unwrap_or_else(|| panic!("{request:?} was answered {answer:?}"));
        let digits = value.trim().trim_start_matches("0x");
        u32::from_str_radix(digits, 16).unwrap_or(0)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// 64 KiB of firmware that ends with the processor's first instructions: cli; hlt; and back to hlt.
fn halt() -> Vec<u8> {
    let mut bytes = vec![0xF4; 0x1_0000];
    bytes[0xFFF0..0xFFF4].copy_from_slice(&[0xFA, 0xF4, 0xEB, 0xFD]);
    bytes
}

fn testbed() -> PathBuf {
    let cache = || std::env::var_os("COREFERRY_CACHE").map(|cache| PathBuf::from(cache).join("testbed"));
    let given = std::env::var_os("COREFERRY_TESTBED").map(PathBuf::from).or_else(cache);
    given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cache/testbed"))
}
