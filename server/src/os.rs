//! The calls that are Linux's own, so that another system can follow in one place.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, RcvBuf, RcvBufForce, UdpGroSegment};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, send, sendmsg, setsockopt};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::limits::SOCKET_BUFFER_BYTES;

/// A datagram that came in on a socket made by [`herald_socket`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    /// Its length.
    pub(crate) len: usize,
    /// Who sent it.
    pub(crate) peer: SocketAddrV4,
    /// The address that the peer dialled.
    pub(crate) dialled: Ipv4Addr,
}

/// A socket that tells which of the host's addresses a peer dialled (ip(7), IP_PKTINFO).
pub(crate) fn herald_socket(listen: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(listen)?;
    setsockopt(&socket, Ipv4PacketInfo, &true)?;
    enlarge_buffer(&socket);
    Ok(socket)
}

/// Waits for a datagram as long as the socket's read time-out says; none when nothing came.
pub(crate) fn receive_with_destination(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Arrived>> {
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo);
    let mut iov = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty());
    let message = match received {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    let destination = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())),
        _ => None,
    });
    let (Some(peer), Some(dialled)) = (message.address, destination) else {
        return Ok(None);
    };
    Ok(Some(Arrived {
        len: message.bytes,
        peer: SocketAddrV4::new(peer.ip(), peer.port()),
        dialled,
    }))
}

/// Makes ready the socket of a session: a large buffer, and datagrams of one size handed out together (udp(7), UDP_GRO;
/// a kernel without it hands them out one by one).
pub(crate) fn prepare_session_socket(socket: &UdpSocket) -> io::Result<()> {
    enlarge_buffer(socket);
    let _ = setsockopt(socket, UdpGroSegment, &true);
    socket.set_nonblocking(true)
}

/// Waits until something can be received, at most for `patience`.
pub(crate) fn wait(socket: &UdpSocket, patience: Duration) -> io::Result<()> {
    let mut watched = [PollFd::new(socket, PollFlags::IN)];
    let patience = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(&mut watched, Some(&patience)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// Datagrams that were received at once, one behind the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Train {
    /// Length of all.
    pub(crate) len: usize,
    /// Length of each but the last.
    pub(crate) segment_len: usize,
}

/// The next datagrams of a connected socket, if there are any. That a port was unreachable for a moment is no error: the peer's own time-outs decide (udp(7)).
pub(crate) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Train>> {
    let mut control = nix::cmsg_space!(i32);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty()) {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    let segment_len = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(len) => usize::try_from(len).ok().filter(|len| *len > 0),
        _ => None,
    });
    Ok(Some(Train {
        len: message.bytes,
        segment_len: segment_len.unwrap_or(message.bytes).max(1),
    }))
}

/// Sends `bytes` in datagrams of `segment_len` each, by one call where the way allows it (udp(7), UDP_SEGMENT).
/// `in_one_call` becomes false where it does not; datagrams that cannot be sent for the moment are dropped, because
/// their sender asks again.
pub(crate) fn send_segments(
    socket: &UdpSocket,
    bytes: &[u8],
    segment_len: u16,
    in_one_call: &mut bool,
) -> io::Result<()> {
    let each = usize::from(segment_len);
    if *in_one_call && bytes.len() > each {
        let iov = [IoSlice::new(bytes)];
        let control = [ControlMessage::UdpGsoSegments(&segment_len)];
        match sendmsg::<()>(socket.as_raw_fd(), &iov, &control, MsgFlags::empty(), None) {
            Ok(_) => return Ok(()),
            Err(why) if is_passing(why) => return Ok(()),
            // The interface cannot make checksums, or the kernel is old.
            Err(_) => *in_one_call = false,
        }
    }
    for datagram in bytes.chunks(each.max(1)) {
        match send(socket.as_raw_fd(), datagram, MsgFlags::empty()) {
            Ok(_) => {}
            Err(why) if is_passing(why) => {}
            Err(why) => return Err(why.into()),
        }
    }
    Ok(())
}

/// Errors of sending that pass: an ICMP message of a peer that restarts, a full queue.
fn is_passing(why: Errno) -> bool {
    matches!(
        why,
        Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EAGAIN
            | Errno::EINTR
            | Errno::ENOBUFS
            | Errno::EPERM
    )
}

/// Makes the receive buffer as large as this process may; `SO_RCVBUFFORCE` needs CAP_NET_ADMIN (socket(7)).
fn enlarge_buffer(socket: &UdpSocket) {
    if setsockopt(socket, RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        let _ = setsockopt(socket, RcvBuf, &SOCKET_BUFFER_BYTES);
    }
}
