//! Dumps that somebody asks for over HTTP, and the bounds of a dump: its deadline, its packets.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{path_text, run_ok, wait_for};
use crate::http::{Answer, get, request};
use crate::machine::{Host, Machine, stderr, to};
use crate::reluctant::{Manner, Reluctant};

/// Asks for a dump of `machine`.
fn ask(machine: &Machine<'_>, name: &str, headers: &[&str], body: &str) -> Answer {
    let path = format!("/api/v1/vms/{name}/dumps");
    request(&machine.socket(), "POST", &path, headers, body)
}

/// Waits until the dump at `location` is in `state`.
fn dump_when(socket: &Path, location: &str, state: &str) -> Value {
    wait_for(&format!("a dump that is {state}"), || {
        let answer = get(socket, location);
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.body["state"] == state).then_some(answer.body)
    })
}

#[test]
fn a_dump_asked_for_over_http_arrives_and_the_guest_goes_on() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let machine = host.run("asked", "mode=heartbeat", &to(serve.netdump));
    machine.info_when("running");
    let before = machine.fresh_heartbeat();

    let answer = ask(
        &machine,
        "asked",
        &["Idempotency-Key: first"],
        r#"{"reason":"looks stuck"}"#,
    );

    assert_eq!(answer.status, 202, "{answer:?}");
    let location = answer.header("location").to_owned();
    let id = answer.body["id"].as_str().expect("an id").to_owned();
    assert_eq!(location, format!("/api/v1/dumps/{id}"));
    let done = dump_when(&machine.socket(), &location, "done");
    assert_eq!(done["phase"], "ended");
    assert_eq!(done["error"], Value::Null);
    assert!(
        done["bytes_acked"].as_u64().is_some_and(|acked| acked > 2 << 20),
        "{done}"
    );
    machine.goes_on_after(before);

    let cores = serve.settled_cores(1);
    assert_eq!(cores[0]["state"], "complete");
    assert_eq!(cores[0]["guest"], "asked");
    assert_eq!(cores[0]["panic"], Value::Null, "a healthy guest has not panicked");
    let again = ask(&machine, "asked", &["Idempotency-Key: first"], "");
    assert_eq!((again.status, &again.body["id"]), (202, &answer.body["id"]));
    assert_eq!(serve.cores().len(), 1);
    let info = machine.info();
    assert_eq!((&info["state"], &info["crashes"]), (&"running".into(), &0.into()));
    assert_eq!(info["last_dump_id"], answer.body["id"]);
    assert_eq!(machine.terminate(), 0);
}

#[test]
fn one_dump_at_a_time_and_a_cancelled_one_lets_the_guest_go_on() {
    let Some(host) = Host::new() else { return };
    let receiver = Reluctant::start(Manner::Crawling);
    let machine = host.run("slow", "mode=heartbeat touch_mib=16", &to(receiver.address()));
    machine.info_when("running");
    let before = machine.fresh_heartbeat();
    let socket = machine.socket();

    let first = ask(&machine, "slow", &["Idempotency-Key: one"], "");
    assert_eq!(first.status, 202, "{first:?}");
    let location = first.header("location").to_owned();
    let second = ask(&machine, "slow", &["Idempotency-Key: two"], "");
    assert_eq!(second.status, 409, "{second:?}");
    assert!(second.header("content-type").starts_with("application/problem+json"));
    assert_eq!(second.body["existing"], location.as_str());
    let repeated = ask(&machine, "slow", &["Idempotency-Key: one"], "");
    assert_eq!((repeated.status, repeated.header("location")), (202, location.as_str()));
    assert_eq!(machine.info()["state"], "dumping");
    let nmi = host.vms(&["nmi", "slow"]);
    assert!(!nmi.status.success() && stderr(&nmi).contains("frozen"), "{nmi:?}");

    let cancelled = request(&socket, "DELETE", &location, &[], "");

    assert_eq!(cancelled.status, 202, "{cancelled:?}");
    let ended = dump_when(&socket, &location, "cancelled");
    assert_eq!(ended["phase"], "ended");
    machine.goes_on_after(before);
    assert_eq!(machine.info()["state"], "running");
    assert_eq!(request(&socket, "DELETE", &location, &[], "").status, 409);
    let third = ask(&machine, "slow", &["Idempotency-Key: two"], "");
    assert_eq!(third.status, 202, "{third:?}");
    assert_ne!(third.header("location"), location);
    request(&socket, "DELETE", third.header("location"), &[], "");
    dump_when(&socket, third.header("location"), "cancelled");
    assert_eq!(machine.terminate(), 0);
}

