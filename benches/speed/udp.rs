//! What loopback can do at all: two sockets, two threads, and nothing behind them.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt, sockopt};

use crate::Size;
use crate::floor::TwoBuffers;
use crate::table::{self, Case, Sample};

/// How packets go.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Data bytes of a packet; the header of netdump comes on top.
    data_len: usize,
    /// Packets not yet answered.
    window: usize,
    /// A window leaves in one call (`UDP_SEGMENT`, udp(7)).
    gso: bool,
    /// What comes together is taken and answered in one call (`UDP_GRO`, udp(7)).
    gro: bool,
}

/// Bytes of a netdump header.
const HEADER_LEN: usize = netdump::wire::HEADER_LEN;
/// Bytes of an answer.
const ANSWER_LEN: u16 = 4;
/// Datagrams of one call at most (udp(7), `UDP_MAX_SEGMENTS`), and bytes.
const TRAIN_PACKETS_MAX: usize = 64;
const TRAIN_BYTES_MAX: usize = 65_507;

/// Runs the group.
pub(crate) fn run(size: Size) -> Result<()> {
    let bytes = size.sent_mib << 20;
    let mut cases = vec![TwoBuffers::new(bytes)?.case()];
    for (mtu, data_len, window) in [(1500, 1448, 45), (4148, 4096, 16)] {
        for (gso, gro, calls) in [
            (false, false, "a call a packet"),
            (true, false, "GSO"),
            (true, true, "GSO, GRO, answers in one call"),
        ] {
            let way = Way {
                data_len,
                window,
                gso,
                gro,
            };
            let name = format!("UDP, MTU {mtu}, 64 KiB, {calls}");
            let limit = "system calls, waking each other";
            cases.push(Case::new(name, limit, move || way.measure(bytes)));
        }
    }
    let wide = Way {
        data_len: 4096,
        window: 128,
        gso: true,
        gro: true,
    };
    let limit = "copies in the kernel: what a larger window would give";
    cases.push(Case::new("UDP, MTU 4148, 512 KiB, GSO, GRO", limit, move || {
        wide.measure(bytes)
    }));
    table::run("UDP on loopback, every packet answered, nothing behind it", size, cases)
}

impl Way {
    /// Sends so many data bytes from one thread to another.
    fn measure(self, bytes: u64) -> Result<Sample> {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        near.connect(far.local_addr()?)?;
        far.connect(near.local_addr()?)?;
        for socket in [&near, &far] {
            socket2::SockRef::from(socket).set_recv_buffer_size(4 << 20)?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        }
        if self.gro {
            setsockopt(&far, sockopt::UdpGroSegment, &true)?;
        }
        let over = AtomicBool::new(false);
        let packets = usize::try_from(bytes)? / self.data_len;
        let took = std::thread::scope(|scope| {
            let answering = scope.spawn(|| self.answer(&far, &over));
            let took = self.send(&near, packets);
            over.store(true, Ordering::Relaxed);
            let answered = answering.join();
            ensure!(
                matches!(answered, Ok(Ok(()))),
                "the answering side failed: {answered:?}"
            );
            took
        })?;
        Ok(Sample {
            bytes: (packets * self.data_len) as u64,
            took,
        })
    }

    fn send(self, socket: &UdpSocket, packets: usize) -> Result<Duration> {
        let data = vec![0x5a; TRAIN_BYTES_MAX];
        let len = HEADER_LEN + self.data_len;
        let train_max = if self.gso {
            TRAIN_PACKETS_MAX.min(TRAIN_BYTES_MAX / len)
        } else {
            1
        };
        let (mut sent, mut answered) = (0, 0);
        let mut answer = [0; 64];
        let start = Instant::now();
        while answered < packets {
            while sent < packets && sent - answered < self.window {
                let train = train_max.min(packets - sent).min(self.window - (sent - answered));
                send_train(socket, data.get(..train * len).unwrap_or_default(), u16::try_from(len)?)?;
                sent += train;
            }
            let mut flags = MsgFlags::empty();
            loop {
                match nix::sys::socket::recv(socket.as_raw_fd(), &mut answer, flags) {
                    Ok(_) => answered += 1,
                    Err(Errno::EAGAIN) if flags.is_empty() => {
                        // A loss, which loopback has only when its buffers are small: what is missing goes again.
                        sent = answered;
                        break;
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(why) => return Err(why.into()),
                }
                flags = MsgFlags::MSG_DONTWAIT;
            }
            // Answers that were taken for lost and come late count, too.
            sent = sent.max(answered);
        }
        Ok(start.elapsed())
    }

    /// Answers every packet until it is over.
    fn answer(self, socket: &UdpSocket, over: &AtomicBool) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let answers = [0; ANSWER_LEN as usize * TRAIN_PACKETS_MAX];
        while !over.load(Ordering::Relaxed) {
            let (len, segment_len) = match receive(socket, &mut buffer) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => continue,
                Err(why) => return Err(why.into()),
            };
            let packets = len.div_ceil(segment_len.max(1)).min(TRAIN_PACKETS_MAX);
            let answers = answers.get(..packets * usize::from(ANSWER_LEN)).unwrap_or_default();
            send_train(socket, answers, ANSWER_LEN)?;
        }
        Ok(())
    }
}

/// Bytes that came in one call, and of how many each datagram of them is.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Result<(usize, usize), Errno> {
    let mut control = nix::cmsg_space!(i32);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let segment_len = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(len) => usize::try_from(len).ok(),
        _ => None,
    });
    Ok((message.bytes, segment_len.unwrap_or(message.bytes)))
}

/// Sends bytes as datagrams of one length in one call.
fn send_train(socket: &UdpSocket, bytes: &[u8], segment_len: u16) -> Result<(), Errno> {
    let one = [ControlMessage::UdpGsoSegments(&segment_len)];
    let control: &[ControlMessage<'_>] = if bytes.len() > usize::from(segment_len) {
        &one
    } else {
        &[]
    };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        MsgFlags::empty(),
        None,
    )
    .map(drop)
}
