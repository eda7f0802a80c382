//! Many datagrams by one call: trains of datagrams of one size (udp(7), UDP_SEGMENT and UDP_GRO).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::UdpGroSegment;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::limits::{BATCH_DATAGRAMS, TRAIN_BYTES_MAX};

/// A datagram of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// Its length in bytes.
    pub len: usize,
}

/// Lets datagrams that came together be handed out together; a kernel without that hands them out one by one.
pub fn accept_trains(socket: &UdpSocket) {
    let _ = setsockopt(socket, UdpGroSegment, &true);
}

/// Waits until something can be received, at most for `patience`.
///
/// # Errors
/// What poll(2) says.
pub fn wait(socket: &UdpSocket, patience: Duration) -> io::Result<()> {
    wait_any(socket, None, patience)
}

/// The same, or until `wake` is readable.
pub(crate) fn wait_any(socket: &UdpSocket, wake: Option<BorrowedFd<'_>>, patience: Duration) -> io::Result<()> {
    let mut watched = vec![PollFd::new(socket, PollFlags::IN)];
    watched.extend(wake.map(|wake| PollFd::from_borrowed_fd(wake, PollFlags::IN)));
    let patience = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(&mut watched, Some(&patience)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// Datagrams that were received at once, one behind the other.
#[derive(Debug, Clone, Copy)]
struct Train {
    /// Who sent them.
    from: SocketAddrV4,
    /// Length of all.
    len: usize,
    /// Length of each but the last, at least 1.
    segment_len: usize,
    /// Datagrams that the kernel had dropped before.
    dropped: Option<u32>,
}

/// Takes the datagrams that are there, one behind the other in `buffer`, and never waits. Looks a bounded number of
/// times: whoever floods the socket with empty datagrams does not keep the caller here. There is to be room for a train of
/// [`TRAIN_BYTES_MAX`] bytes. That a port was unreachable for a moment is no error: the peer's own time-outs decide.
///
/// # Errors
/// What recvmsg(2) says, if it is no error that passes.
pub fn receive_batch(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Vec<Datagram>> {
    receive_batch_counting(socket, buffer, &mut 0)
}

/// The same; `dropped` becomes what the kernel says that it dropped of this socket so far (SO_RXQ_OVFL, socket(7)), if it
/// says anything.
pub(crate) fn receive_batch_counting(
    socket: &UdpSocket,
    buffer: &mut [u8],
    dropped: &mut u32,
) -> io::Result<Vec<Datagram>> {
    let mut datagrams = Vec::with_capacity(BATCH_DATAGRAMS);
    let mut at = 0;
    for _ in 0..BATCH_DATAGRAMS {
        let room = buffer.get_mut(at..).filter(|room| room.len() >= TRAIN_BYTES_MAX);
        let Some(room) = room.filter(|_| datagrams.len() < BATCH_DATAGRAMS) else {
            break;
        };
        let Some(train) = receive(socket, room)? else {
            break;
        };
        *dropped = train.dropped.unwrap_or(*dropped);
        let mut rest = train.len;
        while rest > 0 {
            let len = rest.min(train.segment_len);
            datagrams.push(Datagram { from: train.from, len });
            rest -= len;
        }
        at += train.len;
    }
    Ok(datagrams)
}

/// The next datagrams of one sender, if there are any.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Train>> {
    let mut control = nix::cmsg_space!(i32, u32);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = match recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_DONTWAIT)
    {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    let (mut segment_len, mut dropped) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::UdpGroSegments(len) => segment_len = usize::try_from(len).ok().filter(|len| *len > 0),
            ControlMessageOwned::RxqOvfl(count) => dropped = Some(count),
            _ => {}
        }
    }
    Ok(message.address.map(|from| Train {
        from: SocketAddrV4::new(from.ip(), from.port()),
        len: message.bytes,
        segment_len: segment_len.unwrap_or(message.bytes).max(1),
        dropped,
    }))
}

/// Sends datagrams of one size, many by one call where the way allows it.
#[derive(Debug)]
pub struct TrainSender {
    /// False once the way turned out not to allow it.
    joined: bool,
}

impl Default for TrainSender {
    fn default() -> Self {
        Self::new()
    }
}

impl TrainSender {
    /// Joins datagrams until the way turns out not to allow it.
    #[must_use]
    pub fn new() -> Self {
        Self { joined: true }
    }

    /// Sends `bytes` in datagrams of `segment_len` each, of which the last may be shorter: at most 64 (UDP_MAX_SEGMENTS)
    /// and 65 507 bytes in all. They go to `to`, or where the socket is connected to. What cannot be sent for the moment
    /// is dropped: the protocol repeats it.
    ///
    /// # Errors
    /// What sendmsg(2) says, if it is no error that passes.
    pub fn send(
        &mut self,
        socket: &UdpSocket,
        to: Option<SocketAddrV4>,
        bytes: &[u8],
        segment_len: u16,
    ) -> io::Result<()> {
        let to = to.map(SockaddrIn::from);
        self.send_by(bytes, segment_len, |bytes, joined| {
            let iov = [IoSlice::new(bytes)];
            let control = [ControlMessage::UdpGsoSegments(&segment_len)];
            let control = if joined { &control[..] } else { &[] };
            sendmsg(socket.as_raw_fd(), &iov, control, MsgFlags::empty(), to.as_ref()).map(drop)
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

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
            TrainSender { joined }.send(&near, None, b"onetwosix", 3).unwrap();
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
        accept_trains(&near);
        for _ in 0..BATCH_DATAGRAMS {
            far.send_to(&[], near.local_addr().unwrap()).unwrap();
        }
        far.send_to(b"data", near.local_addr().unwrap()).unwrap();
        let mut buffer = vec![0; 2 * TRAIN_BYTES_MAX];
        assert_eq!(receive_batch(&near, &mut buffer).unwrap(), []);
        let SocketAddr::V4(from) = far.local_addr().unwrap() else {
            panic!("an IPv4 socket")
        };
        assert_eq!(receive_batch(&near, &mut buffer).unwrap(), [Datagram { from, len: 4 }]);
        assert_eq!(&buffer[..4], b"data");
    }

    #[test]
    fn a_train_arrives_as_its_datagrams_with_their_sender() {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        accept_trains(&far);
        let address = |socket: &UdpSocket| match socket.local_addr().unwrap() {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => panic!("an IPv4 socket"),
        };
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        TrainSender::new()
            .send(&near, Some(address(&far)), &bytes, 100)
            .unwrap();
        wait(&far, Duration::from_secs(10)).unwrap();
        let mut buffer = vec![0; 2 * TRAIN_BYTES_MAX];
        let got = receive_batch(&far, &mut buffer).unwrap();
        assert_eq!(
            got.iter().map(|datagram| datagram.len).collect::<Vec<_>>(),
            [100, 100, 56]
        );
        assert!(got.iter().all(|datagram| datagram.from == address(&near)));
        assert_eq!(&buffer[..256], bytes);
    }
}
