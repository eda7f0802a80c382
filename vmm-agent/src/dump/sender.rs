//! One conversation with one receiver: next hop, HERALD, the core, its header, FINISHED. A single loop that waits on the
//! wire until the next deadline.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant as Clock};

use netdump::station::Role;
use netdump::wire::CLIENT_PORT;
use netdump::{
    Client, ClientConfig, ClientError, ClientEvent, ClientStats, Instant, Kind, Station, StationConfig, StationState,
};

use super::address::{ClientNetwork, Target};
use super::core_file::{CoreFile, CoreFileError, Pieces};
use super::limits::{CANCEL_CHECK_INTERVAL, PORT_FRAME_LEN_MAX};
use super::port::DumpPort;
use super::progress::{Phase, Progress};
pub use super::send_error::SendError;

/// How long a receiver may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For its first answer.
    pub answer: Duration,
    /// Between one answer and the next while something is unanswered.
    pub silence: Duration,
    /// To confirm that it keeps the core, after it took every byte.
    pub confirmation: Duration,
}

impl Default for Patience {
    /// What stock receivers need (see [`netdump::limits`]).
    fn default() -> Self {
        Self {
            answer: netdump::limits::ANSWER_WITHIN,
            silence: netdump::limits::GIVE_UP_AFTER,
            confirmation: netdump::limits::FINISHED_WITHIN,
        }
    }
}

/// What ends an attempt, and who watches it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch<'a> {
    pub(super) progress: &'a Progress,
    pub(super) deadline: Option<Clock>,
    pub(super) patience: Patience,
}

impl Watch<'_> {
    /// Fails once the dump was cancelled or its deadline has passed.
    pub(super) fn check(&self) -> Result<(), SendError> {
        if self.progress.is_cancelled() {
            return Err(SendError::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Clock::now() >= deadline => Err(SendError::DeadlinePassed),
            _ => Ok(()),
        }
    }
}

/// Sends the core to one receiver; returns when the receiver has confirmed that it keeps it.
pub(super) fn send(
    core: &CoreFile<'_>,
    kernel_header: &[u8],
    port: &mut DumpPort,
    network: &ClientNetwork,
    target: &Target,
    watch: Watch<'_>,
) -> Result<ClientStats, SendError> {
    let wire = port.wire();
    let mtu = network
        .mtu
        .unwrap_or_else(|| wire.mtu_towards(*target.address.ip()))
        .min(wire.mtu_max());
    watch.progress.begin(Phase::Connecting, core.len_bytes());
    let epoch = Clock::now();
    let station = Station::new(
        StationConfig {
            mac: network.mac,
            client: network.address.ip,
            prefix_len: network.address.prefix_len,
            gateway: network.gateway,
            server: *target.address.ip(),
            client_port: CLIENT_PORT,
            mtu,
        },
        Instant::ZERO,
    )?;
    let config = ClientConfig {
        answer_within: watch.patience.answer,
        give_up_after: watch.patience.silence,
        finished_within: watch.patience.confirmation,
        ..ClientConfig::stock(mtu)
    };
    let window_packets = usize::try_from(config.window_packets).unwrap_or(1);
    let mut conversation = Conversation {
        port,
        target,
        watch,
        epoch,
        refill_at: config.window_bytes.min(window_packets * config.payload_len_max) / 2,
        config,
        station,
        client: None,
        feed: Feed {
            pieces: core.pieces()?,
            kernel_header,
            source: FeedSource::Core,
            taken: 0,
        },
        connected: false,
        mtu,
        frame: vec![0; PORT_FRAME_LEN_MAX].into_boxed_slice(),
        payload: vec![0; PORT_FRAME_LEN_MAX].into_boxed_slice(),
    };
    conversation.run()
}

