//! Full disks: the receiver's, and the spool's. Each is a small tmpfs in a mount namespace of its own.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Daemon, path_text, run, run_ok};
use crate::fails_with;
use crate::machine::{Host, only_file_in};
use crate::sandbox::unshared;

/// A few seconds more than the 12 for which a receiver may be silent.
const SILENCE_LIMIT: Duration = Duration::from_secs(25);

/// The shell command that makes `dir` a disk of a few MiB.
fn small_disk(dir: &Path, mib: u32) -> String {
    std::fs::create_dir(dir).expect("a folder");
    format!("mount -t tmpfs -o size={mib}m tmpfs {}", path_text(dir))
}

/// A receiver whose disk is too small for a core, and what to dial: its netdump address and its API.
fn receiver_with_a_small_disk(host: &Host, name: &str) -> Option<(Daemon, String, String)> {
    let dir = host.path(name);
    let mut serve = host.command();
    serve.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
        "--dir",
        path_text(&dir),
    ]);
    let serve = Daemon::start(unshared("--mount", &small_disk(&dir, 8), &serve, "")?);
    let ready = serve.line_starting("ready ");
    let field = |name| {
        let found = ready.split(' ').find_map(|word| word.strip_prefix(name));
        found.expect("a ready line").to_owned()
    };
    let (target, api) = (field("netdump="), format!("http://{}", field("api=")));
    Some((serve, target, api))
}

/// The one core that it has is not called whole, and it has lived through it.
fn shows_what_came_as_what_it_is(serve: Daemon, api: &str) {
    let log = serve.stderr_text();
    assert!(
        log.contains("No space left on device"),
        "the receiver's log does not say it:\n{log}"
    );
    let listed = run_ok(&["cores", "list", "--json", "--api", api]);
    let cores: Vec<Value> = serde_json::from_str(&listed).expect("`cores list --json` is an array");
    let [core] = cores.as_slice() else {
        panic!("what came is one core: {listed}");
    };
    assert_eq!(core["state"], "incomplete", "{core}");
    assert_ne!(core["holes"], Value::Array(Vec::new()), "{core}");
    let id = core["id"].as_str().expect("an id");
    fails_with(&run(&["cores", "verify", id, "--api", api]), 4, &[]);
    assert_eq!(serve.terminate().code(), Some(0));
}

#[test]
fn a_receiver_with_a_full_disk_lists_nothing_as_complete_and_the_spool_saves_the_core() {
    let Some(host) = Host::new() else { return };
    // A disk for each: on one, whoever comes late finds it full before it has begun.
    let receivers = ["for-lost", "for-saved"].map(|name| receiver_with_a_small_disk(&host, name));
    let [
        Some((of_lost, target, lost_api)),
        Some((of_saved, saved_target, saved_api)),
    ] = receivers
    else {
        return;
    };
    let spool = host.path("spool");

    let mut lost = host.run("lost", "touch_mib=16", &["--netdump", &target]);
    let more = ["--netdump", &saved_target, "--spool", path_text(&spool)];
    let mut saved = host.run("saved", "touch_mib=16", &more);

    assert_eq!(lost.ends_within(SILENCE_LIMIT), 11, "{}", lost.said());
    let said = lost.said();
    for part in [
        "the core is lost",
        &target,
        "run out of space",
        "--spool",
        "the guest is destroyed",
    ] {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }
    assert_eq!(saved.ends_within(SILENCE_LIMIT), 10, "{}", saved.said());
    assert!(
        only_file_in(&spool)
            .extension()
            .is_some_and(|ending| ending == "vmcore")
    );
    shows_what_came_as_what_it_is(of_lost, &lost_api);
    shows_what_came_as_what_it_is(of_saved, &saved_api);
}

#[test]
fn a_full_spool_keeps_no_half_core() {
    let Some(host) = Host::new() else { return };
    let spool = host.path("spool");
    let command = host.run_command("stuffed", "touch_mib=16", &["--spool", path_text(&spool)]);
    let list = format!("echo left: $(ls -A {})", path_text(&spool));
    let Some(mut command) = unshared("--mount", &small_disk(&spool, 4), &command, &list) else {
        return;
    };

    let output = command.output().expect("unshare can be run");

    let parts = [
        "the core is lost",
        path_text(&spool),
        "No space left",
        "the guest is destroyed",
    ];
    fails_with(&output, 11, &parts);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        printed.lines().any(|line| line == "left:"),
        "something is left in the spool:\n{printed}"
    );
}
