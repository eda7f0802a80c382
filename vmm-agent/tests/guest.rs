//! Guests on the real KVM: they boot, crash in every way that is detected, and end.
mod common;

use std::thread::sleep;
use std::time::Duration;

use common::{Console, Guest, config, kvm};
use guest_shim::pattern::{DEMO_FILL_GPA, DEMO_SEED, page_word, word};
use vmm_agent::detect::Trigger;
use vmm_agent::incarnation::VmEvent;
use vmm_agent::memory::GuestMemory;

/// Addresses of the demo guest's code: its linker script starts at 2 MiB.
const TEXT: std::ops::Range<u64> = 0x20_0000..0x21_0000;

fn assert_filled(memory: &GuestMemory, gpa: u64) {
    let mut page = [0; 4096];
    memory.read_at(gpa, &mut page).expect("RAM");
    let first = page_word(DEMO_SEED, gpa);
    let expected: Vec<u8> = (0..512).flat_map(|index| word(first, index).to_le_bytes()).collect();
    assert!(page == *expected, "the page at {gpa:#x} does not hold the pattern");
}

#[test]
fn a_guest_boots_and_its_heart_beats() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=heartbeat touch_mib=4", 64, 2);
    guest.wait_for("heartbeat 2");
    let text = guest.console.text();
    assert!(
        text.starts_with("coreferry demo guest 0.1.0: 2 CPUs, 64 MiB, mode heartbeat\n"),
        "{text}"
    );
    assert!(text.contains("panic record registered by port"), "{text}");
    assert_eq!(guest.incarnation.panic_record(), None);
    let memory = guest.incarnation.memory();
    guest.incarnation.stop();
    assert_filled(&memory, DEMO_FILL_GPA);
    assert_filled(&memory, DEMO_FILL_GPA + (4 << 20) - 4096);
}

#[test]
fn a_panic_leaves_its_record_and_registers_of_all_vcpus() {
    if !kvm() {
        return;
    }
    for devices in ["ports", "pci"] {
        let guest = Guest::boot(&format!("touch_mib=8 devices={devices}"), 64, 2);
        let VmEvent::Trigger(Trigger::PanicRecord { message, crashed_cpu }) = guest.event() else {
            panic!("no panic record by {devices}; console:\n{}", guest.console.text());
        };
        assert!(
            message.contains("the ferry's cargo is lost after 64 pages"),
            "{message}"
        );
        assert!(message.contains("(src/work.rs:"), "file and line: {message}");
        assert_eq!(crashed_cpu, Some(1));

        let frozen = guest.incarnation.freeze();
        let states: Vec<&str> = frozen.stops.iter().map(|stop| stop.state.as_str()).collect();
        assert_eq!(states, ["running", "reported"]);
        assert_eq!(frozen.reporting_vcpu(), Some(1));
        for cpu in &frozen.cpus {
            assert!(TEXT.contains(&cpu.rip), "{devices}: rip {:#x}", cpu.rip);
            assert_eq!((cpu.cr3, cpu.idt.limit), (0x9000, 64 * 16 - 1));
            assert!(cpu.rsp > TEXT.start && cpu.rsp < 0x40_0000, "rsp {:#x}", cpu.rsp);
        }
        assert_eq!(frozen.cpus[1].cs.selector, 0x23, "the panic was in ring 3");
        let again = guest.incarnation.freeze();
        assert_eq!(frozen.cpus, again.cpus, "freezing twice reads the same");

        let record = guest.incarnation.panic_record().unwrap();
        assert_eq!(
            (record.os_name.as_str(), record.release.as_str()),
            ("coreferry-demo", "0.1.0")
        );
        assert_eq!((record.message.as_str(), record.sequence), (message.as_str(), 1));
        assert_eq!(record.build_id().len(), 20);
        let registers = record.registers.unwrap();
        assert!(TEXT.contains(&registers.rip), "{registers:x?}");
        let log = record.kernel_log.unwrap();
        let mut text = vec![0; usize::try_from(log.len_bytes).unwrap()];
        guest.incarnation.memory().read_at(log.gpa, &mut text).unwrap();
        assert!(
            text.starts_with(b"coreferry demo guest"),
            "{}",
            String::from_utf8_lossy(&text)
        );
        let info = record.vmcoreinfo.unwrap();
        let mut text = vec![0; usize::try_from(info.len_bytes).unwrap()];
        guest.incarnation.memory().read_at(info.gpa, &mut text).unwrap();
        assert!(text.starts_with(b"OSRELEASE="));
        assert!(
            String::from_utf8(guest.incarnation.console_tail())
                .unwrap()
                .contains("demo guest panic on CPU 1")
        );
    }
}

