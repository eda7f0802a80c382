//! Receivers that are not there or not reachable.

use std::time::Duration;

use crate::common::{Daemon, coreferry, path_text, run};
use crate::fails_with;
use crate::machine::{Host, NOBODY};
use crate::sandbox::unshared;

/// A few seconds more than the 15 that a receiver gets for its first answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);

/// An address that no network has (RFC 5737).
const NOWHERE: &str = "203.0.113.9";

#[test]
fn without_an_answer_the_core_is_lost_and_said_to_be_and_the_policy_runs() {
    let Some(host) = Host::new() else { return };
    // All at once: each of them waits for its 15 s.
    let mut away = host.run("away", "", &["--netdump", NOBODY]);
    let command = host.run_command("astray", "", &["--netdump", NOWHERE]);
    let Some(command) = unshared("--net", "", &command, "") else {
        return;
    };
    let mut astray = Daemon::start(command);
    let mut send = coreferry();
    send.args(["send", path_text(&host.kernel()), "--to", NOBODY]);
    let mut send = Daemon::start(send);

    assert_eq!(away.ends_within(ANSWER_LIMIT), 11, "{}", away.said());
    let said = away.said();
    for part in [
        "the core is lost",
        NOBODY,
        "nothing listens",
        "--spool",
        "the guest is destroyed",
    ] {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }

    assert_eq!(
        astray.exit_within(ANSWER_LIMIT).code(),
        Some(11),
        "{}",
        astray.stderr_text()
    );
    let said = astray.stderr_text();
    for part in ["the core is lost", NOWHERE, "no way to", "the guest is destroyed"] {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }

    assert_eq!(send.exit_within(ANSWER_LIMIT).code(), Some(6), "{}", send.stderr_text());
    let said = send.stderr_text();
    for part in [NOBODY, "coreferry serve"] {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }
}

#[test]
fn a_wire_that_dies_before_the_crash_loses_the_core_but_not_the_policy() {
    let Some(host) = Host::new() else { return };
    let socket = host.path("wire.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let wire = format!("stream={}", path_text(&socket));
    let wire = [
        "--dump-net",
        &wire,
        "--netdump-client",
        "10.9.0.2/24",
        "--netdump",
        "10.9.0.1",
    ];
    let mut machine = host.run("cut", "delay_ticks=50", &wire);
    machine.says("the guest runs");
    drop(listener);

    assert_eq!(machine.ends(), 11, "{}", machine.said());

    let said = machine.said();
    for part in ["the core is lost", "wire.sock", "the guest is destroyed"] {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }
}

#[test]
fn send_names_the_file_that_it_cannot_send() {
    let host = crate::common::temp_dir();
    let (missing, empty) = (host.path().join("missing"), host.path().join("empty"));
    std::fs::write(&empty, "").expect("a file");

    fails_with(
        &run(&["send", path_text(&missing), "--to", NOBODY]),
        1,
        &["missing", "No such file"],
    );
    fails_with(
        &run(&["send", path_text(&empty), "--to", NOBODY]),
        1,
        &["empty", "nothing to send"],
    );
    fails_with(
        &run(&["send", path_text(host.path()), "--to", NOBODY]),
        1,
        &["not a regular file"],
    );
    fails_with(&run(&["send", path_text(&empty)]), 2, &["--to"]);
    fails_with(&run(&["send", path_text(&empty), "--to", "host:x"]), 2, &["HOST:PORT"]);
}