#[test]
fn requests_that_make_no_sense_are_refused_by_name() {
    let Some(host) = Host::new() else { return };
    let machine = host.run("strict", "mode=heartbeat", &to(crate::machine::NOBODY));
    machine.info_when("running");
    let socket = machine.socket();

    let unknown = request(&socket, "POST", "/api/v1/vms/other/dumps", &[], "");
    assert_eq!((unknown.status, unknown.body["status"].as_u64()), (404, Some(404)));
    assert!(
        unknown.body["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("other")),
        "{unknown:?}"
    );
    assert_eq!(ask(&machine, "strict", &[], "{nonsense").status, 400);
    let key = format!("Idempotency-Key: {}", "k".repeat(10_000));
    assert_eq!(ask(&machine, "strict", &[&key], "").status, 400);
    assert_eq!(get(&socket, "/api/v1/dumps/nosuch").status, 404);
    assert_eq!(request(&socket, "DELETE", "/api/v1/dumps/nosuch", &[], "").status, 404);

    assert_eq!(machine.info()["state"], "running");
    assert_eq!(machine.terminate(), 0);
}

#[test]
fn vms_dump_waits_for_the_core_and_a_dump_without_receiver_goes_to_the_spool() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let machine = host.run("dumped", "mode=heartbeat", &to(serve.netdump));
    machine.info_when("running");

    let output = host.vms(&["dump", "dumped", "--reason", "a test", "--json"]);

    assert!(output.status.success(), "{}", stderr(&output));
    let dump: Value = serde_json::from_slice(&output.stdout).expect("`vms dump --json` is an object");
    assert_eq!(dump["state"], "done");
    assert_eq!(serve.settled_cores(1)[0]["state"], "complete");
    let info = run_ok(&["cores", "info", "latest", "--json", "--dir", path_text(&serve.dir)]);
    let info: Value = serde_json::from_str(&info).expect("`cores info --json` is an object");
    assert_eq!(info["note"]["trigger"], "api-request");
    assert_eq!(info["note"]["dump_id"], dump["id"]);
    assert_eq!(machine.terminate(), 0);

    let spool = host.path("spool");
    let machine = host.run("spooled", "mode=heartbeat", &["--spool", path_text(&spool)]);
    machine.info_when("running");
    let output = host.vms(&["dump", "spooled"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let file = crate::machine::only_file_in(&spool);
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(path_text(&file)),
        "{output:?}"
    );
    assert_eq!(machine.terminate(), 0);
}

#[test]
fn the_dump_deadline_bounds_the_attempt_and_the_policy_follows() {
    let Some(host) = Host::new() else { return };
    for manner in [Manner::Silent, Manner::Crawling, Manner::Unconfirming] {
        let receiver = Reluctant::start(manner);
        let target = receiver.address().to_string();
        let began = Instant::now();
        let mut machine = host.run("late", "", &["--netdump", &target, "--dump-deadline", "1s"]);
        let exit = machine.ends_within(Duration::from_secs(10));
        assert_eq!(exit, 11, "{manner:?}: {}", machine.said());
        assert!(
            began.elapsed() > Duration::from_secs(1),
            "{manner:?} ended before its deadline"
        );
        let said = machine.said();
        assert!(
            said.contains("the core is lost") && said.contains("deadline"),
            "{manner:?}: {said}"
        );
        assert!(said.contains("the guest is destroyed"), "{manner:?}: {said}");
    }
}

#[test]
fn dumps_of_every_packet_size_arrive_whole() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let sizes = ["576", "1500", "9000"];
    let target = serve.netdump.to_string();
    for size in sizes {
        let name = format!("mtu{size}");
        let mut machine = host.run(&name, "", &["--netdump", &target, "--dump-mtu", size]);
        assert_eq!(machine.ends(), 10, "MTU {size}: {}", machine.said());
    }
    let cores = serve.settled_cores(sizes.len());
    for core in &cores {
        assert_eq!(core["state"], "complete", "{core}");
        run_ok(&[
            "cores",
            "verify",
            core["id"].as_str().expect("an id"),
            "--dir",
            path_text(&serve.dir),
        ]);
    }
}

#[test]
fn a_stop_waits_for_the_dump_and_a_second_one_cancels_it() {
    let Some(host) = Host::new() else { return };
    let receiver = Reluctant::start(Manner::Crawling);
    let mut machine = host.run("stopped", "touch_mib=16", &to(receiver.address()));
    machine.says("begins");
    machine.info_when("dumping");

    machine.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        machine.info()["state"],
        "dumping",
        "the first signal must not lose the core"
    );
    machine.daemon.signal(nix::sys::signal::Signal::SIGTERM);

    assert_eq!(machine.ends(), 11);
    assert!(machine.said().contains("the dump was cancelled"), "{}", machine.said());
}
