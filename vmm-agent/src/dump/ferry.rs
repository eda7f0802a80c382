//! Evidence before policy: the receivers in their order, then the spool, until one of them has the core.

use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use vmcore::CoreferryNote;
use vmcore::kernel_header::{ARCHITECTURE_VERSION_AMD64, KernelDumpHeader};

use super::address::{ClientNetwork, Target};
use super::contained::{PANICKED, contained};
use super::core_file::CoreFile;
use super::outcome::{DumpOutcome, SpoolFailure, TargetFailure};
use super::port::DumpPort;
use super::progress::{Phase, Progress};
use super::sender::{self, Patience, SendError, Watch};
use super::source::DumpSource;
use super::spool::{self, SpoolError};
use crate::net::{Wire, WireError, WireSpec};

/// Opens the dump port's wire, at the start of a dump and again if it is lost before a further receiver is tried.
pub type OpenWire<'a> = dyn Fn() -> Result<Box<dyn Wire>, WireError> + Sync + 'a;

/// Everything that one dump needs.
pub struct DumpJob<'a> {
    /// The machine, which must stand still until [`ferry`] returns.
    pub source: &'a dyn DumpSource,
    /// What is known about the crash: goes into the core, and from there into its kernel dump header.
    pub note: &'a CoreferryNote,
    /// Receivers in the order in which they are tried.
    pub targets: &'a [Target],
    /// How the wire to them is opened.
    pub open_wire: &'a OpenWire<'a>,
    /// Who we are on that wire.
    pub network: ClientNetwork,
    /// Where the core goes if no receiver takes it.
    pub spool: Option<PathBuf>,
    /// When the whole attempt ends.
    pub deadline: Option<Instant>,
    /// Where progress is shown, and where the end is asked for.
    pub progress: &'a Progress,
}

impl std::fmt::Debug for DumpJob<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DumpJob")
            .field("vm", &self.note.vm)
            .field("dump_id", &self.note.dump_id)
            .field("targets", &self.targets)
            .field("network", &self.network)
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

impl WireSpec {
    /// What [`DumpJob::open_wire`] wants.
    pub fn opener(&self) -> impl Fn() -> Result<Box<dyn Wire>, WireError> + Sync + '_ {
        || self.open()
    }
}

/// Makes the core and gets it to safety; blocks until that is done, or cannot be. If sending it panics, the spool still gets it.
pub fn ferry(job: &DumpJob<'_>) -> DumpOutcome {
    let lost = || DumpOutcome::Lost {
        failures: Vec::new(),
        spool: SpoolFailure::Panicked,
    };
    let attempt = |job: &DumpJob<'_>| contained(|| ferry_with(job, Patience::default()));
    attempt(job).unwrap_or_else(|| {
        tracing::error!("dump {} of {}: sending it {PANICKED}", job.note.dump_id, job.note.vm);
        if job.spool.is_none() {
            return lost();
        }
        let spool_only = DumpJob {
            targets: &[],
            spool: job.spool.clone(),
            ..*job
        };
        attempt(&spool_only).unwrap_or_else(lost)
    })
}

/// As [`ferry`], with other times for each receiver.
pub fn ferry_with(job: &DumpJob<'_>, patience: Patience) -> DumpOutcome {
    let outcome = match CoreFile::plan(job.source, job.note) {
        Ok(core) => ferry_core(job, &core, patience),
        Err(error) => ended(Vec::new(), error.into()),
    };
    job.progress.enter(Phase::Over);
    outcome
}

fn ferry_core(job: &DumpJob<'_>, core: &CoreFile<'_>, patience: Patience) -> DumpOutcome {
    let watch = Watch {
        progress: job.progress,
        deadline: job.deadline,
        patience,
    };
    let kernel_header = kernel_header(job.note, core.len_bytes());
    let mut failures = Vec::new();
    let mut port = None;
    for target in job.targets {
        match send_to(job, core, &kernel_header, &mut port, target, watch) {
            Ok(stats) => {
                return DumpOutcome::Received {
                    target: target.clone(),
                    stats,
                    failures,
                };
            }
            Err(error) if error.ends_everything() => return ended(failures, error),
            Err(error) => {
                tracing::warn!("dump {} of {}: {error}", job.note.dump_id, job.note.vm);
                if matches!(error, SendError::Wire(_)) {
                    port = None;
                }
                failures.push(TargetFailure {
                    target: target.clone(),
                    error,
                });
            }
        }
    }
    let Some(dir) = &job.spool else {
        return DumpOutcome::Lost {
            failures,
            spool: SpoolFailure::NoDirectory,
        };
    };
    match spool::write(core, dir, &job.note.vm, &job.note.dump_id, watch) {
        Ok(path) => DumpOutcome::Spooled { path, failures },
        Err(SpoolError::Ended(SendError::Cancelled)) => DumpOutcome::Cancelled,
        Err(error) => DumpOutcome::Lost {
            failures,
            spool: SpoolFailure::Failed(error),
        },
    }
}

/// Sends to one receiver, through a port that is opened if there is none.
fn send_to(
    job: &DumpJob<'_>,
    core: &CoreFile<'_>,
    kernel_header: &[u8],
    port: &mut Option<DumpPort>,
    target: &Target,
    watch: Watch<'_>,
) -> Result<netdump::ClientStats, SendError> {
    watch.check()?;
    let port = match port {
        Some(port) => port,
        None => port.insert(DumpPort::open((job.open_wire)()?, job.network.mac)?),
    };
    sender::send(core, kernel_header, port, &job.network, target, watch)
}

fn ended(failures: Vec<TargetFailure>, error: SendError) -> DumpOutcome {
    match error {
        SendError::Cancelled => DumpOutcome::Cancelled,
        error => DumpOutcome::Lost {
            failures,
            spool: SpoolFailure::NotTried(error),
        },
    }
}

/// The kernel dump header of the core (sys/sys/kerneldump.h): who dumped, what it ran, why.
fn kernel_header(note: &CoreferryNote, file_len: u64) -> Vec<u8> {
    let header = KernelDumpHeader {
        architecture: "amd64".to_owned(),
        version: 4,
        architecture_version: ARCHITECTURE_VERSION_AMD64,
        dump_len_bytes: file_len,
        dump_extent_bytes: file_len,
        dump_time_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        block_len_bytes: 4096,
        hostname: note.vm.clone(),
        version_string: note.release.clone().or_else(|| note.os.clone()).unwrap_or_default(),
        panic_string: note.panic.clone().unwrap_or_else(|| note.trigger.clone()),
        ..KernelDumpHeader::default()
    };
    header.encode().to_vec()
}
