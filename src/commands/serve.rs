//! `serve`: the receiver and its API, until a signal ends them.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::mpsc;

use anyhow::Context as _;
use api::{ApiListener, ListenOn};
use sd_notify::NotifyState;
use server::{Cidr, Receiver, ReceiverConfig, ReceiverError};

use crate::cli_failure::{Exit, Failure, Outcome};
use crate::{output, signals};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints `ready netdump=ADDR:PORT api=ADDR` on standard output when it is ready.\n\n\
    Example: coreferry serve --dir /var/crash --listen 192.0.2.10:20023 --allow 192.0.2.0/24"
)]
pub(crate) struct Args {
    /// Directory for the cores; made if its parent exists.
    #[arg(long, value_name = "DIR", default_value = "/var/crash")]
    dir: PathBuf,
    /// Address to take dumps on; port 0 asks for a free one. May be repeated.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:20023")]
    listen: Vec<SocketAddrV4>,
    /// Network that may dump, such as 192.0.2.0/24; loopback always may. May be repeated.
    #[arg(long, value_name = "CIDR")]
    allow: Vec<Cidr>,
    /// Where the API listens: a loopback address, or a unix socket.
    #[arg(long, value_name = "ADDR:PORT|unix:PATH", default_value = "127.0.0.1:20080", value_parser = parse_api)]
    api: ListenOn,
}

/// Runs the receiver until SIGTERM or SIGINT.
pub(crate) fn run(args: Args) -> Outcome {
    let on = args.api.clone();
    // Before anything is started: a signal that comes early must not be lost.
    let (ask, asked) = mpsc::channel();
    let stop = move || {
        let _ = ask.send(());
    };
    signals::on_stop(stop).context("cannot wait for signals")?;
    let receiver = start_receiver(args)?;
    let api = ApiListener::start(on, api::core_router(receiver.service()))
        .context("the API cannot be served; --api chooses another address")?;
    let netdump: Vec<String> = receiver.netdump_addrs().iter().map(ToString::to_string).collect();
    output::line(&format!("ready netdump={} api={}", netdump.join(","), api.on()))?;
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let _ = asked.recv();
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    receiver.stop();
    drop(api);
    Ok(Exit::Ok)
}

/// Starts the receiver.
fn start_receiver(args: Args) -> Result<Receiver, Failure> {
    let dir = args.dir.display().to_string();
    let config = ReceiverConfig {
        listen: args.listen,
        allow: args.allow,
        ..ReceiverConfig::new(args.dir)
    };
    Receiver::start(config).map_err(|why| match why {
        ReceiverError::AllowMissing { .. } => Failure::new(Exit::Usage, why.to_string()),
        ReceiverError::Store(_) => {
            let sentence =
                format!("cannot keep cores in {dir}: {why}; name a directory with --dir that you may write to");
            Failure::new(Exit::Failed, sentence)
        }
        ReceiverError::Listen { .. } => {
            let sentence = format!("{why}; is another receiver running? --listen chooses another address");
            Failure::new(Exit::Failed, sentence)
        }
    })
}

/// Reads `ADDR:PORT` or `unix:PATH`. Without authentication, nothing but loopback is taken.
fn parse_api(text: &str) -> Result<ListenOn, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err("unix: needs a path behind it".to_owned()),
            path => Ok(ListenOn::Unix(PathBuf::from(path))),
        };
    }
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "write it as 127.0.0.1:20080 or unix:/run/coreferry.sock".to_owned())?;
    if address.ip().is_loopback() {
        Ok(ListenOn::Tcp(address))
    } else {
        Err("the API has no authentication: only loopback addresses and unix sockets are allowed".to_owned())
    }
}
