//! One UDP flow of the client: a host socket that stands for the client's address and port.

use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, recvmsg, sendmmsg, sendmsg,
    setsockopt, sockopt,
};
use rustix::event::epoll;

use super::UserConfig;
use super::train::Train;
use crate::net::frame::Mac;
use crate::net::limits::{FRAME_LEN_MAX, RECEIVE_BATCH, SOCKET_BUFFER_LEN};
use crate::net::wait::wait_for;

/// What is wrong with a destination: its address and the end of a sentence.
pub(super) type Refusal = (Ipv4Addr, String);

/// A host socket for one port of the client.
#[derive(Debug)]
pub(super) struct Flow {
    /// The client's own address and port.
    pub(super) client: SocketAddrV4,
    /// The client's Ethernet address.
    pub(super) client_mac: Mac,
    /// The address of this host that the socket is bound to.
    pub(super) local_ip: Ipv4Addr,
    socket: UdpSocket,
    /// How long one send may wait for room.
    send_wait: Duration,
    /// The kernel takes trains (`UDP_SEGMENT`) on this route.
    gso: bool,
    /// The kernel spoke of an error that waits in the error queue.
    error_waits: Cell<bool>,
}

/// Room for one batch of datagrams.
#[derive(Debug)]
pub(super) struct ReceiveBuffers(Vec<Vec<u8>>);

impl Default for ReceiveBuffers {
    fn default() -> Self {
        Self(vec![vec![0; FRAME_LEN_MAX]; RECEIVE_BATCH])
    }
}

