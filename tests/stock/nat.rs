//! A network address translator in user space: several guests behind one address.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::sender::{CLIENT_PORT, own_address};

/// How it behaves; both kinds are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every guest gets another port, and whatever the server sends there, from any of its ports, gets in.
    Translating,
    /// The first guest keeps its port if it can, as masquerading on Linux does; an answer gets in only from the very port
    /// that the guest has dialled.
    Strict,
}

/// A running translator; it ends with its value.
#[derive(Debug)]
pub(crate) struct Nat {
    /// What guests dial: it stands for the server.
    pub(crate) inside: SocketAddrV4,
    /// What the server sees.
    pub(crate) outside: Ipv4Addr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Nat {
    pub(crate) fn start(kind: Kind, server: SocketAddrV4) -> Self {
        let (inside, outside) = (own_address(), own_address());
        // The server may listen on all addresses, this one among them: guests dial another port.
        let door = bound(inside, 0).expect("a free port");
        let inside = SocketAddrV4::new(inside, door.local_addr().expect("an address").port());
        let mut translator = Translator {
            kind,
            server: *server.ip(),
            inside: *inside.ip(),
            outside,
            ports: HashMap::from([(server.port(), door)]),
            flows: HashMap::new(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                if !translator.turn() {
                    thread::sleep(Duration::from_micros(100));
                }
            }
        });
        Self {
            inside,
            outside,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Translator {
    kind: Kind,
    server: Ipv4Addr,
    inside: Ipv4Addr,
    outside: Ipv4Addr,
    /// The server's ports as guests see them.
    ports: HashMap<u16, UdpSocket>,
    flows: HashMap<SocketAddrV4, Flow>,
}

/// A guest's way out.
struct Flow {
    socket: UdpSocket,
    dialled: HashSet<u16>,
}

impl Translator {
    fn port(&mut self, port: u16) -> &UdpSocket {
        let inside = self.inside;
        self.ports
            .entry(port)
            .or_insert_with(|| bound(inside, port).expect("an address of its own has all ports"))
    }

    fn flow(&mut self, guest: SocketAddrV4) -> &mut Flow {
        let (kind, outside) = (self.kind, self.outside);
        self.flows.entry(guest).or_insert_with(|| {
            let kept = (kind == Kind::Strict).then(|| bound(outside, CLIENT_PORT)).flatten();
            Flow {
                socket: kept.unwrap_or_else(|| bound(outside, 0).expect("a free port")),
                dialled: HashSet::new(),
            }
        })
    }

    /// Moves what has arrived; whether anything had.
    fn turn(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        let mut out: Vec<(u16, SocketAddrV4, Vec<u8>)> = Vec::new();
        for (port, socket) in &self.ports {
            while let Ok((len, SocketAddr::V4(guest))) = socket.recv_from(&mut buffer) {
                out.push((*port, guest, buffer[..len].to_vec()));
            }
        }
        let mut back: Vec<(u16, SocketAddrV4, Vec<u8>)> = Vec::new();
        for (guest, flow) in &self.flows {
            while let Ok((len, SocketAddr::V4(from))) = flow.socket.recv_from(&mut buffer) {
                let passes = self.kind == Kind::Translating || flow.dialled.contains(&from.port());
                if *from.ip() == self.server && passes {
                    back.push((from.port(), *guest, buffer[..len].to_vec()));
                }
            }
        }
        let busy = !out.is_empty() || !back.is_empty();
        for (port, guest, datagram) in out {
            let server = SocketAddrV4::new(self.server, port);
            let flow = self.flow(guest);
            flow.dialled.insert(port);
            let _ = flow.socket.send_to(&datagram, server);
        }
        for (port, guest, datagram) in back {
            let _ = self.port(port).send_to(&datagram, guest);
        }
        busy
    }
}

fn bound(address: Ipv4Addr, port: u16) -> Option<UdpSocket> {
    let socket = UdpSocket::bind((address, port)).ok()?;
    socket.set_nonblocking(true).expect("a socket need not block");
    Some(socket)
}
