//! What hangs or panics must cost neither the dump nor the policy after it.
use std::sync::MutexGuard;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use guest_shim::DEMO_GUEST_ELF;

use super::*;
use crate::devices::PioDevice;
use crate::devices::bus::{Shared, lock};
use crate::devices::pci::intx::Recorder;
use crate::devices::serial::SERIAL_PORT;
use crate::devices::worker::{After, Job, Waker};

/// Generous: an emulating KVM on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the demo guest's code lies.
const TEXT: std::ops::Range<u64> = 0x20_0000..0x21_0000;

/// A demo guest of two vCPUs that prints for ever; `None` where there is no KVM.
fn heartbeats() -> Option<(Incarnation, Receiver<VmEvent>)> {
    if let Err(error) = System::open() {
        let in_ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!in_ci, "CI runs every test, but guests need /dev/kvm: {error}");
        let _ = writeln!(io::stderr(), "SKIP: guests need /dev/kvm: {error}");
        return None;
    }
    let (sender, events) = channel();
    let config = IncarnationConfig {
        kernel: KernelImage::Bytes(DEMO_GUEST_ELF),
        initrd: None,
        devices: DevicesConfig::default(),
        append: "mode=heartbeat touch_mib=1".to_owned(),
        mem_mib: 32,
        vcpus: 2,
        console: Box::new(io::sink()),
        panic_console: false,
    };
    Some((Incarnation::boot(config, sender).unwrap(), events))
}

fn printed(guest: &Incarnation) -> usize {
    String::from_utf8_lossy(&guest.console_tail())
        .matches("heartbeat")
        .count()
}

fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "not seen: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Freezes and thaws until a vCPU is caught in the device that the caller holds.
fn catch_one(guest: &Incarnation) -> FrozenState {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frozen = guest.freeze();
        if !frozen.troubles.is_empty() {
            return frozen;
        }
        assert!(Instant::now() < deadline, "no vCPU went to the device");
        guest.thaw();
        thread::sleep(Duration::from_millis(20));
    }
}

fn hold(device: &Shared<dyn PioDevice>) -> MutexGuard<'_, dyn PioDevice + 'static> {
    lock(device)
}

#[test]
fn a_vcpu_that_hangs_in_a_device_is_named_and_the_others_are_read() {
    let Some((guest, events)) = heartbeats() else { return };
    wait_until("a heartbeat", || printed(&guest) > 0);
    let serial = guest.machine.pio.device_at(SERIAL_PORT).unwrap();
    let held = hold(&serial);
    let frozen = catch_one(&guest);
    let failed: Vec<usize> = (0..2).filter(|vcpu| frozen.stops[*vcpu].state == "failed").collect();
    assert_eq!((failed.len(), frozen.cpus.len(), frozen.stops.len()), (1, 2, 2));
    let trouble = format!("vCPU {} did not stop within", failed[0]);
    assert!(frozen.troubles[0].starts_with(&trouble), "{:?}", frozen.troubles);
    for cpu in &frozen.cpus {
        assert!(
            TEXT.contains(&cpu.rip) && cpu.cr3 == 0x9000,
            "rip {:#x}, cr3 {:#x}",
            cpu.rip,
            cpu.cr3
        );
    }
    // The device comes back: so does the vCPU, and stands still with the others.
    drop(held);
    wait_until("the vCPU", || guest.control.lock().moving().next().is_none());
    let again = guest.freeze();
    assert_eq!(again.troubles, Vec::<String>::new());
    let before = printed(&guest);
    guest.thaw();
    wait_until("a heartbeat after the thaw", || printed(&guest) > before);
    assert!(events.try_recv().is_err(), "no trigger");
}

/// A worker inside a round for as long as somebody else has the lock.
struct Hang(Arc<Mutex<()>>, Sender<()>);

impl Job for Hang {
    fn round(&mut self) -> After {
        let _ = self.1.send(());
        drop(self.0.lock());
        After::KICK
    }
}

#[test]
fn a_guest_whose_vcpu_and_disk_hang_is_frozen_and_can_be_ended() {
    let Some((mut guest, _events)) = heartbeats() else {
        return;
    };
    wait_until("a heartbeat", || printed(&guest) > 0);
    let disk = Arc::new(Mutex::new(()));
    let answer = disk.lock().unwrap();
    let (inside, entered) = channel();
    guest
        .workers
        .spawn("disk9", Waker::new().unwrap(), Hang(Arc::clone(&disk), inside))
        .unwrap();
    entered.recv_timeout(PATIENCE).unwrap();
    let serial = guest.machine.pio.device_at(SERIAL_PORT).unwrap();
    let held = hold(&serial);
    wait_until("both troubles", || {
        let troubles = guest.freeze().troubles.join("; ");
        guest.thaw();
        thread::sleep(Duration::from_millis(100));
        troubles.contains("did not stop within 5s; it may wait") && troubles.contains("disk9 did not stop within")
    });
    guest.halt();
    let mut word = [0; 8];
    guest.memory().read_at(TEXT.start, &mut word).unwrap();
    assert_ne!(word, [0; 8], "memory outlives the threads");
    drop((held, answer));
}

#[test]
fn a_vcpu_whose_thread_panics_is_news() {
    let memory = Arc::new(GuestMemory::create(8).unwrap());
    let interrupts: Arc<dyn Interrupts> = Arc::new(Recorder::default());
    let devices = DevicesConfig::default();
    let irq = machine::irq_event().unwrap();
    let sink = Box::new(io::sink());
    let (machine, _workers) = Machine::new(memory, sink, false, irq, &devices, &interrupts, Arc::default()).unwrap();
    let (events, heard) = channel();
    let thread = VcpuThread {
        control: Arc::new(Control::new(1)),
        machine: Arc::new(machine),
        events,
    };
    let control = Arc::clone(&thread.control);
    let panicked = thread::spawn(move || {
        let _leaving = vcpu_thread::Leaving(&thread, 0);
        panic!("a bug on purpose, for the test of what follows");
    })
    .join();
    assert!(panicked.is_err() && control.lock().slots[0].gone);
    let news = heard.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(&news, VmEvent::VcpuFailed { vcpu: 0, what } if what.contains("panicked")),
        "{news:?}"
    );
}
