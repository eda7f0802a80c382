//! The machines of a host: listed, looked at, paused, stopped.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::http::get;
use crate::machine::{Host, NOBODY, stderr, to};

/// Time between two heartbeats of the demo guest.
const BEAT_MS: u128 = 100;

#[test]
fn machines_are_listed_paused_resumed_and_stopped_by_name() {
    let Some(host) = Host::new() else { return };
    let mut one = host.run("road-one", "mode=heartbeat", &to(NOBODY));
    let two = host.run("road-two", "mode=heartbeat", &["--netdump", NOBODY, "--vcpus", "2"]);
    one.info_when("running");
    two.info_when("running");

    let listed = host.listed(&["road-one", "road-two"]);
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(
        (&listed[0]["name"], &listed[1]["name"]),
        (&"road-one".into(), &"road-two".into())
    );
    assert_eq!((&listed[0]["vcpus"], &listed[1]["vcpus"]), (&1.into(), &2.into()));
    assert_eq!(listed[0]["pid"], one.daemon.pid());
    let info = one.info();
    assert_eq!((&info["schema_version"], &info["mem_mib"]), (&1.into(), &64.into()));
    assert_eq!(info["netdump"], serde_json::json!([NOBODY]));
    assert_eq!(get(&one.socket(), "/api/v1/vms/road-one").body, info);

    let before = one.fresh_heartbeat();
    let ran = Instant::now();
    one.act("pause");
    let ran = ran.elapsed();
    assert_eq!(one.info()["state"], "paused");
    std::thread::sleep(Duration::from_secs(2));
    let runs = Instant::now();
    one.act("resume");
    assert_eq!(one.info()["state"], "running");
    let after = one.fresh_heartbeat();
    let running_beats = (ran + runs.elapsed()).as_millis() / BEAT_MS;
    assert!(
        u128::from(after - before) <= running_beats + 5,
        "{before} to {after}, {running_beats} while it ran"
    );
    one.goes_on_after(after);
    one.act("stop");
    assert_eq!(one.ends(), 0, "{}", one.said());
    assert_eq!(host.listed(&["road-one", "road-two"]).len(), 1);
    assert_eq!(two.terminate(), 0);
}

#[test]
fn an_nmi_reaches_the_guest() {
    let Some(host) = Host::new() else { return };
    let machine = host.run("shaken", "mode=heartbeat", &to(NOBODY));
    machine.info_when("running");

    machine.act("nmi");

    machine.daemon.line_starting("NMI on CPU 0");
    let before = machine.fresh_heartbeat();
    machine.goes_on_after(before);
    assert_eq!(machine.terminate(), 0);
}

#[test]
fn sigterm_ends_a_healthy_machine_with_0_and_removes_its_socket() {
    let Some(host) = Host::new() else { return };
    let mut machine = host.run("tidy", "mode=heartbeat", &to(NOBODY));
    machine.info_when("running");
    let socket = machine.socket();
    assert!(socket.exists());

    machine.daemon.signal(Signal::SIGTERM);

    assert_eq!(machine.ends(), 0);
    assert!(!socket.exists());
}

#[test]
fn the_socket_of_a_killed_machine_is_replaced_and_that_of_a_living_one_is_not() {
    let Some(host) = Host::new() else { return };
    let killed = host.run("phoenix", "mode=heartbeat", &to(NOBODY));
    killed.info_when("running");
    killed.daemon.kill();
    assert!(host.socket("phoenix").exists());
    assert!(host.listed(&["phoenix"]).is_empty(), "a dead machine is none");
    let unreachable = host.vms(&["info", "phoenix"]);
    assert_eq!(unreachable.status.code(), Some(6), "{}", stderr(&unreachable));

    let machine = host.run("phoenix", "mode=heartbeat", &to(NOBODY));
    let info = machine.info_when("running");
    assert_eq!(info["pid"], machine.daemon.pid());

    let mut second = host.run("phoenix", "", &to(NOBODY));
    assert_eq!(second.ends(), 1);
    let said = second.said();
    assert!(said.contains("phoenix.sock") && said.contains("--name"), "{said}");
    assert!(
        !said.contains("the guest runs"),
        "a second guest of that name must not even start:\n{said}"
    );
    assert_eq!(machine.info()["pid"], machine.daemon.pid());
    assert_eq!(machine.terminate(), 0);
}

#[test]
fn a_machine_that_is_not_there_matches_nothing() {
    let Some(host) = Host::new() else { return };
    for verb in ["info", "dump", "nmi", "pause", "resume", "stop"] {
        let output = host.vms(&[verb, "road-nosuch"]);
        assert_eq!(output.status.code(), Some(3), "{verb}: {}", stderr(&output));
        assert!(stderr(&output).contains("road-nosuch"), "{}", stderr(&output));
    }
}
