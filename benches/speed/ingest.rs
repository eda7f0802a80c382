//! A netdump client on a UDP socket straight to the receiver, as `coreferry send` does it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use netdump::{Client, ClientConfig, ClientEvent, Kind, wire};
use vmcore::kernel_header::{ARCHITECTURE_VERSION_AMD64, KernelDumpHeader};

use crate::Size;
use crate::floor::{Medium, TwoBuffers, copy_file};
use crate::guest::StillGuest;
use crate::receiver::TestReceiver;
use crate::table::{self, Case, Sample};

/// Bytes given to the client at a time.
const PUSH_LEN: usize = 64 * 1024;

/// Runs the group.
pub(crate) fn run(size: Size) -> Result<()> {
    let bytes = size.sent_mib << 20;
    let guest = StillGuest::new(size.sent_mib, size.sent_mib, 1)?;
    let media = Medium::all()?;
    let receivers = TestReceiver::on_each(&media)?;
    let mut cases = vec![TwoBuffers::new(bytes)?.case()];
    for (medium, receiver) in media.iter().zip(&receivers) {
        let copy = medium.copy_name();
        let limit = if medium.name == "tmpfs" {
            "memory, page faults"
        } else {
            "disk"
        };
        cases.push(Case::new(copy.clone(), limit, || {
            copy_file(guest.memory().memfd(), bytes, medium.path())
        }));
        // At 9000 a packet carries no more than at 4148: stock receivers take 4096 data bytes.
        for mtu in [1500, 4148, 9000] {
            let name = format!("client on a socket, MTU {mtu}, {}", medium.name);
            let limit = "UDP with an answer a packet, 64 KiB in flight";
            let measure = move || {
                let took = Sending::new(receiver.address(), mtu)?.all(bytes)?;
                receiver.expect_one_more_core()?;
                Ok(Sample { bytes, took })
            };
            cases.push(Case::new(name, limit, measure).beside(copy.clone()));
        }
    }
    table::run("receiver, fed from a socket", size, cases)
}

/// A client and its socket.
struct Sending {
    socket: UdpSocket,
    receiver: SocketAddrV4,
    client: Client<Vec<u8>>,
    epoch: Instant,
    datagram: Vec<u8>,
}

impl Sending {
    fn new(receiver: SocketAddrV4, mtu: u16) -> Result<Self> {
        let config = ClientConfig::stock(mtu);
        let client = Client::new(config, "", vec![0; config.window_bytes], netdump::Instant::ZERO)?;
        Ok(Self {
            socket: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
            receiver,
            datagram: vec![0; client.datagram_len_max()],
            client,
            epoch: Instant::now(),
        })
    }

    /// Sends so many bytes and a header; the time until they are confirmed.
    fn all(mut self, bytes: u64) -> Result<Duration> {
        let data = vec![0x5a; PUSH_LEN];
        let header = KernelDumpHeader {
            architecture: "amd64".to_owned(),
            version: 4,
            architecture_version: ARCHITECTURE_VERSION_AMD64,
            dump_len_bytes: bytes,
            dump_extent_bytes: bytes,
            block_len_bytes: 4096,
            hostname: "bench".to_owned(),
            ..KernelDumpHeader::default()
        };
        let start = Instant::now();
        for at in (0..bytes).step_by(PUSH_LEN) {
            let len = usize::try_from(bytes - at)?.min(PUSH_LEN);
            self.push(Kind::Vmcore, at, data.get(..len).unwrap_or_default())?;
        }
        self.push(Kind::KernelHeader, 0, &header.encode())?;
        self.client.finish();
        while !self.client.is_over() {
            self.step()?;
        }
        Ok(start.elapsed())
    }

    fn push(&mut self, kind: Kind, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let taken = self.client.push(kind, offset, bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            offset += taken as u64;
            if taken == 0 {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Sends what may be sent, waits for an answer, and takes all that are there.
    fn step(&mut self) -> Result<()> {
        self.transmit()?;
        let now = self.now();
        let wait = self
            .client
            .poll_timeout()
            .map_or(Duration::from_secs(1), |at| at.since(now));
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut answer = [0; 64];
        while let Some((len, from)) = received(self.socket.recv_from(&mut answer))? {
            let port = if from.port() == self.receiver.port() {
                wire::HERALD_PORT
            } else {
                from.port()
            };
            let payload = answer.get(..len).unwrap_or_default();
            self.client.handle_datagram(self.now(), port, payload);
            self.socket.set_nonblocking(true)?;
        }
        self.client.handle_timeout(self.now());
        while let Some(event) = self.client.poll_event() {
            if let ClientEvent::Failed(why) = event {
                bail!("the dump failed: {why}");
            }
        }
        Ok(())
    }

    fn transmit(&mut self) -> Result<()> {
        let now = self.now();
        while let Some(transmit) = self.client.poll_transmit(now, &mut self.datagram) {
            let port = match transmit.port {
                wire::HERALD_PORT => self.receiver.port(),
                port => port,
            };
            let datagram = self.datagram.get(..transmit.len).unwrap_or_default();
            let to = SocketAddrV4::new(*self.receiver.ip(), port);
            self.socket.set_nonblocking(false)?;
            self.socket.send_to(datagram, to).context("cannot send")?;
        }
        Ok(())
    }

    fn now(&self) -> netdump::Instant {
        netdump::Instant::from_nanos(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Nothing, where nothing came in time.
fn received(result: io::Result<(usize, SocketAddr)>) -> io::Result<Option<(usize, SocketAddr)>> {
    match result {
        Ok(datagram) => Ok(Some(datagram)),
        Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
        Err(why) => Err(why),
    }
}
