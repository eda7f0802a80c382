//! What is wrong before a guest runs: no guest is started then.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::{coreferry, path_text, skip};
use crate::fails_with;
use crate::machine::{Host, stderr};
use crate::sandbox::unshared;

/// A user without rights; 65534 is the overflow user of every Linux system.
const NOBODY_ID: u32 = 65534;

/// `coreferry run` with exactly these arguments, which must fail before a guest runs.
fn refuses_to_run(host: &Host, arguments: &[&str], exit: i32, parts: &[&str]) {
    let output = host
        .command()
        .arg("run")
        .args(arguments)
        .output()
        .expect("coreferry can be run");
    fails_with(&output, exit, parts);
    assert!(
        !stderr(&output).contains("the guest runs"),
        "{arguments:?}: {}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty(), "{arguments:?} has printed something");
}

#[test]
fn option_values_out_of_range_are_usage_errors_that_name_option_and_range() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel();
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--mem-mib", "0"], &["--mem-mib", "1.."]),
        (&["--vcpus", "0"], &["--vcpus", "1..=8"]),
        (&["--vcpus", "9"], &["--vcpus", "1..=8"]),
        (&["--on-crash", "explode"], &["--on-crash", "`explode`", "dump-restart"]),
        (&["--restart-limit", "often"], &["--restart-limit", "`often`", "3/1h"]),
        (&["--dump-mtu", "575"], &["--dump-mtu", "576"]),
        (&["--dump-mac", "01:00:00:00:00:00"], &["--dump-mac", "unicast"]),
        (&["--dump-net", "pigeon"], &["--dump-net", "tap="]),
        (&["--netdump", "host:x"], &["--netdump", "HOST:PORT"]),
        (&["--dump-deadline", "soon"], &["--dump-deadline"]),
        (&["--name", "../up"], &["--name", "letters"]),
        (&["--dump-net", "tap=nosuch0"], &["tap=nosuch0", "--netdump-client"]),
    ];
    for (case, parts) in cases {
        refuses_to_run(&host, &[&["--kernel", path_text(&kernel)], case].concat(), 2, parts);
    }
    refuses_to_run(&host, &[], 2, &["--kernel"]);
}

#[test]
fn a_kernel_that_cannot_be_started_is_named_with_what_is_wrong() {
    let Some(host) = Host::new() else { return };
    let (missing, text) = (host.path("missing.elf"), host.path("notes.txt"));
    std::fs::write(
        &text,
        "these are only words, more than an ELF header is long, but no kernel",
    )
    .expect("a file");
    let kernel = host.kernel();
    let folder = host.path("runtime");

    refuses_to_run(
        &host,
        &["--kernel", path_text(&missing)],
        1,
        &["missing.elf", "No such file"],
    );
    refuses_to_run(&host, &["--kernel", path_text(&folder)], 1, &["runtime", "directory"]);
    refuses_to_run(&host, &["--kernel", path_text(&text)], 1, &["notes.txt", "ELF"]);
    let small = ["--kernel", path_text(&kernel), "--mem-mib", "1"];
    refuses_to_run(&host, &small, 1, &["1 MiB", "--mem-mib"]);
    let long = "x".repeat(100_000);
    let wordy = ["--kernel", path_text(&kernel), "--append", &long];
    refuses_to_run(&host, &wordy, 1, &["100000", "command line"]);
}

#[test]
fn a_wire_that_is_not_there_is_found_before_the_guest_starts() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel();
    let socket = format!("stream={}", path_text(&host.path("no.sock")));
    let on = |wire| {
        [
            "--kernel",
            path_text(&kernel),
            "--netdump-client",
            "10.9.0.2/24",
            "--dump-net",
            wire,
        ]
    };

    refuses_to_run(&host, &on("tap=nosuch0"), 1, &["nosuch0", "ip tuntap add"]);
    refuses_to_run(&host, &on(&socket), 1, &["no.sock", "passt"]);
}

#[test]
fn a_receiver_name_that_cannot_be_looked_up_is_found_before_the_guest_starts() {
    let Some(host) = Host::new() else { return };
    // A network without any resolver, so that nobody is asked; a name that never resolves (RFC 6761, section 6.4).
    let command = host.run_command("nameless", "", &["--netdump", "collector.invalid"]);
    let Some(mut command) = unshared("--net", "", &command, "") else {
        return;
    };

    let output = command.output().expect("unshare can be run");

    fails_with(&output, 1, &["collector.invalid", "IPv4 address"]);
    assert!(!stderr(&output).contains("the guest runs"), "{}", stderr(&output));
}

#[test]
fn a_spool_that_cannot_be_written_is_found_before_the_guest_starts() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel();
    // A file where a directory should be stops root, too.
    let below_a_file = kernel.join("spool");
    let arguments = ["--kernel", path_text(&kernel), "--spool", path_text(&below_a_file)];
    refuses_to_run(&host, &arguments, 1, &[path_text(&below_a_file), "can be written"]);

    let read_only = host.path("read-only");
    std::fs::create_dir(&read_only).expect("a folder");
    let command = host.run_command("nowhere", "", &["--spool", path_text(&read_only)]);
    let mount = format!("mount -t tmpfs -o ro tmpfs {}", path_text(&read_only));
    let Some(mut command) = unshared("--mount", &mount, &command, "") else {
        return;
    };
    let output = command.output().expect("unshare can be run");
    fails_with(&output, 1, &[path_text(&read_only), "Read-only", "can be written"]);
    assert!(!stderr(&output).contains("the guest runs"), "{}", stderr(&output));
}

#[test]
fn a_host_without_kvm_is_told_how_to_get_it() {
    let Some(host) = Host::new() else { return };
    let command = host.run_command("bare", "", &["--netdump", "127.0.0.1"]);
    let Some(mut command) = unshared("--mount", "mount -t tmpfs tmpfs /dev", &command, "") else {
        return;
    };

    let output = command.output().expect("unshare can be run");

    fails_with(&output, 1, &["/dev/kvm", "load the module"]);
}

#[test]
fn a_user_without_the_right_to_kvm_is_told_which_right() {
    let Some(host) = Host::new() else { return };
    let kvm = std::fs::metadata("/dev/kvm").expect("/dev/kvm");
    if !nix::unistd::geteuid().is_root() || kvm.mode() & 0o006 != 0 {
        return skip("only root can become a user without rights, and /dev/kvm must not be open to everybody");
    }
    let dir = host.path("");
    std::fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("a folder that all may enter");
    let runtime = host.path("runtime");
    std::os::unix::fs::chown(&runtime, Some(NOBODY_ID), Some(NOBODY_ID)).expect("a folder given away");
    let template = host.run_command("humble", "", &["--netdump", "127.0.0.1"]);
    let mut command = Command::new(reachable_binary(&host));
    command.args(template.get_args()).env("XDG_RUNTIME_DIR", &runtime);

    let output = command
        .uid(NOBODY_ID)
        .gid(NOBODY_ID)
        .output()
        .expect("coreferry can be run");

    fails_with(&output, 1, &["/dev/kvm", "group"]);
}

/// The binary under test where everybody can run it: the build folder may be closed to others.
fn reachable_binary(host: &Host) -> std::path::PathBuf {
    let (binary, copy) = (coreferry().get_program().to_owned(), host.path("coreferry"));
    let binary = Path::new(&binary);
    std::fs::hard_link(binary, &copy)
        .or_else(|_| std::fs::copy(binary, &copy).map(drop))
        .expect("a copy of the binary");
    copy
}
