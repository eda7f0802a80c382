//! `demo`: from the panic to the list and into a debugger.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::{cores_list, path_text, run, run_ok, skip};
use crate::machine::Host;

/// Runs `demo --json` and returns what it printed.
fn demo(host: &Host, more: &[&str]) -> Value {
    let dir = host.path("cores");
    let printed = run_ok(&[&["demo", "--json", "--dir", path_text(&dir)], more].concat());
    let report = serde_json::from_str(&printed);
    report.unwrap_or_else(|why| panic!("`demo --json` prints no object ({why}):\n{printed}"))
}

#[test]
fn the_demo_core_is_identical_listed_verified_and_opens_in_gdb() {
    let Some(host) = Host::new() else { return };

    let report = demo(&host, &[]);

    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["identical"], true);
    assert_eq!(report["state"], "complete");
    assert_eq!(report["mem_bytes"], 256 << 20);
    let sent_bytes = report["sent_bytes"].as_u64().expect("a number of bytes");
    assert!(
        (32 << 20..40 << 20).contains(&sent_bytes),
        "{sent_bytes} bytes were sent"
    );
    let panic = report["panic"].as_str().expect("a panic message");
    assert!(panic.contains("the ferry's cargo is lost"), "{panic}");

    let dir = host.path("cores");
    let cores = cores_list(&dir);
    assert_eq!(cores.len(), 1, "{cores:?}");
    assert_eq!(cores[0]["id"], report["core_id"]);
    assert_eq!(cores[0]["state"], "complete");
    assert_eq!(cores[0]["guest"], "demo");
    assert_eq!(cores[0]["panic"], report["panic"]);
    assert_eq!(cores[0]["holes"], Value::Array(Vec::new()));
    run_ok(&["cores", "verify", "latest", "--dir", path_text(&dir)]);

    let core = PathBuf::from(report["path"].as_str().expect("a path"));
    opens_in_gdb(Path::new(report["kernel"].as_str().expect("a path")), &core);
}

#[test]
fn a_guest_that_dumps_itself_sends_all_of_its_memory_by_its_own_card() {
    let Some(host) = Host::new() else { return };

    let report = demo(&host, &["--in-guest", "--mem-mib", "64"]);

    assert_eq!(report["identical"], true);
    assert_eq!(report["state"], "complete");
    assert_eq!(report["mem_bytes"], 64 << 20);
    // Densely, as stock senders do: a page of ELF headers, and every page of memory.
    assert_eq!(report["sent_bytes"], (64 << 20) + 4096);
    assert_eq!(report["dump_id"], Value::Null, "the agent has nothing to do with it");
    // What may differ is small, and some of it does: the dump wrote there while it ran.
    let area = &report["dump_area"];
    let [len_bytes, changed_bytes] = ["len_bytes", "changed_bytes"].map(|field| area[field].as_u64().expect("bytes"));
    assert!(len_bytes < 1 << 20, "{area}");
    assert!((1..=len_bytes).contains(&changed_bytes), "{area}");

    let dir = host.path("cores");
    let cores = cores_list(&dir);
    assert_eq!(cores.len(), 1, "{cores:?}");
    assert_eq!(cores[0]["id"], report["core_id"]);
    assert_eq!(cores[0]["guest"], "coreferry-demo");
    assert_eq!(cores[0]["format"], "elf");
    assert_eq!(cores[0]["holes"], Value::Array(Vec::new()));
    let panic = cores[0]["panic"].as_str().expect("the kernel dump header has it");
    assert!(panic.contains("the ferry's cargo is lost"), "{panic}");
    run_ok(&["cores", "verify", "latest", "--dir", path_text(&dir)]);
}

