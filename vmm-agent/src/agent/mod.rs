//! The agent: hears what happens to one machine, gets a crashed guest's memory to safety, then applies the policy.
//!
//! One thread (the `supervisor`) owns the incarnation and takes every decision; dumps run on another. The
//! API and signals reach the supervisor through [`AgentHandle`].
//!
//! ```text
//!            trigger ┌────────┐ frozen ┌─────────┐ outcome ┌────────┐ preserve ┌───────────┐ stop
//!  running ─────────►│ freeze │───────►│ dumping │────────►│ policy │─────────►│ preserved │─────► ended
//!   ▲  ▲             └────────┘        └─────────┘         └────────┘          └───────────┘
//!   │  └── dump asked for by the API: the guest goes on ────┘ │  │ destroy
//!   └───────────────────── restart: a new incarnation ────────┘  └─────────────────────────────────► ended
//! ```
//!
//! - [`policy`]: what happens to the guest after a crash
//! - `supervisor`: the thread that decides
//! - `dump_thread`: makes the dumps, and sees to it that the end of each is heard of
//! - `dumps`: the dumps that the API shows
//! - `frozen`: a frozen guest as a dump sees it
//! - `vmcoreinfo`: what a Linux guest says about itself, told or searched for
//! - `service`: the API's view of the machine

mod dump_thread;
mod dumps;
mod frozen;
pub mod policy;
mod service;
mod supervisor;
mod vmcoreinfo;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use api::types::vm::VmState;
use vmcore::linux::filter::FilterLevel;

use crate::boot::KernelImage;
use crate::detect::Trigger;
use crate::devices::guest::DevicesConfig;
use crate::dump::{ClientNetwork, DumpOutcome, Target};
use crate::incarnation::BootError;
use crate::memory::GuestMemory;
use crate::net::{Instruments, WireSpec};
use dumps::Dumps;
use policy::{OnCrash, RestartLimit, Verdict};
use supervisor::{Input, Supervisor};

/// Makes the console of an incarnation; asked once for each.
pub type OpenConsole = dyn Fn() -> Box<dyn Write + Send> + Send + Sync;

/// Hears what the agent does, on the agent's own thread: it must not block.
pub type Observer = dyn Fn(&AgentEvent) + Send + Sync;

/// Everything that one machine and its dumps are made of.
pub struct AgentConfig {
    /// Name of the machine.
    pub name: String,
    /// Its kernel.
    pub kernel: KernelImage,
    /// Its initial RAM disk.
    pub initrd: Option<KernelImage>,
    /// The kernel's command line.
    pub append: String,
    /// Memory in MiB.
    pub mem_mib: u64,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// Its network devices and disks.
    pub devices: DevicesConfig,
    /// Whether a panic line on the serial console is a trigger.
    pub panic_console: bool,
    /// Where serial output goes.
    pub open_console: Box<OpenConsole>,
    /// Receivers in the order in which they are tried.
    pub targets: Vec<Target>,
    /// The dump port's wire.
    pub wire: WireSpec,
    /// What is put around that wire.
    pub instruments: Instruments,
    /// Who the dump port is on that wire.
    pub network: ClientNetwork,
    /// Where a core goes that no receiver takes.
    pub spool: Option<PathBuf>,
    /// Whether the kernel's file travels with the core.
    pub keep_kernel: bool,
    /// What is left out of the cores of Linux guests.
    pub filter: FilterLevel,
    /// How long an attempt to dump may take in all.
    pub dump_deadline: Option<Duration>,
    /// What happens to a guest that crashed.
    pub on_crash: OnCrash,
    /// How many restarts in how long.
    pub restart_limit: RestartLimit,
    /// Hears what happens.
    pub observer: Box<Observer>,
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig")
            .field("name", &self.name)
            .field("on_crash", &self.on_crash)
            .finish_non_exhaustive()
    }
}

/// What the agent tells its [`Observer`].
#[derive(Debug, Clone)]
pub enum AgentEvent {
    /// A guest runs.
    Booted {
        /// Which life of it, counted from 1.
        incarnation: u64,
    },
    /// A sign of a crash that leads to no dump: the guest dumps itself, or a dump is decided already.
    Recorded(Trigger),
    /// A dump is due.
    Triggered(Trigger),
    /// Every vCPU stands still.
    Frozen {
        /// From the order to the last vCPU.
        took: Duration,
        /// How many.
        vcpus: usize,
    },
    /// A dump begins.
    DumpStarted {
        /// Its id.
        id: String,
    },
    /// A dump ended.
    DumpEnded {
        /// Its id.
        id: String,
        /// How.
        outcome: Arc<DumpOutcome>,
    },
    /// What happens to the crashed guest.
    Policy(Verdict),
    /// The guest reset itself in the ordinary way and boots again.
    Reset,
    /// Something that an operator should know, as a sentence.
    Trouble(String),
}

/// What became of the memory of a guest that crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreFate {
    /// A receiver or the spool has it.
    Safe,
    /// Nobody has it.
    Lost,
}

/// How the machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// The guest powered off.
    PoweredOff,
    /// The guest crashed and was not restarted.
    Crashed(CoreFate),
    /// Somebody stopped a guest that had not crashed.
    Stopped,
    /// A new incarnation could not be booted after a restart or reset.
    BootFailed,
}

/// A machine with its agent.
#[derive(Debug)]
pub struct Agent {
    handle: AgentHandle,
    thread: JoinHandle<RunEnd>,
}

/// A way to reach the agent from any thread.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    inputs: Sender<Input>,
    shared: Arc<Shared>,
}

/// What the supervisor shows to others.
#[derive(Debug)]
struct Shared {
    config: AgentConfig,
    view: Mutex<View>,
}

/// The part of it that changes.
#[derive(Debug)]
struct View {
    state: VmState,
    incarnation: u64,
    started_at: String,
    crashes: u64,
    dumps: Dumps,
    memory: Arc<GuestMemory>,
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        // A thread that panicked while it held the lock left whole values behind: every write is one assignment.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Boots the guest and starts watching it.
    ///
    /// # Errors
    /// [`BootError`] of the first boot; later ones end the machine with [`RunEnd::BootFailed`].
    pub fn start(config: AgentConfig) -> Result<Self, BootError> {
        let (inputs, received) = mpsc::channel();
        let (supervisor, shared) = Supervisor::boot(config, inputs.clone(), received)?;
        let thread = std::thread::Builder::new()
            .name("agent".to_owned())
            .spawn(move || supervisor.run())
            .map_err(|source| BootError::Resource { what: "thread", source })?;
        Ok(Self {
            handle: AgentHandle { inputs, shared },
            thread,
        })
    }

    /// A way to reach it.
    #[must_use]
    pub fn handle(&self) -> AgentHandle {
        self.handle.clone()
    }

    /// Waits until the machine has ended.
    #[must_use]
    pub fn wait(self) -> RunEnd {
        self.thread.join().unwrap_or_else(|_| {
            tracing::error!("the agent's thread panicked: this is a bug");
            RunEnd::Crashed(CoreFate::Lost)
        })
    }
}

impl AgentHandle {
    /// Memory of the present incarnation. It stays as it is only while the guest is frozen.
    #[must_use]
    pub fn memory(&self) -> Arc<GuestMemory> {
        Arc::clone(&self.shared.view().memory)
    }

    /// Asks the machine to end: at once, or when a dump that runs has ended. Asked again, the dump is cancelled.
    pub fn stop(&self) {
        // A supervisor that is gone has ended the machine already.
        let _ = self.inputs.send(Input::Stop);
    }
}
