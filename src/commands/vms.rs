//! `vms`: the machines on this host, through the API socket that each of them serves.

use std::path::PathBuf;
use std::time::Duration;

use api::client::{Client, ClientError};
use api::types::dump::{Dump, DumpRequest, DumpState};
use api::types::vm::{VmInfo, VmSummary};
use vmcore::linux::filter::FilterLevel;

use crate::cli_failure::{Exit, Failure, OrExit as _, Outcome};
use crate::{output, vm_sockets};

/// How often a dump that is waited for is asked about.
const DUMP_POLL: Duration = Duration::from_millis(200);

/// Arguments of `vms`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: coreferry vms list")]
pub(crate) struct Args {
    /// API socket of one machine, where it is not among the sockets of this host.
    #[arg(long, global = true, value_name = "SOCKET")]
    api: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the machines on this host.
    #[command(after_help = "Example: coreferry vms list --json")]
    List(Shown),
    /// Show everything known about one machine.
    #[command(after_help = "Example: coreferry vms info web-17")]
    Info(NamedShown),
    /// Dump a machine's memory to its receiver; a running guest goes on afterwards.
    #[command(after_help = "Example: coreferry vms dump web-17 --reason 'looks stuck'")]
    Dump(DumpArgs),
    /// Inject a non-maskable interrupt.
    #[command(after_help = "Example: coreferry vms nmi web-17")]
    Nmi(Named),
    /// Stop the processors for a while.
    #[command(after_help = "Example: coreferry vms pause web-17")]
    Pause(Named),
    /// Let the processors go on.
    #[command(after_help = "Example: coreferry vms resume web-17")]
    Resume(Named),
    /// End the machine.
    #[command(after_help = "Example: coreferry vms stop web-17")]
    Stop(Named),
}

#[derive(Debug, clap::Args)]
struct Shown {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Name of the machine.
    #[arg(value_parser = vm_sockets::check_name)]
    name: String,
}

#[derive(Debug, clap::Args)]
struct NamedShown {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Debug, clap::Args)]
struct DumpArgs {
    #[command(flatten)]
    named: Named,
    /// Why; kept with the core.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// What is left out of a Linux guest's core, 0 to 31 as for `run --filter`; the machine's own level where it is not given.
    #[arg(long, value_name = "LEVEL")]
    filter: Option<FilterLevel>,
    /// Return when the dump has begun, without waiting for its end.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    shown: Shown,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Outcome {
    let api = args.api;
    match args.command {
        Command::List(shown) => list(api, &shown),
        Command::Info(args) => info(&reach(api, &args.named.name)?, &args),
        Command::Dump(args) => dump(&reach(api, &args.named.name)?, &args),
        Command::Nmi(vm) => act(api, &vm.name, "nmi"),
        Command::Pause(vm) => act(api, &vm.name, "pause"),
        Command::Resume(vm) => act(api, &vm.name, "resume"),
        Command::Stop(vm) => act(api, &vm.name, "stop"),
    }
}

fn list(api: Option<PathBuf>, shown: &Shown) -> Outcome {
    let mut vms: Vec<VmSummary> = Vec::new();
    match api {
        Some(socket) => vms.extend(
            Client::unix(socket)
                .get::<Vec<VmSummary>>("/api/v1/vms")
                .map_err(|error| explain(&error))?,
        ),
        // A socket that does not answer is one that a killed process left behind: no machine.
        None => vms.extend(
            sockets()
                .into_iter()
                .filter_map(|socket| Client::unix(socket).get::<Vec<VmSummary>>("/api/v1/vms").ok())
                .flatten(),
        ),
    }
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    if shown.json {
        output::json(&vms)?;
        return Ok(Exit::Ok);
    }
    let row = |vm: &VmSummary| {
        vec![
            vm.name.clone(),
            vm.state.to_string(),
            vm.pid.to_string(),
            vm.vcpus.to_string(),
            output::bytes(vm.mem_mib << 20),
            vm.incarnation.to_string(),
            vm.started_at.clone(),
        ]
    };
    let header = ["NAME", "STATE", "PID", "VCPUS", "MEMORY", "INCARNATION", "SINCE"];
    output::line(&output::table(&header, vms.iter().map(row).collect()))?;
    Ok(Exit::Ok)
}