#[test]
fn a_byte_that_changes_on_the_disk_is_found_by_verify() {
    let Some(host) = Host::new() else { return };
    let report = demo(&host, &["--mem-mib", "64"]);
    let core = PathBuf::from(report["path"].as_str().expect("a path"));
    let mut bytes = std::fs::read(&core).expect("the core can be read");

    // In the middle of what the guest filled: 17 MiB of memory, behind 1 MiB of headers.
    bytes[18 << 20] ^= 1;
    std::fs::write(&core, bytes).expect("the core can be written");

    let verified = run(&["cores", "verify", "latest", "--dir", path_text(&host.path("cores"))]);
    assert_eq!(verified.status.code(), Some(4), "{verified:?}");
}

#[test]
fn a_guest_of_6_gib_sends_only_what_it_touched() {
    let Some(host) = Host::new() else { return };

    let report = demo(&host, &["--mem-mib", "6144"]);

    assert_eq!(report["identical"], true);
    assert_eq!(report["mem_bytes"], 6144_u64 << 20);
    let sent_bytes = report["sent_bytes"].as_u64().expect("a number of bytes");
    assert!(sent_bytes < 64 << 20, "{sent_bytes} bytes were sent");
    let stored_bytes = cores_list(&host.path("cores"))[0]["stored_bytes"].as_u64();
    assert!(stored_bytes.is_some_and(|stored| stored < 64 << 20), "{stored_bytes:?}");
}

/// gdb must show both vCPUs: the second where it panicked, the first at its work, each with registers of its own.
fn opens_in_gdb(kernel: &Path, core: &Path) {
    let Some(gdb) = find_gdb() else {
        return skip("no gdb: neither in the testbed (cargo xtask testbed) nor in PATH");
    };
    let mut command = Command::new(gdb);
    command.args(["-batch", "-nx", "-ex", "set auto-load off", "-ex", "set pagination off"]);
    for thread in ["1", "2"] {
        command.args([
            "-ex",
            &format!("thread {thread}"),
            "-ex",
            "bt",
            "-ex",
            "p/x $rip",
            "-ex",
            "p/x $rsp",
        ]);
    }
    let output = command.arg(kernel).arg(core).output().expect("gdb can be run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (first, second) = said
        .split_once("[Switching to thread 2")
        .unwrap_or_else(|| panic!("one thread:\n{said}"));
    let (_, first) = first.split_once("[Switching to thread 1").unwrap_or((first, first));

    assert!(second.contains("(LWP 2)"), "{said}");
    let panicked = second.lines().find(|line| line.contains("::sign_manifest "));
    assert!(
        panicked.is_some_and(|frame| frame.contains(" at src/work.rs:")),
        "{said}"
    );
    assert!(second.contains("::report::panic "), "{said}");
    assert!(
        first.contains("::stay_busy ") && first.contains("::guest_main "),
        "{said}"
    );
    let (ours, theirs) = (registers(first), registers(second));
    assert_eq!((ours.len(), theirs.len()), (2, 2), "{said}");
    // Each vCPU has its own stack and does something else.
    assert!(ours[0] != theirs[0] && ours[1] != theirs[1], "{said}");
    assert!(ours.iter().chain(&theirs).all(|&value| value > 1 << 20), "{said}");
}

/// The values that gdb printed with `p/x`.
fn registers(said: &str) -> Vec<u64> {
    let values = said.lines().filter(|line| line.starts_with('$'));
    let value = |line: &str| u64::from_str_radix(line.split("0x").nth(1)?.trim(), 16).ok();
    values.filter_map(value).collect()
}

/// gdb of the testbed that `cargo xtask` fetches, else of the machine.
fn find_gdb() -> Option<PathBuf> {
    let cache = std::env::var_os("COREFERRY_CACHE").map_or_else(|| PathBuf::from("target/cache"), PathBuf::from);
    let testbed = std::env::var_os("COREFERRY_TESTBED").map_or_else(|| cache.join("testbed"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).collect::<Vec<_>>();
    let mut places = std::iter::once(testbed.join("bin"))
        .chain(folders)
        .map(|folder| folder.join("gdb"));
    places.find(|place| place.is_file())
}
