//! `doctor`: is this host able, and does a dump from here arrive?

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use netdump::wire::CLIENT_PORT;
use serde::Serialize;

use crate::cli_failure::{Exit, Failure, OrExit as _, Outcome};
use crate::commands::send;
use crate::host_port::HostPort;
use crate::output;

/// Bytes of a canary: several windows of the protocol, so that it goes the whole way.
const CANARY_BYTES: usize = 256 * 1024;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --to a small marked dump goes to the receiver as any other would; its page and \
    /metrics show when the\nlast one came. Exits with 0 when every step is ok.\n\n\
    Example: coreferry doctor --to collector"
)]
pub(crate) struct Args {
    /// Send a canary to this receiver instead of looking at this host.
    #[arg(long, value_name = "HOST[:PORT]")]
    to: Option<HostPort>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at or done.
#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    detail: String,
    took_ms: u64,
}

/// All steps.
#[derive(Debug, Serialize)]
struct Report {
    schema_version: u32,
    ok: bool,
    steps: Vec<Step>,
}

/// Looks at the host, or sends a canary.
pub(crate) fn run(args: &Args) -> Outcome {
    let (steps, failure) = match &args.to {
        None => (host(), None),
        Some(to) => canary(to, args.json),
    };
    let report = Report {
        schema_version: api::SCHEMA_VERSION,
        ok: steps.iter().all(|step| step.ok),
        steps,
    };
    if args.json {
        output::json(&report)?;
    } else if args.to.is_none() {
        report.steps.iter().try_for_each(show)?;
    }
    match failure {
        Some(failure) => Err(failure),
        None if report.ok => Ok(Exit::Ok),
        None => Ok(Exit::Failed),
    }
}

fn show(step: &Step) -> anyhow::Result<()> {
    let mark = if step.ok { "ok  " } else { "FAIL" };
    output::line(&format!(
        "{mark} {:<10} {} ({} ms)",
        step.name, step.detail, step.took_ms
    ))
}

/// Does one thing and says how it went.
fn step(name: &'static str, act: impl FnOnce() -> Result<String, Failure>) -> (Step, Option<Failure>) {
    let began = Instant::now();
    let done = act();
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (ok, detail, failure) = match done {
        Ok(detail) => (true, detail, None),
        Err(failure) => (false, failure.sentence(), Some(failure)),
    };
    (
        Step {
            name,
            ok,
            detail,
            took_ms,
        },
        failure,
    )
}

/// Whether this host can run guests and dump them.
fn host() -> Vec<Step> {
    let kvm = || {
        let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        opened.context("/dev/kvm cannot be opened; guests do not run here, receiving and sending do")?;
        Ok("/dev/kvm can be opened".to_owned())
    };
    let memory = || {
        let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        Ok(format!(
            "{} available for guests",
            line.unwrap_or("an unknown amount").trim()
        ))
    };
    let port = || {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, CLIENT_PORT)).with_context(|| {
            format!("UDP port {CLIENT_PORT} is taken; stock receivers answer only there, ours does not mind")
        })?;
        Ok(format!(
            "UDP port {CLIENT_PORT}, to which stock receivers answer, is free"
        ))
    };
    vec![step("kvm", kvm).0, step("memory", memory).0, step("port", port).0]
}

/// Sends a canary; the failure that ended it, if one did. Each step is shown as it ends.
fn canary(to: &HostPort, json: bool) -> (Vec<Step>, Option<Failure>) {
    let mut steps = Vec::new();
    let mut add = |(step, failure): (Step, Option<Failure>)| {
        if !json {
            let _ = show(&step);
        }
        steps.push(step);
        failure
    };
    let mut receiver = None;
    let look_up = || {
        let found = to.resolve().or_exit(Exit::Unreachable)?;
        receiver = Some(found);
        Ok(format!("the receiver is {found}"))
    };
    if let Some(failure) = add(step("look up", look_up)) {
        return (steps, Some(failure));
    }
    let Some(receiver) = receiver else { return (steps, None) };
    let deliver = || {
        let canary = Canary::make()?;
        let stats = send::quietly(&canary.path, receiver, &own_name(), "coreferry canary: nothing crashed")?;
        Ok(format!(
            "{} arrived, {} packets, {} sent again; the receiver has it on disk",
            output::bytes(stats.acked_bytes),
            stats.sent_packets,
            stats.retransmitted_packets
        ))
    };
    let failure = add(step("canary", deliver));
    (steps, failure)
}

/// The file of a canary, as long as it is needed.
struct Canary {
    path: PathBuf,
}

impl Canary {
    fn make() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("coreferry-canary-{}", uuid::Uuid::now_v7()));
        let mut content = server::CANARY_MAGIC.to_vec();
        // No two pages alike, none of zeros.
        content.extend((content.len()..CANARY_BYTES).map(|at| (at / 4096 + at % 251).to_le_bytes()[0] | 1));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&content));
        let canary = Self { path };
        written.with_context(|| format!("cannot write {}", canary.path.display()))?;
        Ok(canary)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn own_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