/// The state of one conversation.
struct Conversation<'a, 'c> {
    port: &'a mut DumpPort,
    target: &'a Target,
    watch: Watch<'a>,
    epoch: Clock,
    config: ClientConfig,
    station: Station,
    /// Made when the next hop is known, so that the receiver's time to answer begins then.
    client: Option<Client<Box<[u8]>>>,
    feed: Feed<'c>,
    mtu: u16,
    /// Bytes of room from which on the client is fed again: half a window.
    refill_at: usize,
    /// The receiver has answered, from the port that the client knows now.
    connected: bool,
    frame: Box<[u8]>,
    payload: Box<[u8]>,
}

/// What the client is fed: the core's pieces, then the kernel dump header.
struct Feed<'c> {
    pieces: Pieces<'c>,
    kernel_header: &'c [u8],
    source: FeedSource,
    /// Bytes of the current piece, or of the kernel dump header, that the client took.
    taken: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FeedSource {
    Core,
    KernelHeader,
    Nothing,
}

impl Feed<'_> {
    /// Gives the client as much as it takes.
    fn fill(&mut self, client: &mut Client<Box<[u8]>>, payload_len_max: usize) -> Result<(), CoreFileError> {
        loop {
            let (kind, offset, rest) = match self.source {
                FeedSource::Core => {
                    let piece = self.pieces.current();
                    (
                        Kind::Vmcore,
                        piece.file_offset,
                        piece.bytes.get(self.taken..).unwrap_or_default(),
                    )
                }
                FeedSource::KernelHeader => (
                    Kind::KernelHeader,
                    0,
                    self.kernel_header.get(self.taken..).unwrap_or_default(),
                ),
                FeedSource::Nothing => {
                    client.finish();
                    return Ok(());
                }
            };
            if rest.is_empty() {
                self.taken = 0;
                self.source = match self.source {
                    FeedSource::Core if self.pieces.next_piece()?.is_some() => FeedSource::Core,
                    FeedSource::Core => FeedSource::KernelHeader,
                    FeedSource::KernelHeader | FeedSource::Nothing => FeedSource::Nothing,
                };
                continue;
            }
            // A packet is not cut short for the last bytes of the window: full ones travel together.
            if client.capacity() < rest.len().min(payload_len_max) {
                return Ok(());
            }
            self.taken += client.push(kind, offset + self.taken as u64, rest);
        }
    }
}

