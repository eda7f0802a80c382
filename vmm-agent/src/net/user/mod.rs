//! The wire that needs no privileges: it plays the rest of the network for one client.
//!
//! ```text
//!  client ── ARP who-has X? ──►  "X is at WIRE_MAC"          (any X but the client's own address)
//!  client ── UDP a:p → b:q ──►   host socket bound to (address that routes to b):p ──► b:q
//!  client ◄─ UDP c:r → a:p ──    whatever reaches that socket, from its real sender c:r
//! ```
//!
//! So the client may use any address, its gateway is any address, and a receiver that acknowledges from a new port is
//! heard. Host sockets are bound to one address, never to all of them, and to the client's own port when it is free,
//! because stock receivers answer only to port 20024 (netdump(4), `NETDUMP_ACKPORT`).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use netdump::wire::{CLIENT_PORT, HERALD_PORT};
use nic_emu::device::{FrameSink, Offloads, TxFrame};
use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::epoll;

use super::drops::Drops;
use super::frame::{self, BROADCAST, Content, Mac};
use super::limits::{MTU_ETHERNET, MTU_JUMBO, MTU_MIN, MTU_ONE_PAGE, SEND_WAIT_MS, USER_FLOWS_MAX};
use super::wait::wait_for;
use super::{Wire, WireError};

mod flow;
mod train;

use flow::{Flow, ReceiveBuffers};
use train::{Part, Train};

/// The address of everything that is not the client: locally administered (IEEE 802, bit 1 of the first byte).
pub const WIRE_MAC: Mac = [0x02, 0x63, 0x66, 0x77, 0x00, 0x01];

/// Routes remembered, so that a client cannot make this grow without bound by sending everywhere.
const ROUTES_MAX: usize = 256;
/// The lowest port that needs no privilege (ip(7), `ip_unprivileged_port_start`, its usual value).
const PORT_UNPRIVILEGED_MIN: u16 = 1024;
/// ARP answers that wait for the client; more than one is rare.
const INBOX_MAX: usize = 32;

/// What a `user` wire may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserConfig {
    /// The client may reach 127.0.0.0/8 of this host. Right for the dump port, whose receiver may run here; a guest's
    /// own network card should not get it.
    pub allow_loopback: bool,
    /// The client's port is never taken on the host if others may need it there: privileged ones (ip(7),
    /// `ip_unprivileged_port_start`) and those of netdump, which the dump port and receivers use. Such a flow gets any
    /// free port.
    pub spare_ports: bool,
    /// How long one send may wait for a full socket before the frame is lost; zero: not at all.
    pub send_wait: Duration,
}

impl UserConfig {
    /// For a guest's own network device: it neither reaches this host's loopback, nor takes others' ports, nor waits.
    #[must_use]
    pub fn guest() -> Self {
        Self {
            allow_loopback: false,
            spare_ports: true,
            send_wait: Duration::ZERO,
        }
    }

    /// The port of the host to ask for on behalf of the client's; zero is any free one.
    fn host_port(self, client_port: u16) -> u16 {
        let spared = client_port < PORT_UNPRIVILEGED_MIN || [HERALD_PORT, CLIENT_PORT].contains(&client_port);
        if self.spare_ports && spared { 0 } else { client_port }
    }
}

/// For the dump port.
impl Default for UserConfig {
    fn default() -> Self {
        Self {
            allow_loopback: true,
            spare_ports: false,
            send_wait: Duration::from_millis(SEND_WAIT_MS.into()),
        }
    }
}

/// The `user` wire.
pub struct UserWire {
    config: UserConfig,
    epoll: OwnedFd,
    flows: Vec<Flow>,
    /// Which address of this host routes to a destination.
    routes: HashMap<Ipv4Addr, Ipv4Addr>,
    /// Frames for the client that no socket brings.
    inbox: VecDeque<Vec<u8>>,
    client_ip: Option<Ipv4Addr>,
    buffers: ReceiveBuffers,
    frame: Vec<u8>,
    /// Flows that did not get the client's port.
    moved_flows: u64,
    /// Datagrams that the host did not take, those of a train that left in part among them.
    drops: Drops,
    /// What was wrong last, and towards whom.
    hint: Option<(Ipv4Addr, String)>,
}