impl Flow {
    /// Binds a socket for `client` on `local_ip`, to the client's port if it may have it and it is free, and adds it to the
    /// epoll set.
    pub(super) fn open(
        config: UserConfig,
        client_mac: Mac,
        client: SocketAddrV4,
        local_ip: Ipv4Addr,
        epoll: BorrowedFd<'_>,
    ) -> Result<Self, String> {
        let socket = bind(local_ip, config.host_port(client.port()))?;
        let prepared = (|| -> io::Result<()> {
            socket.set_nonblocking(true)?;
            // Errors that ICMP brings, with the destination they are about (ip(7), IP_RECVERR).
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            // Advice only: the kernel caps it (socket(7), net.core.rmem_max).
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_LEN);
            let _ = socket2::SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER_LEN);
            epoll::add(epoll, &socket, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
            Ok(())
        })();
        prepared.map_err(|error| format!("cannot set up a socket on {local_ip}: {error}"))?;
        Ok(Self {
            client,
            client_mac,
            local_ip,
            socket,
            send_wait: config.send_wait,
            gso: true,
            error_waits: Cell::new(false),
        })
    }

    /// What the receiver sees as the client's address.
    pub(super) fn bound_address(&self) -> Option<SocketAddrV4> {
        match self.socket.local_addr() {
            Ok(SocketAddr::V4(address)) => Some(address),
            _ => None,
        }
    }

    /// Sends a train, in one call where the kernel can.
    ///
    /// # Errors
    /// Why nothing or not all left; `None` when a queue of the host is full.
    pub(super) fn send(&mut self, train: &Train<'_>) -> Result<(), Option<Refusal>> {
        let to = train.to;
        if self.gso && train.count() > 1 {
            match self.send_train(to, train.parts(), train.segment_len()) {
                Ok(()) => return Ok(()),
                // No checksum offload on that device, segments above the route's MTU, or an old kernel: one by one.
                Err(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => {
                    self.gso = false;
                }
                Err(errno) => return Err(self.explain(to, errno)),
            }
        }
        self.send_each(to, &train.datagrams())
            .map_err(|errno| self.explain(to, errno))
    }

    fn send_train(&self, to: SocketAddrV4, payloads: &[IoSlice<'_>], segment_len: usize) -> Result<(), Errno> {
        let segment_len = u16::try_from(segment_len).map_err(|_| Errno::EMSGSIZE)?;
        let to = SockaddrIn::from(to);
        let segments = [ControlMessage::UdpGsoSegments(&segment_len)];
        self.retrying(|| {
            sendmsg(
                self.socket.as_raw_fd(),
                payloads,
                &segments,
                MsgFlags::MSG_DONTWAIT,
                Some(&to),
            )
            .map(|_| 1)
        })
        .map(drop)
    }

    fn send_each(&self, to: SocketAddrV4, payloads: &[IoSlice<'_>]) -> Result<(), Errno> {
        if let [one] = payloads {
            return self
                .retrying(|| self.socket.send_to(one, to).map_err(|error| errno_of(&error)))
                .map(drop);
        }
        let to = Some(SockaddrIn::from(to));
        let mut sent = 0;
        while let Some(left) = payloads.get(sent..).filter(|left| !left.is_empty()) {
            let messages: Vec<_> = left.chunks(1).collect();
            let addresses = vec![to; messages.len()];
            sent += self.retrying(|| {
                let mut headers = MultiHeaders::preallocate(messages.len(), None);
                sendmmsg(
                    self.socket.as_raw_fd(),
                    &mut headers,
                    &messages,
                    &addresses,
                    [],
                    MsgFlags::MSG_DONTWAIT,
                )
                .map(Iterator::count)
            })?;
        }
        Ok(())
    }

    /// Runs a send again after a short wait for room, where the wire may wait, and once after an error of an *earlier* datagram, which the
    /// kernel reports here (ip(7), IP_RECVERR).
    fn retrying(&self, mut send: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
        let mut result = send();
        for _ in 0..2 {
            match result {
                Err(Errno::EAGAIN) if !self.send_wait.is_zero() => {
                    let _ = wait_for(self.socket.as_fd(), PollFlags::POLLOUT, self.send_wait);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => self.error_waits.set(true),
                other => return other,
            }
            result = send();
        }
        result
    }

    /// What an error says about the destination; a full queue only loses frames, as a switch would.
    fn explain(&self, to: SocketAddrV4, errno: Errno) -> Option<Refusal> {
        match errno {
            Errno::EAGAIN | Errno::ENOBUFS => None,
            Errno::EPERM => Some((
                *to.ip(),
                format!("a firewall of this host forbids UDP from {} to {to}", self.local_ip),
            )),
            _ => Some((*to.ip(), refusal_text(to, errno))),
        }
    }

    /// Hands over at most a batch of datagrams with their senders; an error is what ICMP reported.
    pub(super) fn receive(
        &mut self,
        buffers: &mut ReceiveBuffers,
        deliver: &mut dyn FnMut(SocketAddrV4, &[u8]),
    ) -> Result<(), Refusal> {
        let mut arrived = Vec::with_capacity(RECEIVE_BATCH);
        let outcome = {
            let mut slices: Vec<_> = buffers.0.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            let mut headers = MultiHeaders::<SockaddrIn>::preallocate(slices.len(), None);
            recvmmsg(
                self.socket.as_raw_fd(),
                &mut headers,
                slices.iter_mut(),
                MsgFlags::MSG_DONTWAIT,
                None,
            )
            .map(|messages| {
                arrived.extend(messages.map(|message| {
                    let whole = !message.flags.contains(MsgFlags::MSG_TRUNC);
                    (message.address.filter(|_| whole), message.bytes)
                }));
            })
        };
        for ((from, len_bytes), buffer) in arrived.into_iter().zip(&buffers.0) {
            if let (Some(from), Some(payload)) = (from, buffer.get(..len_bytes)) {
                deliver(SocketAddrV4::from(from), payload);
            }
        }
        match outcome {
            Ok(()) => Ok(()),
            Err(Errno::EAGAIN) if !self.error_waits.get() => Ok(()),
            // Until it is fetched, an error makes the socket readable.
            Err(_) => self.take_reported_error().map_or(Ok(()), Err),
        }
    }

    /// Empties the socket's error queue; the last error and the destination it is about.
    fn take_reported_error(&self) -> Option<Refusal> {
        self.error_waits.set(false);
        let mut last = None;
        for _ in 0..RECEIVE_BATCH {
            let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in);
            let mut payload = [0u8; 64];
            let mut slices = [IoSliceMut::new(&mut payload)];
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            let Ok(message) = recvmsg::<SockaddrIn>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), flags)
            else {
                break;
            };
            let about = message.address.map(SocketAddrV4::from);
            let reported = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|one| match one {
                    ControlMessageOwned::Ipv4RecvErr(error, _) => i32::try_from(error.ee_errno).ok(),
                    _ => None,
                })
            });
            if let (Some(about), Some(errno)) = (about, reported) {
                // EMSGSIZE is the path's MTU, which the kernel has learned now: later datagrams are cut by it.
                if errno != libc::EMSGSIZE {
                    last = Some((*about.ip(), refusal_text(about, Errno::from_raw(errno))));
                }
            }
        }
        last
    }
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn refusal_text(to: SocketAddrV4, errno: Errno) -> String {
    match errno {
        Errno::ECONNREFUSED => format!("nothing listens on {to}"),
        Errno::EHOSTUNREACH => format!("no host answers for {}", to.ip()),
        Errno::ENETUNREACH => format!("this host has no way to {}", to.ip()),
        _ => format!("sending to {to} fails: {}", errno.desc()),
    }
}

fn bind(local_ip: Ipv4Addr, port: u16) -> Result<UdpSocket, String> {
    UdpSocket::bind((local_ip, port))
        .or_else(|_taken| UdpSocket::bind((local_ip, 0)))
        .map_err(|error| format!("cannot bind {local_ip}: {error}"))
}