#[test]
fn a_guest_with_one_vcpu_panics_as_well() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("touch_mib=1", 32, 1);
    assert!(matches!(
        guest.event(),
        VmEvent::Trigger(Trigger::PanicRecord {
            crashed_cpu: Some(0),
            ..
        })
    ));
    assert_eq!(guest.incarnation.freeze().cpus.len(), 1);
}

#[test]
fn a_page_fault_in_the_guest_becomes_its_panic() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=page-fault touch_mib=1", 32, 2);
    let VmEvent::Trigger(Trigger::PanicRecord { message, .. }) = guest.event() else {
        panic!("console:\n{}", guest.console.text());
    };
    assert!(message.contains("page fault at address 0x700000001000"), "{message}");
    let record = guest.incarnation.panic_record().unwrap();
    assert_eq!(record.registers.unwrap().cr2, 0x7000_0000_1000);
}

#[test]
fn pvpanic_without_a_record_is_a_trigger_of_its_own() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=pvpanic-only touch_mib=1", 32, 2);
    assert_eq!(guest.event(), VmEvent::Trigger(Trigger::Pvpanic));
}

#[test]
fn a_triple_fault_is_reported_and_freezes() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=triple-fault touch_mib=1", 32, 2);
    assert_eq!(guest.event(), VmEvent::Trigger(Trigger::TripleFault));
    let frozen = guest.incarnation.freeze();
    assert_eq!(frozen.reporting_vcpu(), Some(1));
    eprintln!(
        "after a triple fault: rip {:#x} cr3 {:#x}",
        frozen.cpus[1].rip, frozen.cpus[1].cr3
    );
    assert!(TEXT.contains(&frozen.cpus[0].rip), "the other CPU was running");
}

#[test]
fn a_kvm_internal_error_is_reported_with_its_suberror() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=internal-error touch_mib=1", 32, 2);
    assert_eq!(guest.event(), VmEvent::Trigger(Trigger::InternalError { suberror: 1 }));
    let frozen = guest.incarnation.freeze();
    assert_eq!((frozen.reporting_vcpu(), frozen.cpus[1].rip), (Some(1), 0xfe00_0000));
}

#[test]
fn eight_vcpus_boot_and_freeze() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("touch_mib=8", 64, 8);
    assert!(matches!(
        guest.event(),
        VmEvent::Trigger(Trigger::PanicRecord {
            crashed_cpu: Some(7),
            ..
        })
    ));
    let frozen = guest.incarnation.freeze();
    assert_eq!((frozen.cpus.len(), frozen.reporting_vcpu()), (8, Some(7)));
    assert!(frozen.cpus.iter().all(|cpu| TEXT.contains(&cpu.rip)));
}

#[test]
fn a_console_that_nobody_reads_does_not_keep_the_guest_from_freezing() {
    if !kvm() {
        return;
    }
    struct Stuck(std::sync::mpsc::Receiver<()>);
    impl std::io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_release, gate) = std::sync::mpsc::channel();
    let console = Console::default();
    let mut config = config("touch_mib=1", 32, 2, &console);
    config.console = Box::new(Stuck(gate));
    let guest = Guest::boot_with(config, console);
    assert!(matches!(guest.event(), VmEvent::Trigger(Trigger::PanicRecord { .. })));
    assert_eq!(guest.incarnation.freeze().troubles, Vec::<String>::new());
    assert!(guest.incarnation.console_tail().starts_with(b"coreferry demo guest"));
}

