//! The calls that are Linux's own, so that another system can follow in one place.

pub mod trains;

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, RcvBuf, RcvBufForce};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};

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

/// Makes ready the socket of a session: a large buffer, and trains of datagrams.
pub(crate) fn prepare_session_socket(socket: &UdpSocket) -> io::Result<()> {
    enlarge_buffer(socket);
    trains::accept_trains(socket);
    socket.set_nonblocking(true)
}

/// Makes the receive buffer as large as this process may; `SO_RCVBUFFORCE` needs CAP_NET_ADMIN (socket(7)).
fn enlarge_buffer(socket: &UdpSocket) {
    if setsockopt(socket, RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        let _ = setsockopt(socket, RcvBuf, &SOCKET_BUFFER_BYTES);
    }
}