impl UserWire {
    /// Opens the wire; sockets are made as the client sends.
    ///
    /// # Errors
    /// [`WireError::Open`] when the system gives no epoll descriptor.
    pub fn open(config: UserConfig) -> Result<Self, WireError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| WireError::open("user", format!("cannot make an epoll descriptor: {errno}")))?;
        Ok(Self {
            config,
            epoll,
            flows: Vec::new(),
            routes: HashMap::new(),
            inbox: VecDeque::new(),
            client_ip: None,
            buffers: ReceiveBuffers::default(),
            frame: Vec::new(),
            moved_flows: 0,
            drops: Drops::default(),
            hint: None,
        })
    }

    /// The host addresses that stand for the client now, oldest first.
    pub fn bound_addresses(&self) -> Vec<SocketAddrV4> {
        self.flows.iter().filter_map(Flow::bound_address).collect()
    }

    /// Datagrams of the client that this host did not take.
    pub fn dropped_datagrams(&self) -> u64 {
        self.drops.count()
    }

    /// Answers an ARP request for anything but the client itself; a client that probes its own address (RFC 5227, or
    /// a gratuitous announcement) must hear nothing.
    fn answer_arp(&mut self, asker: Mac, sender: Ipv4Addr, target: Ipv4Addr) {
        if sender.is_unspecified() || sender == target {
            return;
        }
        self.client_ip = Some(sender);
        if self.inbox.len() < INBOX_MAX {
            let mut reply = Vec::new();
            frame::arp_reply(WIRE_MAC, target, asker, sender, &mut reply);
            self.inbox.push_back(reply);
        }
    }

    /// The flow of this client's port towards this destination, made if need be; `None` when it may not or cannot be.
    fn flow_for(&mut self, client_mac: Mac, from: SocketAddrV4, to: SocketAddrV4) -> Option<usize> {
        let destination = *to.ip();
        if destination.is_broadcast() || destination.is_multicast() || destination.is_unspecified() {
            return None;
        }
        if destination.is_loopback() && !self.config.allow_loopback {
            self.hint = Some((
                destination,
                format!("this wire does not reach {destination} of the host"),
            ));
            return None;
        }
        let local = match self.routes.get(&destination) {
            Some(local) => *local,
            None => self.find_route(to)?,
        };
        if let Some(index) = self
            .flows
            .iter()
            .position(|flow| flow.client == from && flow.local_ip == local)
        {
            return Some(index);
        }
        if self.flows.len() >= USER_FLOWS_MAX {
            // Closing its socket takes it out of the epoll set as well.
            self.flows.remove(0);
        }
        match Flow::open(self.config, client_mac, from, local, self.epoll.as_fd()) {
            Ok(flow) => {
                self.note_port(&flow);
                self.flows.push(flow);
            }
            Err(why) => {
                self.hint = Some((destination, why));
                return None;
            }
        }
        Some(self.flows.len() - 1)
    }

    /// Says that a flow goes by another port than the client's. A client can make any number of flows, so that this is
    /// said at powers of two only.
    fn note_port(&mut self, flow: &Flow) {
        let (client, Some(bound)) = (flow.client, flow.bound_address()) else {
            return;
        };
        if bound.port() == client.port() {
            return;
        }
        self.moved_flows += 1;
        if self.moved_flows.is_power_of_two() {
            tracing::warn!(
                flows = self.moved_flows,
                "UDP port {0} of {1} is not to be had; sending from port {2}. Receivers other than coreferry may answer to \
                 port {0} only",
                client.port(),
                bound.ip(),
                bound.port()
            );
        }
    }

    fn find_route(&mut self, to: SocketAddrV4) -> Option<Ipv4Addr> {
        match probe(to) {
            Ok((local, _)) => {
                if self.routes.len() >= ROUTES_MAX {
                    self.routes.clear();
                }
                self.routes.insert(*to.ip(), local);
                Some(local)
            }
            Err(error) => {
                self.hint = Some((*to.ip(), format!("this host has no way to {}: {error}", to.ip())));
                None
            }
        }
    }

    fn send_train(&mut self, train: &Train<'_>) {
        let Some(flow) = self.flows.get_mut(train.flow) else {
            return;
        };
        if let Err(refusal) = flow.send(train) {
            let why = refusal.as_ref().map_or("a queue of this host is full", |(_, why)| why);
            self.drops.add(train.count() as u64, "user", why);
            if refusal.is_some() {
                self.hint = refusal;
            }
        }
    }

    fn receive_from_flow(&mut self, index: usize, deliver: &mut dyn FnMut(&[u8])) -> usize {
        let Self {
            flows,
            buffers,
            frame,
            hint,
            ..
        } = self;
        let Some(flow) = flows.get_mut(index) else { return 0 };
        let (client, client_mac) = (flow.client, flow.client_mac);
        let mut count = 0;
        let seen = flow.receive(buffers, &mut |from, payload| {
            if hint.as_ref().is_some_and(|(about, _)| about == from.ip()) {
                *hint = None;
            }
            if frame::udp_frame((WIRE_MAC, client_mac), from, client, payload, frame) {
                deliver(frame);
                count += 1;
            }
        });
        if let Err(refusal) = seen {
            self.hint = Some(refusal);
        }
        count
    }
}

