//! `send`: an existing vmcore to a receiver, over a UDP socket.

mod conversation;
mod core;
mod socket;

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use netdump::ClientStats;

use self::conversation::Conversation;
use self::core::Core;
use self::socket::Way;
use crate::cli_failure::{Exit, Failure, OrExit as _, Outcome};
use crate::host_port::HostPort;
use crate::output;

/// Arguments of `send`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The receiver may be `coreferry serve` or any netdump receiver, such as netdumpd.\n\n\
    Example: coreferry send /proc/vmcore --to collector:20023 --panic \"kernel panic\""
)]
pub(crate) struct Args {
    /// The vmcore, such as /proc/vmcore; its bytes are sent exactly as they are.
    file: PathBuf,
    /// The receiver; its port is 20023 unless one is given.
    #[arg(long, value_name = "HOST[:PORT]")]
    to: HostPort,
    /// Name of the host that crashed [default: from the file's note, else this host's name].
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Why it crashed [default: from the file's note].
    #[arg(long, value_name = "TEXT")]
    panic: Option<String>,
}

/// Sends the file at `path` as a dump of `hostname` with this panic text, and tells of no progress.
pub(super) fn quietly(
    path: &Path,
    receiver: SocketAddrV4,
    hostname: &str,
    panic: &str,
) -> Result<ClientStats, Failure> {
    let core = Core::open(path)?;
    let header = core.kernel_header(Some(hostname.to_owned()), Some(panic.to_owned()));
    let way = Way::to(receiver)?;
    Conversation::new(&way)?.send_all(&core, &header, &ProgressBar::hidden())
}

/// Sends the file.
pub(crate) fn run(args: Args) -> Outcome {
    let core = Core::open(&args.file)?;
    let receiver = args.to.resolve().or_exit(Exit::Unreachable)?;
    let way = Way::to(receiver)?;
    let header = core.kernel_header(args.hostname, args.panic);
    let bar = output::progress(core.len_bytes);
    let sent = Conversation::new(&way).and_then(|mut conversation| conversation.send_all(&core, &header, &bar));
    bar.finish_and_clear();
    let stats = sent?;
    output::line(&format!(
        "{} sent to {receiver}: {} of {}, {} packets, {} sent again",
        args.file.display(),
        output::bytes(stats.acked_bytes),
        output::bytes(core.len_bytes),
        stats.sent_packets,
        stats.retransmitted_packets
    ))?;
    Ok(Exit::Ok)
}
