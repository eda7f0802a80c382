//! `demo`: the whole road once, in one process and on loopback.
//!
//! An embedded receiver, a guest under KVM that panics, the dump over the emulated em, and then the proof: the stored core is
//! compared with the memory of the guest, which is still frozen. With `--in-guest`, the guest sends its core itself.

mod compare;
mod console;
mod in_guest;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use server::{Receiver, ReceiverConfig};
use vmm_agent::agent::policy::{CrashAction, OnCrash, RestartLimit};
use vmm_agent::boot::KernelImage;
use vmm_agent::devices::guest::DevicesConfig;
use vmm_agent::dump::{ClientNetwork, DumpOutcome, Target};
use vmm_agent::limits::MEM_MIB_MAX;
use vmm_agent::memory::GuestMemory;
use vmm_agent::net::{Instruments, WireSpec};
use vmm_agent::{Agent, AgentConfig, AgentEvent};

use crate::cli_failure::{Exit, Failure, OrExit as _, Outcome};
use crate::commands::run::describe;
use crate::output;

/// The demo guest needs about 40 MiB for itself and the pattern that it fills memory with.
const MEM_MIB_MIN: u64 = 64;
/// How long the receiver may take to keep a core whose last byte it has acknowledged.
const KEEP_PATIENCE: Duration = Duration::from_secs(30);
/// How long the guest may take to panic, and its dump to arrive. A generous bound: it only ends a demo that hangs.
const DUMP_PATIENCE: Duration = Duration::from_secs(600);
/// Name of the demo's machine.
const NAME: &str = "demo";

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: coreferry demo --dir /tmp/cores")]
pub(crate) struct Args {
    /// Where the core goes; a folder of this user's own where not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Memory of the guest in MiB.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(MEM_MIB_MIN..=MEM_MIB_MAX))]
    mem_mib: u64,
    /// The guest dumps itself, by netdump through an em of its own, as a FreeBSD guest would; the host only looks on.
    #[arg(long)]
    in_guest: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What the demo showed.
#[derive(Debug, Serialize)]
struct Report {
    schema_version: u32,
    core_id: String,
    /// The agent's name for the dump; one that the guest makes itself has none.
    dump_id: Option<String>,
    state: api::CoreState,
    /// The stored vmcore.
    path: PathBuf,
    /// The guest's kernel, for a debugger.
    kernel: PathBuf,
    /// The receiver's directory, for `coreferry cores --dir`.
    dir: PathBuf,
    panic: Option<String>,
    mem_bytes: u64,
    /// Bytes of the core that had to be sent.
    sent_bytes: u64,
    /// Whether the stored core is, byte for byte, the memory of the frozen guest; of one that dumped itself, all but its
    /// dump area.
    identical: bool,
    /// Where a guest that dumps itself writes while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    dump_area: Option<DumpArea>,
}

/// The memory that the guest's own dump writes to: its driver's rings and buffers, its send window and its stack.
#[derive(Debug, Clone, Copy, Serialize)]
struct DumpArea {
    gpa: u64,
    len_bytes: u64,
    /// Bytes of it that are no longer what they were when they were sent.
    changed_bytes: u64,
}

/// Prints each step with the time since the start.
#[derive(Debug, Clone, Copy)]
struct Steps(Instant);

impl Steps {
    fn say(self, what: &str) {
        output::note(&format!("[{:7.3} s] {what}", self.0.elapsed().as_secs_f64()));
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Outcome {
    let steps = Steps(Instant::now());
    let dir = args.dir.clone().map_or_else(default_dir, Ok)?;
    std::fs::create_dir_all(&dir)
        .with_context(|| format!("cannot make the directory {}; name another with --dir", dir.display()))?;
    let kernel = dir.join("demo-guest.elf");
    std::fs::write(&kernel, guest_shim::DEMO_GUEST_ELF)
        .with_context(|| format!("cannot write {}; name another directory with --dir", kernel.display()))?;
    let receiver = Receiver::start(ReceiverConfig {
        listen: vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)],
        // It looks for a kernel log in all of memory, where the notes do not say where it is: for nothing here.
        explainer: std::env::current_exe().ok().filter(|_| !args.in_guest),
        ..ReceiverConfig::new(&dir)
    })
    .or_exit(Exit::Failed)?;
    steps.say(&format!(
        "a receiver listens on {} and keeps cores in {}",
        receiver.netdump_addr(),
        dir.display()
    ));