fn info(client: &Client, args: &NamedShown) -> Outcome {
    let vm: VmInfo = client
        .get(&path_of(&args.named.name))
        .map_err(|error| explain(&error))?;
    if args.shown.json {
        output::json(&vm)?;
        return Ok(Exit::Ok);
    }
    let summary = &vm.summary;
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    for (what, value) in [
        ("name", summary.name.clone()),
        ("state", summary.state.to_string()),
        ("process", summary.pid.to_string()),
        ("vcpus", summary.vcpus.to_string()),
        ("memory", output::bytes(summary.mem_mib << 20)),
        (
            "incarnation",
            format!("{} since {}", summary.incarnation, summary.started_at),
        ),
        ("kernel", vm.kernel.clone()),
        ("on crash", vm.on_crash.clone()),
        ("receivers", vm.netdump.join(", ")),
        ("spool", or_none(&vm.spool)),
        ("crashes", vm.crashes.to_string()),
        ("last dump", or_none(&vm.last_dump_id)),
    ] {
        output::line(&format!("{what:<12} {value}"))?;
    }
    Ok(Exit::Ok)
}

fn dump(client: &Client, args: &DumpArgs) -> Outcome {
    let request = DumpRequest {
        reason: args.reason.clone(),
        filter: args.filter.map(FilterLevel::number),
    };
    let key = uuid::Uuid::now_v7().to_string();
    let body = serde_json::to_vec(&request).or_exit(Exit::Failed)?;
    let path = format!("{}/dumps", path_of(&args.named.name));
    let answer = client
        .post(&path, &[("idempotency-key", &key)], body)
        .map_err(|error| explain(&error))?;
    let mut dump: Dump = client.decode(&answer.body).map_err(|error| explain(&error))?;
    if !args.no_wait {
        dump = wait_for(client, dump)?;
    }
    if args.shown.json {
        output::json(&dump)?;
    } else {
        output::line(&describe(&dump))?;
    }
    match dump.state {
        DumpState::Failed => Err(Failure::new(
            Exit::Failed,
            dump.error.unwrap_or_else(|| "the dump failed".to_owned()),
        )),
        DumpState::Cancelled => Err(Failure::new(Exit::Failed, format!("dump {} was cancelled", dump.id))),
        DumpState::Queued | DumpState::Running | DumpState::Done => Ok(Exit::Ok),
    }
}

/// Follows a dump to its end, with a bar on a terminal.
fn wait_for(client: &Client, mut dump: Dump) -> Result<Dump, Failure> {
    let bar = output::progress(dump.bytes_total);
    let path = format!("/api/v1/dumps/{}", dump.id);
    while !dump.state.is_final() {
        std::thread::sleep(DUMP_POLL);
        dump = client.get(&path).map_err(|error| explain(&error))?;
        bar.set_length(dump.bytes_total);
        bar.set_position(dump.bytes_acked);
    }
    bar.finish_and_clear();
    Ok(dump)
}

fn describe(dump: &Dump) -> String {
    let sent = output::bytes(dump.bytes_acked);
    match (dump.state, &dump.core_id, &dump.spool_path) {
        (DumpState::Done, Some(core), _) => format!("dump {}: core {core}, {sent} sent", dump.id),
        (DumpState::Done, None, Some(path)) => format!("dump {}: kept in {path}; `coreferry send` ships it", dump.id),
        (DumpState::Done, None, None) => format!("dump {}: received, {sent} sent", dump.id),
        (DumpState::Queued | DumpState::Running, ..) => format!("dump {}: {:?}", dump.id, dump.phase).to_lowercase(),
        (DumpState::Failed | DumpState::Cancelled, ..) => format!("dump {}: {:?}", dump.id, dump.state).to_lowercase(),
    }
}

fn act(api: Option<PathBuf>, name: &str, verb: &str) -> Outcome {
    let client = reach(api, name)?;
    client
        .post(&format!("{}/{verb}", path_of(name)), &[], Vec::new())
        .map_err(|error| explain(&error))?;
    Ok(Exit::Ok)
}

/// A client of the machine `name`.
fn reach(api: Option<PathBuf>, name: &str) -> Result<Client, Failure> {
    if let Some(socket) = api {
        return Ok(Client::unix(socket));
    }
    let folders = vm_sockets::all_folders();
    let socket = folders
        .iter()
        .map(|folder| vm_sockets::socket_in(folder, name))
        .find(|socket| socket.exists());
    socket.map(Client::unix).ok_or_else(|| {
        let looked: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        let sentence = format!(
            "no machine `{name}` on this host (looked in {}); `coreferry vms list` shows those that run",
            looked.join(" and ")
        );
        Failure::new(Exit::NothingMatched, sentence)
    })
}

/// All sockets of machines on this host.
fn sockets() -> Vec<PathBuf> {
    let entries = vm_sockets::all_folders()
        .into_iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "sock"))
        .collect()
}

fn path_of(name: &str) -> String {
    format!("/api/v1/vms/{name}")
}

/// An API error with its exit code.
fn explain(error: &ClientError) -> Failure {
    Failure::new(error.into(), error.to_string())
}
