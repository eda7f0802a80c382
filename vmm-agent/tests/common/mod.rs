//! Starts demo guests and waits for what they do.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test binaries, of which each uses its part"
)]
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use guest_shim::DEMO_GUEST_ELF;
use vmm_agent::boot::KernelImage;
use vmm_agent::incarnation::{Incarnation, IncarnationConfig, VmEvent};

/// Generous: an emulating KVM on a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this host can run guests. In CI it must.
pub fn kvm() -> bool {
    match vmm_agent::kvm::System::open() {
        Ok(_) => true,
        Err(error) => {
            skip(&format!("guests need /dev/kvm: {error}"));
            false
        }
    }
}

/// Says that a test cannot run here and why; the test returns after it. In CI, where everything must run, it fails.
///
/// The line goes past the capture of the test harness, so that `cargo xtask test` and a person both see it.
fn skip(reason: &str) {
    let in_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(!in_ci, "CI runs every test, but this one cannot run: {reason}");
    let _ = writeln!(io::stderr(), "SKIP: {reason}");
}

/// A console that tests can read.
#[derive(Clone, Default)]
pub struct Console(Arc<Mutex<Vec<u8>>>);

impl Console {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub struct Guest {
    pub incarnation: Incarnation,
    pub events: Receiver<VmEvent>,
    pub console: Console,
}

pub fn config(append: &str, mem_mib: u64, vcpus: u8, console: &Console) -> IncarnationConfig {
    IncarnationConfig {
        kernel: KernelImage::Bytes(DEMO_GUEST_ELF),
        initrd: None,
        devices: vmm_agent::devices::guest::DevicesConfig::default(),
        append: append.to_owned(),
        mem_mib,
        vcpus,
        console: Box::new(console.clone()),
        panic_console: false,
    }
}

impl Guest {
    pub fn boot(append: &str, mem_mib: u64, vcpus: u8) -> Guest {
        let console = Console::default();
        Guest::boot_with(config(append, mem_mib, vcpus, &console), console)
    }

    pub fn boot_with(config: IncarnationConfig, console: Console) -> Guest {
        let (sender, events) = channel();
        let incarnation = Incarnation::boot(config, sender).unwrap_or_else(|error| panic!("{error}: {error:?}"));
        Guest {
            incarnation,
            events,
            console,
        }
    }

    /// The next event.
    pub fn event(&self) -> VmEvent {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("no event; console:\n{}", self.console.text()),
            Err(RecvTimeoutError::Disconnected) => panic!("the guest is gone; console:\n{}", self.console.text()),
        }
    }

    /// Waits until the console shows `text`.
    pub fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.console.text().contains(text) {
            assert!(
                Instant::now() < deadline,
                "no {text:?} on the console:\n{}",
                self.console.text()
            );
            if let Ok(event) = self.events.try_recv() {
                panic!(
                    "{event:?} while waiting for {text:?}; console:\n{}",
                    self.console.text()
                );
            }
            sleep(Duration::from_millis(2));
        }
    }

    pub fn heartbeats(&self) -> usize {
        self.console.text().matches("heartbeat ").count()
    }
}
