//! `send`: an existing vmcore to a receiver, over a UDP socket.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use indicatif::ProgressBar;
use netdump::{Client, ClientConfig, ClientError, ClientEvent, Extents, Kind, wire};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::IpMtu;
use vmcore::CoreferryNote;
use vmcore::kernel_header::{ARCHITECTURE_VERSION_AMD64, KernelDumpHeader};
use vmcore::reader::{CoreHead, CoreNotes};
use vmcore::trailer::{FOOTER_LEN, Footer, PageState, Trailer};

use crate::cli_failure::{Exit, Failure, OrExit as _, Outcome};
use crate::host_port::HostPort;
use crate::output;

/// Bytes read from the file at a time: one window of the protocol.
const READ_BYTES: usize = 64 * 1024;
/// Largest trailer that is read: enough for a file of 2 TiB.
const TRAILER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Ranges that a trailer may declare; more are sent as the zeros that they are.
const DECLARED_MAX: usize = 1 << 22;

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

/// Sends the file.
pub(crate) fn run(args: Args) -> Outcome {
    let core = Core::open(&args.file)?;
    let receiver = args.to.resolve().or_exit(Exit::Unreachable)?;
    let socket = bind(receiver)?;
    let header = core.kernel_header(args.hostname, args.panic);
    let bar = output::progress(core.len_bytes);
    let sent = Sending::new(socket, receiver).and_then(|mut sending| sending.all(&core, &header, &bar));
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

/// The file to send.
#[derive(Debug)]
struct Core {
    file: File,
    path: String,
    len_bytes: u64,
    note: Option<CoreferryNote>,
    /// Ranges that the file's own trailer declares as holes: they need not be sent.
    declared: Extents,
}

impl Core {
    /// Opens a file and looks for our trailer and note.
    fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let meta = file.metadata().with_context(|| format!("cannot look at {shown}"))?;
        if !meta.is_file() {
            return Err(Failure::new(
                Exit::Failed,
                format!("{shown} is not a regular file; name a vmcore"),
            ));
        }
        if meta.len() == 0 {
            return Err(Failure::new(
                Exit::Failed,
                format!("{shown} is empty; there is nothing to send"),
            ));
        }
        let mut core = Self {
            file,
            path: shown,
            len_bytes: meta.len(),
            note: None,
            declared: Extents::new(DECLARED_MAX),
        };
        core.note = core.read_note();
        core.read_trailer();
        Ok(core)
    }

    /// Reads exactly these bytes.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let what = || format!("cannot read {} bytes of {} at offset {offset}", buffer.len(), self.path);
        let what = what();
        self.file
            .read_exact_at(buffer, offset)
            .context(what)
            .or_exit(Exit::Failed)
    }

    /// The COREFERRY note, if the file has one.
    fn read_note(&self) -> Option<CoreferryNote> {
        let len = self.len_bytes.min(vmcore::HEADER_ROOM_LEN);
        let mut head = vec![0; usize::try_from(len).ok()?];
        self.file.read_exact_at(&mut head, 0).ok()?;
        let core = CoreHead::parse(&head).ok()?;
        CoreNotes::parse(core.notes_in(&head).ok()?).ok()?.coreferry().ok()?
    }

    /// Learns the holes from our trailer. A file without a sound one is sent whole.
    fn read_trailer(&mut self) {
        let read = || {
            let at = self.len_bytes.checked_sub(FOOTER_LEN as u64)?;
            let mut end = [0; FOOTER_LEN];
            self.file.read_exact_at(&mut end, at).ok()?;
            let footer = Footer::parse(&end)
                .ok()
                .filter(|footer| footer.file_len == self.len_bytes)?;
            let len = usize::try_from(footer.body_len.min(TRAILER_BYTES_MAX)).ok()?;
            let mut body = vec![0; len];
            self.file.read_exact_at(&mut body, footer.trailer_offset).ok()?;
            let trailer = Trailer::parse(&footer, &body).ok()?;
            let mut declared = Extents::new(DECLARED_MAX);
            for (range, state) in trailer.declared() {
                if matches!(state, PageState::Zero | PageState::Excluded) {
                    // One that does not fit is sent as the zeros that it is.
                    let _ = declared.insert(range);
                }
            }
            Some(declared)
        };
        if let Some(declared) = read() {
            self.declared = declared;
        }
    }

    /// The kernel dump header (sys/sys/kerneldump.h) for this file.
    fn kernel_header(&self, hostname: Option<String>, panic: Option<String>) -> Vec<u8> {
        let note = self.note.as_ref();
        let own_name = || {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            name.trim().to_owned()
        };
        let vm = note.map(|note| note.vm.clone()).filter(|vm| !vm.is_empty());
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let header = KernelDumpHeader {
            architecture: "amd64".to_owned(),
            version: 4,
            architecture_version: ARCHITECTURE_VERSION_AMD64,
            dump_len_bytes: self.len_bytes,
            dump_extent_bytes: self.len_bytes,
            dump_time_s: seconds,
            block_len_bytes: 4096,
            hostname: hostname.or(vm).unwrap_or_else(own_name),
            version_string: note.and_then(|note| note.release.clone()).unwrap_or_default(),
            panic_string: panic.or_else(|| note?.panic.clone()).unwrap_or_default(),
            ..KernelDumpHeader::default()
        };
        header.encode().to_vec()
    }
}

