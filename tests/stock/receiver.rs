//! A receiver that behaves as netdumpd does: what it takes, what it drops, where its acks go.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    header,
    loss::Loss,
    sender::CLIENT_PORT,
    wire::{FINISHED, HEADER_LEN, HERALD, KDH, KEY, Message, VMCORE},
};

/// Data bytes of a packet that netdumpd has room for; longer packets are dropped without an answer.
const DATA_LEN_MAX: usize = 4096;

/// Longest path of a herald; a herald with more is dropped without an answer.
const PATH_LEN_MAX: usize = 1024;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// FINISHED came: "Dump complete", whatever is missing.
    Finished,
    /// A newer herald of the same address pushed it out.
    Replaced,
}

/// What a session left behind.
#[derive(Debug, Clone)]
pub(crate) struct StockDump {
    pub(crate) client: Ipv4Addr,
    pub(crate) end: End,
    /// The directory the herald asked for, where it was a valid one.
    pub(crate) path: Option<String>,
    pub(crate) core: Vec<u8>,
    pub(crate) header: Option<Vec<u8>>,
    pub(crate) key: Vec<u8>,
    /// Data packets beyond the 4096 bytes.
    pub(crate) oversized: u64,
    /// Data packets that came again.
    pub(crate) duplicates: u64,
}

/// A running receiver; it ends with its value.
#[derive(Debug)]
pub(crate) struct StockReceiver {
    address: SocketAddrV4,
    dumps: Arc<Mutex<Vec<StockDump>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StockReceiver {
    /// Listens on a free port of 127.0.0.1; `loss` strikes what comes in and what goes out.
    pub(crate) fn start(loss: Loss) -> Self {
        let heralds = bound(0);
        let address = match heralds.local_addr().expect("the socket has an address") {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => panic!("{address} is no IPv4 address"),
        };
        let (dumps, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let mut server = Server {
            heralds,
            sessions: HashMap::new(),
            dumps: Arc::clone(&dumps),
            loss,
        };
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                if !server.turn() {
                    thread::sleep(Duration::from_micros(100));
                }
            }
        });
        Self {
            address,
            dumps,
            stop,
            thread: Some(thread),
        }
    }

    /// Where heralds go.
    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// The dumps that have ended so far, the oldest first.
    pub(crate) fn dumps(&self) -> Vec<StockDump> {
        self.dumps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for StockReceiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Server {
    heralds: UdpSocket,
    /// One session for each client address, as netdumpd has it.
    sessions: HashMap<Ipv4Addr, Session>,
    dumps: Arc<Mutex<Vec<StockDump>>>,
    loss: Loss,
}

#[derive(Debug)]
struct Session {
    socket: UdpSocket,
    dump: StockDump,
    seen: std::collections::HashSet<u64>,
    has_data: bool,
    finished: bool,
}

impl Server {
    /// Handles what has arrived; whether anything had.
    fn turn(&mut self) -> bool {
        let mut buffer = [0; HEADER_LEN + 65_536];
        let mut busy = false;
        while let Ok((len, SocketAddr::V4(from))) = self.heralds.recv_from(&mut buffer) {
            busy = true;
            if !self.loss.strikes() {
                self.herald(*from.ip(), &buffer[..len]);
            }
        }
        for session in self.sessions.values_mut() {
            while !session.finished
                && let Ok(len) = session.socket.recv(&mut buffer)
            {
                busy = true;
                if !self.loss.strikes() {
                    session.take(&buffer[..len], &mut self.loss);
                }
            }
        }
        let ended: Vec<Ipv4Addr> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.finished)
            .map(|(ip, _)| *ip)
            .collect();
        ended.iter().for_each(|ip| self.end(*ip, End::Finished));
        busy
    }

    fn herald(&mut self, client: Ipv4Addr, datagram: &[u8]) {
        let Some((message, payload)) = Message::parse(datagram) else {
            return;
        };
        if message.kind != HERALD || payload.len() > PATH_LEN_MAX {
            return;
        }
        if self.sessions.get(&client).is_some_and(|session| session.has_data) {
            self.end(client, End::Replaced);
        }
        let loss = &mut self.loss;
        let session = self
            .sessions
            .entry(client)
            .or_insert_with(|| Session::new(client, payload));
        session.ack(message.seqno, loss);
    }

    fn end(&mut self, client: Ipv4Addr, end: End) {
        if let Some(mut session) = self.sessions.remove(&client) {
            session.dump.end = end;
            self.dumps
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(session.dump);
        }
    }
}

impl Session {
    /// A socket of its own on a fresh port, connected to the one port that stock clients listen on.
    fn new(client: Ipv4Addr, path: &[u8]) -> Self {
        let socket = bound(0);
        socket
            .connect((client, CLIENT_PORT))
            .unwrap_or_else(|error| panic!("cannot connect to {client}: {error}"));
        let asked = path
            .split_last()
            .filter(|(last, _)| **last == 0)
            .and_then(|_| path.split(|byte| *byte == 0).next());
        let dump = StockDump {
            client,
            end: End::Replaced,
            path: asked.map(|asked| String::from_utf8_lossy(asked).into_owned()),
            core: Vec::new(),
            header: None,
            key: Vec::new(),
            oversized: 0,
            duplicates: 0,
        };
        Self {
            socket,
            dump,
            seen: std::collections::HashSet::new(),
            has_data: false,
            finished: false,
        }
    }

    fn take(&mut self, datagram: &[u8], loss: &mut Loss) {
        if datagram.len() > HEADER_LEN + DATA_LEN_MAX {
            self.dump.oversized += 1;
            return;
        }
        let Some((message, payload)) = Message::parse(datagram) else {
            return;
        };
        match message.kind {
            VMCORE => {
                self.has_data = true;
                self.dump.duplicates += u64::from(!self.seen.insert(message.offset));
                write_at(&mut self.dump.core, message.offset, payload);
                self.ack(message.seqno, loss);
            }
            KDH => {
                // The ack leaves before the size is looked at.
                self.ack(message.seqno, loss);
                if payload.len() == header::LEN {
                    self.dump.header = Some(payload.to_vec());
                }
            }
            KEY => {
                write_at(&mut self.dump.key, message.offset, payload);
                self.ack(message.seqno, loss);
            }
            FINISHED => {
                self.finished = true;
                // Never lost here: after it netdumpd forgets the client, who then fails although its dump is complete.
                self.ack(message.seqno, &mut Loss::none());
            }
            // A herald that comes to this port, and anything unknown, gets no answer.
            _ => {}
        }
    }

    fn ack(&self, seqno: u32, loss: &mut Loss) {
        if !loss.strikes() {
            let _ = self.socket.send(&seqno.to_be_bytes());
        }
    }
}

fn write_at(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).expect("test dumps are small");
    let end = start + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(bytes);
}

/// A socket of 127.0.0.1 that never blocks, with room for a burst.
fn bound(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("a loopback port is free");
    socket.set_nonblocking(true).expect("a socket need not block");
    socket
}
