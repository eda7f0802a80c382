//! One dump on its way: the netdump client, a socket, and this host's clock.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;
use netdump::{Client, ClientConfig, ClientError, ClientEvent, ClientStats, Kind, wire};
use server::limits::TRAIN_BYTES_MAX;
use server::trains;

use super::core::Core;
use super::socket::{Train, Way};
use crate::cli_failure::{Exit, Failure, OrExit as _};

/// Bytes read from the file at a time: one window of the protocol.
const READ_BYTES: usize = 64 * 1024;

/// A dump on its way.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: UdpSocket,
    receiver: SocketAddrV4,
    client: Client<Vec<u8>>,
    epoch: Instant,
    outgoing: Train,
    answers: Vec<u8>,
}

impl Conversation {
    /// A conversation that has not begun.
    pub(super) fn new(way: &Way) -> Result<Self, Failure> {
        let config = ClientConfig::stock(way.mtu);
        let buffer = vec![0; config.window_bytes];
        let client = Client::new(config, "", buffer, netdump::Instant::ZERO)
            .map_err(anyhow::Error::new)
            .context("cannot set up the netdump client")?;
        Ok(Self {
            socket: way.open()?,
            receiver: way.receiver,
            outgoing: Train::new(client.datagram_len_max()),
            answers: vec![0; 2 * TRAIN_BYTES_MAX],
            client,
            epoch: Instant::now(),
        })
    }

    /// Sends everything: the file by its ranges, then the kernel dump header, as FreeBSD does.
    pub(super) fn send_all(&mut self, core: &Core, header: &[u8], bar: &ProgressBar) -> Result<ClientStats, Failure> {
        let mut buffer = vec![0; READ_BYTES];
        for range in core.declared.gaps(0..core.len_bytes) {
            let mut at = range.start;
            while at < range.end {
                let want = usize::try_from(range.end - at).unwrap_or(READ_BYTES).min(READ_BYTES);
                let Some(part) = buffer.get_mut(..want) else { break };
                core.read(at, part)?;
                self.push_all(Kind::Vmcore, at, part)?;
                at += want as u64;
                bar.set_position(at);
            }
        }
        self.push_all(Kind::KernelHeader, 0, header)?;
        self.client.finish();
        while !self.client.is_over() {
            self.step()?;
        }
        Ok(self.client.stats())
    }

    /// Hands all bytes to the client, sending while its window is full.
    fn push_all(&mut self, kind: Kind, mut offset: u64, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let taken = self.client.push(kind, offset, bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            offset += taken as u64;
            if taken == 0 {
                self.step()?;
            } else {
                self.transmit()?;
            }
        }
        Ok(())
    }

    /// Sends what may be sent, waits for an answer or a time-out, and takes all answers that are there.
    fn step(&mut self) -> Result<(), Failure> {
        self.transmit()?;
        let wait = self
            .client
            .poll_timeout()
            .map_or(Duration::from_secs(1), |at| at.since(self.now()));
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_secs(1));
        trains::wait(&self.socket, wait).context("cannot wait for answers")?;
        let datagrams = trains::receive_batch(&self.socket, &mut self.answers).context("cannot receive answers")?;
        let now = self.now();
        let mut at = 0;
        for datagram in datagrams {
            if datagram.from.ip() == self.receiver.ip() {
                let payload = self.answers.get(at..at + datagram.len).unwrap_or_default();
                self.client.handle_datagram(now, self.port(datagram.from), payload);
            }
            at += datagram.len;
        }
        self.client.handle_timeout(now);
        while let Some(event) = self.client.poll_event() {
            if let ClientEvent::Failed(why) = event {
                return Err(self.failure(why));
            }
        }
        Ok(())
    }

    /// Sends what may be sent now. One that is lost on the way is sent again.
    fn transmit(&mut self) -> Result<(), Failure> {
        let now = self.now();
        let mut sent = Ok(());
        while let Some(transmit) = self
            .client
            .poll_transmit(now, self.outgoing.room())
            .filter(|_| sent.is_ok())
        {
            // Port 20023 stands for wherever the receiver was said to listen.
            let port = match transmit.port {
                wire::HERALD_PORT => self.receiver.port(),
                port => port,
            };
            let to = SocketAddrV4::new(*self.receiver.ip(), port);
            sent = self.outgoing.add(&self.socket, to, transmit.len);
        }
        sent.and_then(|()| self.outgoing.send(&self.socket))
            .with_context(|| format!("cannot send to {}", self.receiver.ip()))
            .or_exit(Exit::Unreachable)
    }

    /// The port as the client knows it: one that answers from where it was called is port 20023 to it.
    fn port(&self, from: SocketAddrV4) -> u16 {
        if from.port() == self.receiver.port() {
            wire::HERALD_PORT
        } else {
            from.port()
        }
    }

    fn now(&self) -> netdump::Instant {
        netdump::Instant::from_nanos(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The sentence and the code for a dump that failed.
    fn failure(&self, why: ClientError) -> Failure {
        let receiver = self.receiver;
        let sentence = match why {
            ClientError::NoAnswer { .. } => format!(
                "no netdump receiver answers at {receiver} ({why}); is `coreferry serve` running there, does it allow \
                 this host, and does no firewall drop UDP {}?",
                receiver.port()
            ),
            ClientError::Silent { .. } => {
                format!("{receiver} stopped answering ({why}); its log says whether its disk is full")
            }
            ClientError::Unfinished { .. } => {
                format!("{receiver} did not confirm the end ({why}); `coreferry cores list` there shows what it has")
            }
        };
        Failure::new(Exit::Unreachable, sentence)
    }
}