    let (events, heard) = mpsc::channel();
    let mut config = machine(args, receiver.netdump_addr(), events);
    if args.in_guest {
        in_guest::prepare(&mut config, receiver.netdump_addr());
    }
    let known = in_guest::Known::of(&receiver);
    let agent = Agent::start(config).or_exit(Exit::Failed)?;
    let memory = || agent.handle().memory();
    let shown = if args.in_guest {
        in_guest::watch(steps, &heard).and_then(|()| in_guest::prove(args, &known, &receiver, &memory(), dir, kernel))
    } else {
        watch(steps, &heard).and_then(|dumped| prove(args, &dumped, &receiver, &memory(), dir, kernel))
    };
    if let Ok(report) = &shown {
        steps.say(&verdict(report));
    }
    agent.handle().stop();
    let _ = agent.wait();
    receiver.stop();
    conclude(args, &shown?)
}

/// What the comparison showed, as a sentence.
fn verdict(report: &Report) -> String {
    let Report {
        identical, mem_bytes, ..
    } = report;
    let relation = if *identical { "byte-identical to" } else { "NOT" };
    let compared = output::bytes(*mem_bytes);
    // A comparison that failed ended there and counted no further.
    let area = report
        .dump_area
        .filter(|_| *identical)
        .map_or_else(String::new, |area| {
            format!(
                "; of the {} that the dump itself works in, {} bytes have changed since",
                output::bytes(area.len_bytes),
                area.changed_bytes
            )
        });
    format!("the stored core is {relation} the memory of the frozen guest, {compared} compared{area}")
}

/// The demo's machine: kept frozen after its dump, so that it can be compared.
fn machine(args: &Args, receiver: SocketAddrV4, events: mpsc::Sender<AgentEvent>) -> AgentConfig {
    AgentConfig {
        name: NAME.to_owned(),
        kernel: KernelImage::Bytes(guest_shim::DEMO_GUEST_ELF),
        keep_kernel: false,
        initrd: None,
        devices: DevicesConfig::default(),
        append: String::new(),
        mem_mib: args.mem_mib,
        vcpus: 2,
        panic_console: false,
        open_console: Box::new(|| Box::new(console::Indented::default())),
        targets: vec![Target::from(receiver)],
        wire: WireSpec::User,
        instruments: Instruments::default(),
        network: ClientNetwork::for_user_wire(NAME),
        spool: None,
        filter: vmcore::linux::filter::FilterLevel::default(),
        dump_deadline: None,
        on_crash: OnCrash {
            dump: true,
            action: CrashAction::Preserve,
        },
        restart_limit: RestartLimit::DEFAULT,
        observer: Box::new(move |event| {
            // When the demo has given up, nobody listens any more.
            let _ = events.send(event.clone());
        }),
    }
}

/// The end of the guest's dump.
struct Dumped {
    id: String,
    sent_bytes: u64,
}

/// What the agent tells next; `otherwise` is what has gone wrong when it says nothing until then.
fn next_event(heard: &mpsc::Receiver<AgentEvent>, until: Instant, otherwise: &str) -> Result<AgentEvent, Failure> {
    let event = heard.recv_timeout(until.saturating_duration_since(Instant::now()));
    event.map_err(|_| Failure::new(Exit::Failed, otherwise))
}

/// Prints what happens until the dump has ended.
fn watch(steps: Steps, heard: &mpsc::Receiver<AgentEvent>) -> Result<Dumped, Failure> {
    let until = Instant::now() + DUMP_PATIENCE;
    let otherwise = format!("no core came within {DUMP_PATIENCE:?}: the guest did not panic, or its dump hangs");
    loop {
        let event = next_event(heard, until, &otherwise)?;
        steps.say(&describe(&event));
        if let AgentEvent::DumpEnded { id, outcome } = event {
            return match &*outcome {
                DumpOutcome::Received { stats, .. } => Ok(Dumped {
                    id,
                    sent_bytes: stats.acked_bytes,
                }),
                other => Err(Failure::new(Exit::Failed, other.to_string())),
            };
        }
    }
}

/// Finds the core and compares it with the frozen guest.
fn prove(
    args: &Args,
    dumped: &Dumped,
    receiver: &Receiver,
    memory: &GuestMemory,
    dir: PathBuf,
    kernel: PathBuf,
) -> Result<Report, Failure> {
    let core = receiver.wait_for_dump(&dumped.id, KEEP_PATIENCE).with_context(|| {
        format!(
            "the receiver acknowledged dump {} but does not list its core",
            dumped.id
        )
    })?;
    let stored = receiver
        .cores()
        .vmcore(&core.id)
        .context("the core that was listed is gone")?;
    let compared = compare::same_memory(&stored.path, memory, None)?;
    Ok(Report {
        schema_version: api::SCHEMA_VERSION,
        core_id: core.id,
        dump_id: Some(dumped.id.clone()),
        state: core.state,
        path: stored.path,
        kernel,
        dir,
        panic: core.panic,
        mem_bytes: args.mem_mib << 20,
        sent_bytes: dumped.sent_bytes,
        identical: compared.identical,
        dump_area: None,
    })
}

fn conclude(args: &Args, report: &Report) -> Outcome {
    if args.json {
        output::json(report)?;
    } else {
        let panic = report.panic.as_deref().unwrap_or("(no panic message)");
        output::line(&format!("core {}  {}  {panic}", report.core_id, report.state))?;
        output::line(&format!(
            "\nTry:\n  coreferry cores list --dir {}",
            report.dir.display()
        ))?;
        // A core that the guest made itself holds its memory, and no registers.
        if report.dump_area.is_none() {
            output::line(&format!("  gdb {} {}", report.kernel.display(), report.path.display()))?;
        }
    }
    match (report.identical, report.state) {
        (true, api::CoreState::Complete) => Ok(Exit::Ok),
        (false, _) => Err(Failure::new(
            Exit::Failed,
            "the stored core differs from the guest's memory",
        )),
        (true, state) => Err(Failure::new(Exit::Failed, format!("the core is {state}, not complete"))),
    }
}

/// The XDG folder for state that outlives a program (XDG Base Directory Specification).
fn default_dir() -> Result<PathBuf, Failure> {
    let given = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    given("XDG_STATE_HOME")
        .or_else(|| Some(given("HOME")?.join(Path::new(".local/state"))))
        .map(|state| state.join("coreferry/demo"))
        .ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "no home directory to keep the core in; name one with --dir",
            )
        })
}
