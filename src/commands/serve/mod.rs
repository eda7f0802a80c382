//! `serve`: the receiver and its API, until a signal ends them.

mod config;
mod hooks;
mod limits;
mod webhooks;

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use anyhow::Context as _;
use api::{ApiListener, CoreService as _, ListenOn, TokenStore as _};
use netdump::AckPolicy;
use sd_notify::NotifyState;
use server::{Cidr, Receiver, ReceiverConfig, ReceiverError, Tokens, Webhooks};

use self::config::Settings;
use crate::cli_failure::{Exit, Failure, Outcome};
use crate::output::{self, LogArgs};
use crate::signals;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints `ready netdump=ADDR:PORT api=ADDR` on standard output when it is ready.\n\n\
    Example: coreferry serve --dir /var/crash --listen 192.0.2.10:20023 --allow 192.0.2.0/24"
)]
pub(crate) struct Args {
    /// Directory for the cores; made if its parent exists [default: /var/crash].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Address to take dumps on; port 0 asks for a free one. May be repeated [default: 127.0.0.1:20023].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<Vec<SocketAddrV4>>,
    /// Network that may dump, such as 192.0.2.0/24; loopback always may. May be repeated.
    #[arg(long, value_name = "CIDR")]
    allow: Option<Vec<Cidr>>,
    /// Where the API listens: an address, or a unix socket. One that is not loopback needs --api-cert [default: 127.0.0.1:20080].
    #[arg(long, value_name = "ADDR:PORT|unix:PATH", value_parser = config::parse_api)]
    api: Option<ListenOn>,
    /// PEM file with the API's certificate and its chain: the API speaks TLS. A renewed one is taken without a restart.
    #[arg(long, value_name = "FILE")]
    api_cert: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[arg(long, value_name = "FILE")]
    api_key: Option<PathBuf>,
    /// PEM file with the authorities of clients: who shows no certificate of theirs is turned away.
    #[arg(long, value_name = "FILE")]
    api_client_ca: Option<PathBuf>,
    /// When dump data is acknowledged. paired keeps stock FreeBSD senders from missing their losses (docs/netdump-acks.md);
    /// immediate acknowledges each packet at once [default: paired].
    #[arg(long, value_name = "paired|immediate", value_parser = config::parse_ack_policy)]
    ack_policy: Option<AckPolicy>,
    /// TOML file with keys named as these options, which win over it, with the limits on dumps, and with what is told when
    /// something happens (docs/serve.toml shows all).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// Runs the receiver until SIGTERM or SIGINT.
pub(crate) fn run(args: Args) -> Outcome {
    let settings = Settings::gather(args)?;
    let on = settings.api.clone();
    // Before anything is started: a signal that comes early must not be lost.
    let (ask, asked) = mpsc::channel();
    let stop = move || {
        let _ = ask.send(());
    };
    signals::on_stop(stop).context("cannot wait for signals")?;
    let tokens = Tokens::of(&settings.dir);
    somebody_may_come_in(&on, &tokens)?;
    let receiver = start_receiver(settings)?;
    for check in receiver.service().health().checks.iter().filter(|check| !check.ok) {
        tracing::warn!("{}: {}", check.name, check.detail);
    }
    let router = api::guarded(api::core_router(receiver.service()), Arc::new(tokens));
    let api = ApiListener::start(on, router).context("the API cannot be served; --api chooses another address")?;
    let netdump: Vec<String> = receiver.netdump_addrs().iter().map(ToString::to_string).collect();
    output::line(&format!("ready netdump={} api={}", netdump.join(","), api.on()))?;
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let _ = asked.recv();
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    receiver.stop();
    drop(api);
    Ok(Exit::Ok)
}

/// An API that others can reach asks each of them who it is. One that nobody could come into is a mistake.
fn somebody_may_come_in(on: &ListenOn, tokens: &Tokens) -> Result<(), Failure> {
    match on {
        ListenOn::Tls(address, files) if !address.ip().is_loopback() && files.client_ca.is_none() && !tokens.any() => {
            let sentence = format!(
                "the API on {address} would let nobody in: there is no token yet (`coreferry tokens add` makes one), and no \
                 authority of client certificates is named (--api-client-ca)"
            );
            Err(Failure::new(Exit::Usage, sentence))
        }
        _ => Ok(()),
    }
}

/// Starts the receiver.
fn start_receiver(settings: Settings) -> Result<Receiver, Failure> {
    let dir = settings.dir.display().to_string();
    let mut config = ReceiverConfig {
        listen: settings.listen,
        allow: settings.allow,
        limits: settings.limits.limits,
        hooks: settings.hooks,
        webhooks: Webhooks {
            targets: settings.webhooks,
            ..Webhooks::default()
        },
        // Not being able to name itself costs the explanations, no core.
        explainer: std::env::current_exe().ok(),
        ..ReceiverConfig::new(settings.dir)
    };
    config.rules.ack_policy = settings.ack_policy;
    config.rules.sessions_max = settings.limits.sessions_max;
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