/// Which address of this host routes to `to`, and the MTU of that route; sends nothing (udp(7), ip(7) `IP_MTU`).
fn probe(to: SocketAddrV4) -> std::io::Result<(Ipv4Addr, u16)> {
    // Connecting a datagram socket only looks the route up; without it the socket is bound to no port at all.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.connect(&to.into())?;
    let socket = UdpSocket::from(socket);
    let local = match socket.local_addr()? {
        std::net::SocketAddr::V4(local) => *local.ip(),
        std::net::SocketAddr::V6(_) => return Err(std::io::ErrorKind::AddrNotAvailable.into()),
    };
    let mtu = getsockopt(&socket, sockopt::IpMtu).unwrap_or_else(|_| i32::from(MTU_ETHERNET));
    Ok((
        local,
        u16::try_from(mtu).unwrap_or(if mtu < 0 { MTU_ETHERNET } else { u16::MAX }),
    ))
}

impl FrameSink for UserWire {
    /// Only payloads leave here: what would complete their checksums or cut them is the host's, too.
    fn offloads(&self) -> Offloads {
        Offloads {
            checksum: true,
            udp4: true,
            ..Offloads::default()
        }
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        let mut train: Option<Train<'_>> = None;
        // The last flow looked up: a dump's datagrams all go one way.
        let mut known: Option<(SocketAddrV4, SocketAddrV4, usize)> = None;
        for tx in frames {
            let Some(parsed) = frame::parse(tx.bytes, tx.offload.checksum.is_some()) else {
                continue;
            };
            match parsed.content {
                Content::ArpRequest { sender, target }
                    if parsed.destination == BROADCAST || parsed.destination == WIRE_MAC =>
                {
                    self.answer_arp(parsed.source, sender, target);
                }
                Content::Udp { from, to, payload } if parsed.destination == WIRE_MAC => {
                    let flow = match known {
                        Some((known_from, known_to, flow)) if known_from == from && known_to == to => flow,
                        _ => {
                            // Making room for a flow moves the others, so what waits leaves first.
                            if let Some(train) = train.take() {
                                self.send_train(&train);
                            }
                            let Some(flow) = self.flow_for(parsed.source, from, to) else {
                                continue;
                            };
                            known = Some((from, to, flow));
                            flow
                        }
                    };
                    for part in Part::all(payload, tx.offload.segmentation) {
                        if train.as_mut().is_some_and(|train| train.push(flow, to, part)) {
                            continue;
                        }
                        if let Some(full) = train.replace(Train::new(flow, to, part)) {
                            self.send_train(&full);
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(train) = train {
            self.send_train(&train);
        }
    }
}

impl Wire for UserWire {
    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<usize, WireError> {
        let mut count = 0;
        while let Some(reply) = self.inbox.pop_front() {
            deliver(&reply);
            count += 1;
        }
        for index in 0..self.flows.len() {
            count += self.receive_from_flow(index, deliver);
        }
        Ok(count)
    }

    fn wait(&self, timeout: Duration) -> Result<(), WireError> {
        if !self.inbox.is_empty() {
            return Ok(());
        }
        wait_for(self.epoll.as_fd(), PollFlags::POLLIN, timeout)
            .map(drop)
            .map_err(|errno| WireError::lost("user", format!("cannot wait on its sockets: {errno}")))
    }

    fn name(&self) -> String {
        "user".to_owned()
    }

    fn mtu_max(&self) -> u16 {
        MTU_JUMBO
    }

    fn mtu_towards(&self, server: Ipv4Addr) -> u16 {
        let route_mtu = probe(SocketAddrV4::new(server, 9)).map_or(MTU_ETHERNET, |(_, mtu)| mtu);
        // Only the loopback interface has more than jumbo frames. Beyond any other one, a link may carry less than the
        // first, and nobody hears it say so.
        if route_mtu > MTU_JUMBO {
            MTU_ONE_PAGE
        } else {
            route_mtu.clamp(MTU_MIN, MTU_ETHERNET)
        }
    }

    fn hint(&self) -> Option<String> {
        self.hint.as_ref().map(|(_, why)| why.clone())
    }
}

impl AsFd for UserWire {
    /// Readable when a host socket has something; answers to ARP are there right after the send that asked.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl fmt::Display for UserWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("user")
    }
}

impl fmt::Debug for UserWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserWire")
            .field("config", &self.config)
            .field("flows", &self.flows)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]
mod tests;
