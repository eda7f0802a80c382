//! What happens to a guest after its crash.

use crate::common::Serve;
use crate::machine::{Host, to};

/// The states of the stored cores; each must be complete.
fn complete_cores(serve: &Serve, count: usize) {
    for core in serve.settled_cores(count) {
        assert_eq!(core["state"], "complete", "{core}");
    }
}

#[test]
fn dump_destroy_is_the_default_and_ends_with_10_when_the_core_is_safe() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let mut machine = host.run("destroyed", "", &to(serve.netdump));

    assert_eq!(machine.ends(), 10, "{}", machine.said());

    complete_cores(&serve, 1);
    let said = machine.said();
    let (core, destroyed) = (said.find("the core is with"), said.find("the guest is destroyed"));
    assert!(
        core.is_some() && core < destroyed,
        "evidence comes before policy:\n{said}"
    );
    assert!(!machine.socket().exists(), "the socket of a machine that ended is gone");
}

#[test]
fn dump_preserve_keeps_the_guest_until_it_is_stopped() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let target = serve.netdump.to_string();
    let mut machine = host.run("kept", "", &["--netdump", &target, "--on-crash", "dump-preserve"]);

    let info = machine.info_when("preserved");

    assert_eq!((&info["crashes"], &info["incarnation"]), (&1.into(), &1.into()));
    assert_eq!(info["on_crash"], "dump-preserve");
    complete_cores(&serve, 1);
    let refused = host.vms(&["resume", "kept"]);
    assert!(!refused.status.success(), "a crashed guest cannot go on");
    // Its memory is still there: it can be dumped once more, and stays as it is.
    assert!(host.vms(&["dump", "kept"]).status.success());
    complete_cores(&serve, 2);
    assert_eq!(machine.info()["state"], "preserved");
    machine.act("stop");
    assert_eq!(machine.ends(), 10);
}

#[test]
fn dump_restart_gives_each_life_its_core_until_the_crash_loop_is_braked() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let target = serve.netdump.to_string();
    let policy = [
        "--netdump",
        &target,
        "--on-crash",
        "dump-restart",
        "--restart-limit",
        "2/1h",
    ];
    let mut machine = host.run("looping", "", &policy);

    let info = machine.info_when("preserved");

    assert_eq!((&info["crashes"], &info["incarnation"]), (&3.into(), &3.into()));
    complete_cores(&serve, 3);
    let said = machine.said();
    assert!(
        said.contains("crashes too often") && said.contains("--restart-limit"),
        "{said}"
    );
    machine.act("stop");
    assert_eq!(machine.ends(), 10);
}

#[test]
fn policies_without_dump_send_nothing_and_say_that_the_core_is_lost() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let target = serve.netdump.to_string();
    let under = |policy, limit| ["--netdump", &target, "--on-crash", policy, "--restart-limit", limit];
    let mut destroyed = host.run("destroy", "", &under("destroy", "3/1h"));
    let mut preserved = host.run("preserve", "", &under("preserve", "3/1h"));
    let mut restarted = host.run("restart", "", &under("restart", "1/1h"));

    assert_eq!(destroyed.ends(), 11, "{}", destroyed.said());
    assert_eq!(preserved.info_when("preserved")["incarnation"], 1);
    preserved.act("stop");
    assert_eq!(preserved.ends(), 11);
    assert_eq!(restarted.info_when("preserved")["incarnation"], 2);
    restarted.act("stop");
    assert_eq!(restarted.ends(), 11);

    assert!(serve.cores().is_empty());
    for machine in [&destroyed, &preserved, &restarted] {
        assert!(!machine.said().contains("begins"), "{}", machine.said());
    }
}