impl Conversation<'_, '_> {
    fn run(&mut self) -> Result<ClientStats, SendError> {
        loop {
            self.watch.check()?;
            self.resolve()?;
            self.transmit()?;
            self.port.flush();
            // Always waited for, never tried in vain: with frames there already it returns at once.
            self.port.wait(self.time_to_wait())?;
            self.receive()?;
            self.report();
            if let Some(stats) = self.take_events()? {
                return Ok(stats);
            }
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Looks for the next hop, answers ARP, and makes the client once the way is known.
    fn resolve(&mut self) -> Result<(), SendError> {
        let now = self.now();
        self.station.handle_timeout(now);
        while let Some(len) = self.station.poll_frame(now, &mut self.frame) {
            self.port.queue(self.frame.get(..len).unwrap_or_default());
        }
        match self.station.state() {
            StationState::Ready if self.client.is_none() => {
                let buffer = vec![0; self.config.window_bytes].into_boxed_slice();
                self.client = Some(Client::new(self.config, "", buffer, now)?);
                Ok(())
            }
            StationState::Resolving | StationState::Ready => Ok(()),
            StationState::Unreachable { who, role } => Err(self.no_next_hop(who, role)),
        }
    }

    fn transmit(&mut self) -> Result<(), SendError> {
        let now = self.now();
        let Some(client) = &mut self.client else { return Ok(()) };
        client.handle_timeout(now);
        // Acknowledgements come one by one; what they make room for leaves in trains, each for one system call. Half a
        // window is on its way meanwhile, so the receiver never waits.
        if client.capacity() >= self.refill_at {
            self.feed.fill(client, self.config.payload_len_max)?;
        }
        while let Some(transmit) = client.poll_transmit(now, &mut self.payload) {
            let to_port = if self.connected {
                transmit.port
            } else {
                self.target.address.port()
            };
            let payload = self.payload.get(..transmit.len).unwrap_or_default();
            self.port
                .queue_datagram(&self.station.datagram_headers(to_port)?, payload);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), SendError> {
        let now = self.now();
        let Self {
            port, station, client, ..
        } = self;
        port.receive(&mut |frame| {
            if let (Some(udp), Some(client)) = (station.handle_frame(now, frame), client.as_mut()) {
                client.handle_datagram(now, udp.source_port, udp.payload);
            }
        })?;
        Ok(())
    }

    fn report(&self) {
        if let Some(client) = &self.client {
            let stats = client.stats();
            let position = self.feed.pieces.file_position();
            self.watch.progress.update(
                position,
                stats.pushed_bytes,
                stats.acked_bytes,
                stats.retransmitted_packets,
            );
            if self.feed.source == FeedSource::Nothing {
                self.watch.progress.enter(Phase::Finishing);
            }
        }
    }

    /// The statistics once the receiver has confirmed everything.
    fn take_events(&mut self) -> Result<Option<ClientStats>, SendError> {
        while let Some(client) = &mut self.client {
            match client.poll_event() {
                Some(ClientEvent::Connected { port }) => {
                    tracing::debug!("receiver {} answers from port {port}", self.target);
                    self.connected = true;
                    self.watch.progress.enter(Phase::Sending);
                }
                Some(ClientEvent::Finished) => return Ok(Some(client.stats())),
                Some(ClientEvent::Failed(error)) => return Err(self.failed(error)),
                None => break,
            }
        }
        Ok(None)
    }

    fn time_to_wait(&self) -> Duration {
        let now = self.now();
        let due = [
            self.station.poll_timeout(),
            self.client.as_ref().and_then(Client::poll_timeout),
        ];
        let until_due = due
            .into_iter()
            .flatten()
            .min()
            .map_or(CANCEL_CHECK_INTERVAL, |due| due.since(now));
        let until_deadline = self
            .watch
            .deadline
            .map_or(CANCEL_CHECK_INTERVAL, |at| at.saturating_duration_since(Clock::now()));
        until_due.min(until_deadline).min(CANCEL_CHECK_INTERVAL)
    }

    fn no_next_hop(&self, who: Ipv4Addr, role: Role) -> SendError {
        let (role, question) = match role {
            Role::Gateway => (
                "gateway",
                "is --netdump-gateway right, and is the network behind this wire up?",
            ),
            Role::Server => (
                "receiver",
                "is it up, and on the same network as --netdump-client says?",
            ),
        };
        let wire = self.port.wire();
        SendError::NoNextHop {
            role,
            who,
            wire: wire.name(),
            advice: wire.hint().unwrap_or_else(|| question.to_owned()),
        }
    }

    fn failed(&self, error: ClientError) -> SendError {
        let target = self.target.to_string();
        let hint = self.port.wire().hint();
        let or_ask = |question: &str| hint.clone().unwrap_or_else(|| question.to_owned());
        let acked_bytes = self.client.as_ref().map_or(0, |client| client.stats().acked_bytes);
        match error {
            ClientError::NoAnswer { waited } => SendError::NoAnswer {
                target,
                within_s: waited.as_secs(),
                advice: or_ask("is `coreferry serve` running there and --allow'ing this network?"),
            },
            ClientError::Silent { waited, .. } => SendError::Silent {
                target,
                silent_s: waited.as_secs(),
                acked_bytes,
                advice: if acked_bytes < self.config.window_bytes as u64 {
                    // Only short packets, of which every run of pages has one, came through.
                    or_ask(&format!(
                        "did it stop, is its disk full, or do packets of {} bytes not fit the way (--dump-mtu)?",
                        self.mtu
                    ))
                } else {
                    // A receiver that gave the dump up closes its port, and one that died has none: the hint is no answer.
                    let question = "did it stop, run out of space, or is the network between broken?";
                    hint.map_or_else(|| question.to_owned(), |hint| format!("{hint}; {question}"))
                },
            },
            ClientError::Unfinished { waited } => SendError::Unfinished {
                target,
                within_s: waited.as_secs(),
            },
        }
    }
}