#[test]
fn crash_loaded_lets_the_guest_run_on() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=crashloaded touch_mib=1 delay_ticks=2", 32, 2);
    assert_eq!(guest.event(), VmEvent::Trigger(Trigger::CrashLoaded));
    let before = guest.heartbeats();
    guest.wait_for(&format!("heartbeat {}", before + 2));
}

#[test]
fn power_off_and_resets_end_the_guest_without_a_trigger() {
    if !kvm() {
        return;
    }
    for (mode, expected) in [
        ("poweroff", VmEvent::PoweredOff),
        ("reset", VmEvent::Reset),
        ("reset-keyboard", VmEvent::Reset),
    ] {
        let guest = Guest::boot(&format!("mode={mode} touch_mib=1 delay_ticks=2"), 32, 2);
        assert_eq!(guest.event(), expected, "{mode}");
        sleep(Duration::from_millis(50));
        assert!(guest.events.try_recv().is_err(), "{mode}: nothing else happens");
        guest.incarnation.stop();
    }
}

#[test]
fn a_panic_line_on_the_console_is_a_trigger_only_when_asked_for() {
    if !kvm() {
        return;
    }
    let console = Console::default();
    let mut watched = config("mode=panic-console touch_mib=1 delay_ticks=2", 32, 2, &console);
    watched.panic_console = true;
    let guest = Guest::boot_with(watched, console);
    let line = "Kernel panic - not syncing: demo guest: sysrq triggered crash".to_owned();
    assert_eq!(guest.event(), VmEvent::Trigger(Trigger::PanicConsole { line }));
    let frozen = guest.incarnation.freeze();
    assert_eq!(frozen.reporting_vcpu(), Some(1));

    let guest = Guest::boot("mode=panic-console touch_mib=1 delay_ticks=2", 32, 2);
    guest.wait_for("Kernel panic");
    sleep(Duration::from_millis(50));
    assert!(guest.events.try_recv().is_err());
}

#[test]
fn a_large_guest_takes_only_the_memory_it_touches() {
    if !kvm() {
        return;
    }
    let guest = Guest::boot("mode=heartbeat touch_mib=8", 6 << 10, 2);
    guest.wait_for("heartbeat 1");
    assert!(guest.console.text().contains("6144 MiB"), "{}", guest.console.text());
    let _ = guest.incarnation.freeze();
    let memory = guest.incarnation.memory();
    assert_eq!(memory.ranges().len(), 2);
    let allocated = memory.allocated_bytes().unwrap();
    assert!((8 << 20..16 << 20).contains(&allocated), "{allocated} bytes");
    let mut extents = 0;
    for range in memory.ranges() {
        extents += memory
            .data_extents(*range)
            .unwrap()
            .iter()
            .map(|extent| extent.len_bytes)
            .sum::<u64>();
    }
    assert_eq!(extents, allocated, "the extents are what is allocated");
    assert_filled(&memory, DEMO_FILL_GPA);
}

#[test]
fn memory_above_four_gib_is_filled_too() {
    if !kvm() {
        return;
    }
    let mem_mib = 3 * 1024 + 64;
    let guest = Guest::boot("mode=heartbeat touch_from_mib=3064 touch_mib=40", mem_mib, 2);
    guest.wait_for("heartbeat 0");
    let memory = guest.incarnation.memory();
    guest.incarnation.stop();
    assert_filled(&memory, 3064 << 20);
    assert_filled(&memory, (3 << 30) - 4096);
    assert_filled(&memory, 4 << 30);
    assert_filled(&memory, (4 << 30) + (32 << 20) - 4096);
    let mut page = [0; 4096];
    memory.read_at((4 << 30) + (32 << 20), &mut page).unwrap();
    assert_eq!(page, [0; 4096]);
}

#[test]
fn impossible_machines_are_refused_with_a_reason() {
    if !kvm() {
        return;
    }
    let console = Console::default();
    let (sender, _) = std::sync::mpsc::channel();
    for (mem_mib, vcpus, words) in [
        (0, 1, "from 1 to"),
        (32, 0, "0 vCPUs"),
        (32, 9, "9 vCPUs"),
        (1, 1, "1 MiB"),
    ] {
        let config = config("", mem_mib, vcpus, &console);
        let error = vmm_agent::incarnation::Incarnation::boot(config, sender.clone()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
