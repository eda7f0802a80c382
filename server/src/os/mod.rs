//! The calls that are Linux's own, so that another system can follow in one place.

pub mod trains;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, RcvBuf, RcvBufForce, ReusePort, RxqOvfl};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::limits::{LISTENING_BUFFER_BYTES, SOCKET_BUFFER_BYTES};

/// A datagram that came in on a socket made by [`listening_socket`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    /// Its length.
    pub(crate) len: usize,
    /// Who sent it.
    pub(crate) peer: SocketAddrV4,
    /// The address that the peer dialled.
    pub(crate) dialled: Ipv4Addr,
    /// How many datagrams the kernel has dropped of this socket before it, if any (SO_RXQ_OVFL, socket(7)).
    pub(crate) dropped: u32,
}

/// A socket that tells which of the host's addresses a peer dialled (ip(7), IP_PKTINFO), and that never blocks.
///
/// It is bound alone, so that a port that is taken is an error, and lets [`session_socket`]s of this user onto its port
/// afterwards.
pub(crate) fn listening_socket(listen: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(listen)?;
    setsockopt(&socket, ReusePort, &true)?;
    setsockopt(&socket, Ipv4PacketInfo, &true)?;
    let _ = setsockopt(&socket, RxqOvfl, &1);
    enlarge_buffer(&socket, LISTENING_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Takes a datagram that is there; none when nothing is.
pub(crate) fn receive_with_destination(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Arrived>> {
    let mut control = nix::cmsg_space!(libc::in_pktinfo, u32);
    let mut iov = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_DONTWAIT);
    let message = match received {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    let (mut dialled, mut dropped) = (Ipv4Addr::UNSPECIFIED, 0);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => dialled = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()),
            ControlMessageOwned::RxqOvfl(count) => dropped = count,
            _ => {}
        }
    }
    // A datagram without a sender is one that nobody can be answered about; the caller drops what it cannot read.
    let peer = message
        .address
        .map_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), |peer| {
            SocketAddrV4::new(peer.ip(), peer.port())
        });
    Ok(Some(Arrived {
        len: message.bytes,
        peer,
        dialled,
        dropped,
    }))
}

/// Sends a datagram from this very address of the host (ip(7), IP_PKTINFO). What cannot be sent is dropped: the peer
/// repeats what it is not answered.
pub(crate) fn send_from(socket: &UdpSocket, from: Ipv4Addr, to: SocketAddrV4, bytes: &[u8]) {
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(from.octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let (iov, to) = ([IoSlice::new(bytes)], SockaddrIn::from(to));
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    let send = || sendmsg(socket.as_raw_fd(), &iov, &control, MsgFlags::MSG_DONTWAIT, Some(&to));
    // The first call may only tell of an ICMP message that answered an earlier datagram.
    let _ = send().or_else(|_| send());
}

/// A socket for one sender: bound to `local`, connected to `peer`, with a large buffer and trains of datagrams. With
/// `shares_port` it may have the port of a [`listening_socket`], and gets from then on what `peer` sends to it.
pub(crate) fn session_socket(local: SocketAddrV4, peer: SocketAddrV4, shares_port: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    if shares_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&local.into())?;
    socket.connect(&peer.into())?;
    let socket = UdpSocket::from(socket);
    let _ = setsockopt(&socket, RxqOvfl, &1);
    enlarge_buffer(&socket, SOCKET_BUFFER_BYTES);
    trains::accept_trains(&socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether something can be read from `fd`, or its other end is closed; waits for so long.
pub(crate) fn is_readable(fd: &impl AsFd, patience: Duration) -> io::Result<bool> {
    let patience = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(why) => Err(why.into()),
    }
}

/// Bounds this process before it reads what is hostile: address space in bytes, time on a CPU, no core, no file of its own. A
/// standard output that is a file may grow by `printed_bytes`: more ends the process, as a file of its own would (setrlimit(2)).
///
/// # Errors
/// The system's.
pub fn confine(memory_bytes: u64, cpu_s: u64, printed_bytes: u64) -> io::Result<()> {
    let stdout = rustix::fs::fstat(io::stdout())?;
    let is_file = rustix::fs::FileType::from_raw_mode(stdout.st_mode).is_file();
    let len_bytes = u64::try_from(stdout.st_size).unwrap_or_default();
    let file_bytes = if is_file {
        len_bytes.saturating_add(printed_bytes)
    } else {
        0
    };
    for (resource, most) in [
        (Resource::As, memory_bytes),
        (Resource::Cpu, cpu_s),
        (Resource::Core, 0),
        (Resource::Fsize, file_bytes),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Processor time of the calling thread so far.
pub(crate) fn cpu_time() -> Duration {
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or_default();
    // It fails for other threads only (getrusage(2)).
    let usage = getrusage(UsageWho::RUSAGE_THREAD);
    usage.map_or(Duration::MAX, |usage| {
        Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
    })
}

/// Lets this process open as many files as the host allows it: a session has about six.
pub(crate) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Makes the receive buffer as large as this process may; `SO_RCVBUFFORCE` needs CAP_NET_ADMIN (socket(7)).
fn enlarge_buffer(socket: &UdpSocket, bytes: usize) {
    if setsockopt(socket, RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, RcvBuf, &bytes);
    }
}
