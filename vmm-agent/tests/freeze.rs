//! Freezing and thawing guests on the real KVM.
mod common;

use std::thread::sleep;
use std::time::Duration;

use common::{Guest, kvm};
use guest_shim::pattern::DEMO_FILL_GPA;

#[test]
fn a_thawed_guest_goes_on() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=heartbeat touch_mib=4", 64, 2);
    guest.wait_for("heartbeat 1");
    for round in 0..20 {
        let frozen = guest.incarnation.freeze();
        assert!(frozen.clock.is_some());
        let before = guest.heartbeats();
        let mut memory = vec![0; 1 << 20];
        guest.incarnation.memory().read_at(0x20_0000, &mut memory).unwrap();
        sleep(Duration::from_millis(20));
        let mut later = vec![0; 1 << 20];
        guest.incarnation.memory().read_at(0x20_0000, &mut later).unwrap();
        assert!(memory == later, "memory stands still in round {round}");
        assert_eq!(guest.heartbeats(), before, "a frozen guest says nothing");
        guest.incarnation.thaw();
        guest.wait_for(&format!("heartbeat {}\n", before + 1));
    }
    assert!(guest.events.try_recv().is_err(), "no trigger");
}

#[test]
fn busy_vcpus_freeze_and_go_on_with_their_work() {
    if !kvm() {
        return;
    }
    // CPU 0 checks its pages against the pattern all the time and would panic if a register or page were wrong; CPU 1
    // waits far longer than this test takes.
    let guest = Guest::boot("delay_ticks=1000000 touch_mib=16", 64, 2);
    guest.wait_for("heartbeat 0");
    let mut positions = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let frozen = guest.incarnation.freeze();
        positions.insert(frozen.cpus[0].rcx ^ frozen.cpus[0].rax);
        guest.incarnation.thaw();
        sleep(Duration::from_millis(1));
    }
    assert!(
        positions.len() > 20,
        "CPU 0 works between the freezes: {} positions",
        positions.len()
    );
    assert!(
        guest.events.try_recv().is_err(),
        "the work went on undisturbed: {}",
        guest.console.text()
    );
}

#[test]
fn registers_are_those_after_the_instruction_that_reported() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=pvpanic-only touch_mib=1", 32, 2);
    guest.event();
    let rip = guest.incarnation.freeze().cpus[1].rip;
    // `out dx, al` is one byte long; behind it the instruction pointer must stand.
    let mut code = [0];
    guest.incarnation.memory().read_at(rip - 1, &mut code).unwrap();
    assert_eq!(code, [0xee], "at {:#x}", rip - 1);
    // And it goes on from there: to its busy loop, without a second report.
    guest.incarnation.thaw();
    sleep(Duration::from_millis(100));
    assert!(guest.events.try_recv().is_err());
    let later = guest.incarnation.freeze();
    assert_eq!(later.reporting_vcpu(), None);
}

#[test]
fn a_paused_guest_stays_paused_through_a_freeze() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=heartbeat touch_mib=1", 32, 2);
    guest.wait_for("heartbeat 1");
    guest.incarnation.pause().unwrap();
    let before = guest.heartbeats();
    let _ = guest.incarnation.freeze();
    guest.incarnation.thaw();
    sleep(Duration::from_millis(300));
    assert_eq!(guest.heartbeats(), before);
    assert!(guest.incarnation.is_paused());
    guest.incarnation.resume();
    guest.wait_for(&format!("heartbeat {}\n", before + 1));
}

#[test]
fn an_nmi_reaches_every_vcpu_also_after_a_freeze() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=heartbeat touch_mib=1", 32, 2);
    // Right after a heartbeat nobody else prints for a while.
    guest.wait_for("heartbeat 1\n");
    guest.incarnation.nmi();
    guest.wait_for("NMI on CPU 0\n");
    guest.wait_for("NMI on CPU 1\n");
    let next = guest.heartbeats();
    guest.wait_for(&format!("heartbeat {next}\n"));
    let _ = guest.incarnation.freeze();
    guest.incarnation.nmi();
    sleep(Duration::from_millis(50));
    let count = |guest: &Guest| guest.console.text().matches("NMI on CPU").count();
    assert_eq!(count(&guest), 2, "a frozen guest takes no interrupt");
    guest.incarnation.thaw();
    guest.wait_for(&format!("heartbeat {}\n", next + 2));
    assert_eq!(count(&guest), 4, "{}", guest.console.text());
}

#[test]
fn stopping_a_frozen_guest_leaves_its_memory() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("touch_mib=2", 32, 2);
    guest.event();
    let _ = guest.incarnation.freeze();
    let memory = guest.incarnation.memory();
    guest.incarnation.stop();
    let mut word = [0; 8];
    memory.read_at(DEMO_FILL_GPA, &mut word).unwrap();
    assert_ne!(word, [0; 8]);
}
