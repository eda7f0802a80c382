//! Which ends of a guest are crashes, and what each is called.

use std::time::Duration;

use serde_json::Value;

use crate::common::{path_text, run_ok};
use crate::machine::{Host, to};

#[test]
fn every_kind_of_crash_is_dumped_under_its_own_trigger() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let kinds = [
        ("panic", "panic-record"),
        ("page-fault", "panic-record"),
        ("pvpanic-only", "pvpanic"),
        ("triple-fault", "triple-fault"),
        ("internal-error", "kvm-internal-error"),
    ];
    let mut machines = Vec::new();
    for (mode, _) in kinds {
        machines.push(host.run(mode, &format!("mode={mode}"), &to(serve.netdump)));
    }

    for machine in &mut machines {
        assert_eq!(machine.ends(), 10, "{}", machine.said());
    }

    for core in serve.settled_cores(kinds.len()) {
        assert_eq!(core["state"], "complete", "{core}");
        let id = core["id"].as_str().expect("an id");
        let info = run_ok(&["cores", "info", id, "--json", "--dir", path_text(&serve.dir)]);
        let info: Value = serde_json::from_str(&info).expect("`cores info --json` is an object");
        let expected = kinds.iter().find(|(mode, _)| core["guest"] == *mode);
        let (_, trigger) = expected.unwrap_or_else(|| panic!("a core of nobody: {core}"));
        assert_eq!(info["note"]["trigger"], *trigger, "{core}");
        assert!(core["panic"].as_str().is_some_and(|panic| !panic.is_empty()), "{core}");
    }
}

#[test]
fn a_guest_with_two_processors_says_which_of_them_crashed() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let target = serve.netdump.to_string();
    let mut machine = host.run("pair", "", &["--netdump", &target, "--vcpus", "2"]);

    assert_eq!(machine.ends(), 10, "{}", machine.said());

    serve.settled_cores(1);
    let info = run_ok(&["cores", "info", "latest", "--json", "--dir", path_text(&serve.dir)]);
    let info: Value = serde_json::from_str(&info).expect("`cores info --json` is an object");
    assert_eq!(info["note"]["crashed_cpu"], 1);
    let tail = info["note"]["console_tail"].as_str().unwrap_or_default();
    assert!(tail.contains("demo guest panic on CPU 1"), "{tail}");
}

#[test]
fn a_power_off_ends_the_machine_and_dumps_nothing() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let mut machine = host.run("off", "mode=poweroff", &to(serve.netdump));

    assert_eq!(machine.ends(), 0, "{}", machine.said());

    assert!(serve.cores().is_empty());
    assert!(!machine.said().contains("dump "), "{}", machine.said());
}

#[test]
fn a_reset_boots_the_guest_again_and_dumps_nothing() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    for mode in ["reset", "reset-keyboard"] {
        let machine = host.run(mode, &format!("mode={mode}"), &to(serve.netdump));
        machine.says("the guest reset itself");
        machine.says("incarnation 3");
        let info = machine.info();
        assert_eq!(info["crashes"], 0);
        assert!(info["incarnation"].as_u64().is_some_and(|number| number >= 3), "{info}");
        assert!(!machine.said().contains("dump "), "{}", machine.said());
        assert_eq!(machine.terminate(), 0);
    }
    assert!(serve.cores().is_empty());
}

#[test]
fn a_panic_on_the_console_is_a_crash_only_when_asked_for() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let target = serve.netdump.to_string();

    let machine = host.run("deaf", "mode=panic-console", &["--netdump", &target]);
    machine
        .daemon
        .line_starting("[    0.200000] Kernel panic - not syncing");
    std::thread::sleep(Duration::from_millis(300));
    let info = machine.info();
    assert_eq!((&info["state"], &info["crashes"]), (&"running".into(), &0.into()));
    assert_eq!(machine.terminate(), 0);
    assert!(serve.cores().is_empty());

    let mut machine = host.run(
        "listening",
        "mode=panic-console",
        &["--netdump", &target, "--panic-console"],
    );
    assert_eq!(machine.ends(), 10, "{}", machine.said());
    let core = &serve.settled_cores(1)[0];
    let panic = core["panic"].as_str().unwrap_or_default();
    assert!(panic.contains("Kernel panic - not syncing: demo guest"), "{core}");
}

#[test]
fn a_guest_that_dumps_itself_is_left_alone_and_that_is_told() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let machine = host.run("kdump", "mode=crashloaded", &to(serve.netdump));

    machine.says("dumps itself");

    let before = machine.fresh_heartbeat();
    machine.goes_on_after(before);
    let info = machine.info();
    assert_eq!((&info["state"], &info["crashes"]), (&"running".into(), &0.into()));
    assert_eq!(machine.terminate(), 0);
    assert!(serve.cores().is_empty());
}
