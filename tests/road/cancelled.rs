//! A dump of a crashed guest that somebody cancels: the core is lost, and the policy is followed all the same.

use serde_json::Value;

use crate::common::wait_for;
use crate::http::{get, request};
use crate::machine::{Host, Machine, to};
use crate::reluctant::{Manner, Reluctant};

/// Cancels the dump of incarnation `life` over HTTP as soon as it runs, and waits for its end.
fn cancel_the_dump_of(machine: &Machine<'_>, life: u64) -> Value {
    let socket = machine.socket();
    let id = wait_for(&format!("a dump of life {life}"), || {
        let info = machine.info();
        let is_it = info["incarnation"] == life && info["state"] == "dumping";
        info["last_dump_id"].as_str().filter(|_| is_it).map(str::to_owned)
    });
    let path = format!("/api/v1/dumps/{id}");
    let answer = request(&socket, "DELETE", &path, &[], "");
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.body
}

#[test]
fn under_dump_preserve_the_guest_stays_frozen_with_its_memory() {
    let Some(host) = Host::new() else { return };
    let receiver = Reluctant::start(Manner::Crawling);
    let target = receiver.address().to_string();
    let arguments = ["--netdump", &target, "--on-crash", "dump-preserve"];
    let mut machine = host.run("frozen", "touch_mib=16", &arguments);

    let cancelled = cancel_the_dump_of(&machine, 1);

    let info = machine.info_when("preserved");
    assert_eq!((&info["incarnation"], &info["crashes"]), (&1.into(), &1.into()));
    let id = cancelled["id"].as_str().expect("an id");
    let dump = get(&machine.socket(), &format!("/api/v1/dumps/{id}"));
    assert_eq!(
        (&dump.body["state"], &dump.body["phase"]),
        (&"cancelled".into(), &"ended".into())
    );
    assert!(
        !host.vms(&["resume", "frozen"]).status.success(),
        "a crashed guest cannot go on"
    );
    machine.act("stop");
    assert_eq!(machine.ends(), 11, "the core is lost: {}", machine.said());
}

#[test]
fn under_dump_destroy_the_machine_ends_and_says_that_the_core_is_lost() {
    let Some(host) = Host::new() else { return };
    let receiver = Reluctant::start(Manner::Crawling);
    let mut machine = host.run("ended", "touch_mib=16", &to(receiver.address()));

    cancel_the_dump_of(&machine, 1);

    assert_eq!(machine.ends(), 11, "{}", machine.said());
    let said = machine.said();
    let (cancelled, destroyed) = (said.find("the dump was cancelled"), said.find("the guest is destroyed"));
    assert!(cancelled.is_some() && cancelled < destroyed, "{said}");
}

#[test]
fn under_dump_restart_the_next_life_begins() {
    let Some(host) = Host::new() else { return };
    let receiver = Reluctant::start(Manner::Crawling);
    let target = receiver.address().to_string();
    let arguments = [
        "--netdump",
        &target,
        "--on-crash",
        "dump-restart",
        "--restart-limit",
        "1/1h",
    ];
    let mut machine = host.run("again", "touch_mib=16", &arguments);

    let first = cancel_the_dump_of(&machine, 1);
    let second = cancel_the_dump_of(&machine, 2);

    assert_ne!(first["id"], second["id"], "each life has its dump");
    let info = machine.info_when("preserved");
    assert_eq!((&info["incarnation"], &info["crashes"]), (&2.into(), &2.into()));
    machine.act("stop");
    assert_eq!(machine.ends(), 11);
}