/// A dump on its way.
#[derive(Debug)]
struct Sending {
    socket: UdpSocket,
    receiver: SocketAddrV4,
    client: Client<Vec<u8>>,
    epoch: Instant,
    datagram: Vec<u8>,
}

impl Sending {
    fn new(socket: UdpSocket, receiver: SocketAddrV4) -> Result<Self, Failure> {
        let config = ClientConfig::stock(route_mtu(receiver));
        let buffer = vec![0; config.window_bytes];
        let client = Client::new(config, "", buffer, netdump::Instant::ZERO)
            .map_err(anyhow::Error::new)
            .context("cannot set up the netdump client")?;
        Ok(Self {
            socket,
            receiver,
            datagram: vec![0; client.datagram_len_max()],
            client,
            epoch: Instant::now(),
        })
    }

    /// Sends everything: the file by its ranges, then the kernel dump header, as FreeBSD does.
    fn all(&mut self, core: &Core, header: &[u8], bar: &ProgressBar) -> Result<netdump::ClientStats, Failure> {
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
        self.socket
            .set_read_timeout(Some(wait))
            .context("cannot set a time-out on the socket")?;
        let mut answer = [0; 64];
        let mut first = true;
        loop {
            let received = if first {
                self.socket.recv_from(&mut answer)
            } else {
                receive_now(&self.socket, &mut answer)
            };
            first = false;
            match received {
                Ok((len, std::net::SocketAddr::V4(from))) if from.ip() == self.receiver.ip() => {
                    let payload = answer.get(..len).unwrap_or_default();
                    let now = self.now();
                    self.client.handle_datagram(now, self.port(from), payload);
                }
                Ok(_) => {}
                Err(why) if is_passing(&why) => break,
                Err(why) => return Err(anyhow::Error::new(why).context("cannot receive answers").into()),
            }
        }
        let now = self.now();
        self.client.handle_timeout(now);
        while let Some(event) = self.client.poll_event() {
            if let ClientEvent::Failed(why) = event {
                return Err(self.failure(why));
            }
        }
        Ok(())
    }

    /// Sends what may be sent now.
    fn transmit(&mut self) -> Result<(), Failure> {
        let now = self.now();
        while let Some(transmit) = self.client.poll_transmit(now, &mut self.datagram) {
            // Port 20023 stands for wherever the receiver was said to listen.
            let port = match transmit.port {
                wire::HERALD_PORT => self.receiver.port(),
                port => port,
            };
            let to = SocketAddrV4::new(*self.receiver.ip(), port);
            let datagram = self.datagram.get(..transmit.len).unwrap_or_default();
            match self.socket.send_to(datagram, to) {
                Ok(_) => {}
                // One that is lost is sent again.
                Err(why) if is_passing(&why) => break,
                Err(why) => {
                    let what = format!("cannot send to {to}");
                    return Err(anyhow::Error::new(why).context(what)).or_exit(Exit::Unreachable);
                }
            }
        }
        Ok(())
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

/// A socket on the address from which the receiver is reached, with the port to which stock receivers answer.
fn bind(receiver: SocketAddrV4) -> Result<UdpSocket, Failure> {
    let route = || {
        let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        probe.connect(receiver)?;
        probe.local_addr()
    };
    let own = route()
        .with_context(|| format!("there is no way to {receiver}"))
        .or_exit(Exit::Unreachable)?
        .ip();
    match UdpSocket::bind((own, wire::CLIENT_PORT)) {
        Ok(socket) => Ok(socket),
        Err(_) => {
            output::say(&format!(
                "warning: UDP port {} on {own} is taken; sending from another one, which stock receivers do not answer",
                wire::CLIENT_PORT
            ));
            let hint = || format!("cannot open a UDP socket on {own}");
            UdpSocket::bind((own, 0)).with_context(hint).or_exit(Exit::Failed)
        }
    }
}

/// The MTU of the way to the receiver (ip(7), IP_MTU); that of Ethernet where it is not known.
fn route_mtu(receiver: SocketAddrV4) -> u16 {
    const ETHERNET: u16 = 1500;
    let ask = || {
        let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        probe.connect(receiver).ok()?;
        getsockopt(&probe, IpMtu).ok()
    };
    // The loopback interface has one beyond 16 bits; the client's configuration bounds it.
    ask().map_or(ETHERNET, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// The next answer, if one is there already.
fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, std::net::SocketAddr)> {
    socket.set_nonblocking(true)?;
    let received = socket.recv_from(buffer);
    socket.set_nonblocking(false)?;
    received
}

/// Errors that pass: nothing there, or an ICMP message of a host that restarts.
fn is_passing(why: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable, TimedOut, WouldBlock};
    let kinds = [
        ConnectionRefused,
        HostUnreachable,
        NetworkUnreachable,
        TimedOut,
        WouldBlock,
        Interrupted,
    ];
    kinds.contains(&why.kind()) || why.raw_os_error() == Some(libc::ENOBUFS)
}
