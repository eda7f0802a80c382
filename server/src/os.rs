//! The calls that are Linux's own, so that another system can follow in one place.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, RcvBuf, RcvBufForce, UdpGroSegment};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::limits::{BATCH_DATAGRAMS, SOCKET_BUFFER_BYTES, TRAIN_BYTES_MAX};

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
struct Train {
    /// Length of all.
    len: usize,
    /// Length of each but the last, at least 1.
    segment_len: usize,
}

/// Takes the datagrams that are there, one behind the other, and gives the length of each. Looks a bounded number of
/// times: whoever floods the socket with empty datagrams does not keep the caller here.
pub(crate) fn receive_batch(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Vec<usize>> {
    let mut lens = Vec::with_capacity(BATCH_DATAGRAMS);
    let mut at = 0;
    for _ in 0..BATCH_DATAGRAMS {
        let room = buffer.get_mut(at..).filter(|room| room.len() >= TRAIN_BYTES_MAX);
        let Some(room) = room.filter(|_| lens.len() < BATCH_DATAGRAMS) else {
            break;
        };
        let Some(train) = receive(socket, room)? else {
            break;
        };
        lens.extend(std::iter::repeat_n(train.segment_len, train.len / train.segment_len));
        let rest = train.len % train.segment_len;
        if rest > 0 {
            lens.push(rest);
        }
        at += train.len;
    }
    Ok(lens)
}

/// The next datagrams of a connected socket, if there are any. That a port was unreachable for a moment is no error: the
/// peer's own time-outs decide (udp(7)).
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Train>> {
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

/// Sends datagrams of one size, many by one call where the way allows it (udp(7), UDP_SEGMENT).
#[derive(Debug)]
pub(crate) struct TrainSender {
    /// False once the way turned out not to allow it.
    joined: bool,
}

impl TrainSender {
    pub(crate) fn new() -> Self {
        Self { joined: true }
    }

    /// Sends `bytes` in datagrams of `segment_len` each. What cannot be sent for the moment is dropped, because its
    /// sender asks again.
    pub(crate) fn send(&mut self, socket: &UdpSocket, bytes: &[u8], segment_len: u16) -> io::Result<()> {
        self.send_by(bytes, segment_len, |bytes, joined| {
            let iov = [IoSlice::new(bytes)];
            let control = [ControlMessage::UdpGsoSegments(&segment_len)];
            let control = if joined { &control[..] } else { &[] };
            sendmsg::<()>(socket.as_raw_fd(), &iov, control, MsgFlags::empty(), None).map(drop)
        })
    }

    /// The same with a call that sends its bytes, joined or as one datagram.
    fn send_by(
        &mut self,
        bytes: &[u8],
        segment_len: u16,
        mut call: impl FnMut(&[u8], bool) -> Result<(), Errno>,
    ) -> io::Result<()> {
        let each = usize::from(segment_len).max(1);
        if self.joined && bytes.len() > each {
            match twice(|| call(bytes, true)) {
                Ok(()) => return Ok(()),
                Err(why) if forbids_joining(why) => self.joined = false,
                // Whatever it is, the datagrams may get through one by one.
                Err(_) => {}
            }
        }
        for datagram in bytes.chunks(each) {
            match twice(|| call(datagram, false)) {
                Ok(()) => {}
                Err(why) if is_passing(why) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }
}

/// Calls once more after an error that passes: an ICMP message that answered an earlier datagram is told to the next
/// call, which then sends nothing (ip(7), IP_RECVERR).
fn twice(mut call: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    match call() {
        Err(why) if is_passing(why) => call(),
        result => result,
    }
}

/// Errors that say that datagrams cannot be joined on this way: the interface cannot make checksums, the kernel is old,
/// or a datagram is longer than the path takes.
fn forbids_joining(why: Errno) -> bool {
    matches!(
        why,
        Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends three datagrams of four bytes with these answers of the system; gives the calls as (bytes, joined).
    fn calls(sender: &mut TrainSender, answers: &[Result<(), Errno>]) -> (io::Result<()>, Vec<(usize, bool)>) {
        let mut calls = Vec::new();
        let mut answers = answers.iter().copied();
        let sent = sender.send_by(&[7; 12], 4, |bytes, joined| {
            calls.push((bytes.len(), joined));
            answers.next().unwrap_or(Ok(()))
        });
        (sent, calls)
    }

    const SINGLY: [(usize, bool); 3] = [(4, false); 3];

    #[test]
    fn a_passing_error_is_followed_by_the_same_train() {
        for passing in [Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ENOBUFS, Errno::EINTR] {
            let mut sender = TrainSender::new();
            let (sent, seen) = calls(&mut sender, &[Err(passing)]);
            assert!(sent.is_ok() && sender.joined);
            assert_eq!(seen, [(12, true); 2], "{passing}");
        }
    }

    #[test]
    fn a_train_that_fails_twice_goes_singly_and_the_next_one_joined() {
        for second in [Errno::ECONNREFUSED, Errno::ENOMEM] {
            let mut sender = TrainSender::new();
            let (sent, seen) = calls(&mut sender, &[Err(Errno::ECONNREFUSED), Err(second)]);
            assert!(sent.is_ok());
            assert_eq!(seen, [&[(12, true); 2][..], &SINGLY].concat());
            assert_eq!(calls(&mut sender, &[]).1, [(12, true)]);
        }
    }

    #[test]
    fn only_a_way_that_forbids_joining_ends_it() {
        let forbidding = [
            Errno::EIO,
            Errno::EINVAL,
            Errno::EMSGSIZE,
            Errno::ENOPROTOOPT,
            Errno::EOPNOTSUPP,
        ];
        for why in forbidding {
            let mut sender = TrainSender::new();
            assert_eq!(calls(&mut sender, &[Err(why)]).1, [&[(12, true)][..], &SINGLY].concat());
            assert_eq!(calls(&mut sender, &[]).1, SINGLY, "after {why}");
        }
    }

    #[test]
    fn a_single_one_is_tried_twice_then_dropped_and_a_lasting_error_is_told() {
        let refused = Err(Errno::ECONNREFUSED);
        let mut sender = TrainSender { joined: false };
        let (sent, seen) = calls(&mut sender, &[refused, refused]);
        assert!(sent.is_ok());
        assert_eq!(seen.len(), 4);
        let (sent, seen) = calls(&mut sender, &[Err(Errno::ENODEV)]);
        assert_eq!(sent.unwrap_err().raw_os_error(), Some(Errno::ENODEV as i32));
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn a_stale_icmp_message_costs_no_datagram() {
        for joined in [true, false] {
            let near = UdpSocket::bind("127.0.0.1:0").unwrap();
            let far = UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = far.local_addr().unwrap();
            near.connect(address).unwrap();
            drop(far);
            near.send(b"to nobody").unwrap();
            let far = UdpSocket::bind(address).unwrap();
            far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            // The answer to the first datagram waits in the socket, on loopback at once.
            TrainSender { joined }.send(&near, b"onetwosix", 3).unwrap();
            for expected in [b"one", b"two", b"six"] {
                let mut got = [0; 16];
                let len = far.recv(&mut got).unwrap();
                assert_eq!(&got[..len], expected, "joined: {joined}");
            }
        }
    }

    #[test]
    fn empty_datagrams_without_end_do_not_keep_the_receiver() {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        near.connect(far.local_addr().unwrap()).unwrap();
        prepare_session_socket(&near).unwrap();
        for _ in 0..BATCH_DATAGRAMS {
            far.send_to(&[], near.local_addr().unwrap()).unwrap();
        }
        far.send_to(b"data", near.local_addr().unwrap()).unwrap();
        let mut buffer = vec![0; 2 * TRAIN_BYTES_MAX];
        assert_eq!(receive_batch(&near, &mut buffer).unwrap(), [0; 0]);
        assert_eq!(receive_batch(&near, &mut buffer).unwrap(), [4]);
        assert_eq!(&buffer[..4], b"data");
    }
}
