//! The least that a receiver can do and still prove what it got: takes packets, many by one call, keeps their bytes where
//! they belong, and answers each.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use netdump::wire::{Header, Kind};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};

use crate::cpu;

/// Bytes of an answer.
const ANSWER_LEN: u16 = 4;

/// A sink at work.
pub(crate) struct Sink {
    address: SocketAddrV4,
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<(Vec<u8>, Duration)>>,
}

impl Sink {
    /// Starts one for a file of so many bytes.
    pub(crate) fn start(file_len: usize) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = socket.local_addr()?.port();
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20));
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let before = cpu::of_this_thread();
            let mut file = vec![0; file_len];
            let mut buffer = vec![0; 1 << 16];
            while !until.load(Ordering::Relaxed) {
                take(&socket, &mut buffer, &mut file)?;
            }
            Ok((file, cpu::of_this_thread().saturating_sub(before)))
        });
        Ok(Self {
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            over,
            thread,
        })
    }

    /// Where it is, on loopback.
    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Ends it; it must have got exactly this file. Returns its processor time.
    pub(crate) fn expect(self, file: &[u8]) -> Result<Duration> {
        self.over.store(true, Ordering::Relaxed);
        let (got, cpu) = self.thread.join().map_err(|_| anyhow!("the sink panicked"))??;
        ensure!(got == file, "what arrived is not what was sent");
        Ok(cpu)
    }
}

/// Takes what is there, and answers it.
fn take(socket: &UdpSocket, buffer: &mut [u8], file: &mut [u8]) -> Result<()> {
    let (len, segment_len, from) = match receive(socket, buffer) {
        Ok(received) => received,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
        Err(why) => return Err(why.into()),
    };
    let mut answers = Vec::with_capacity(64 * usize::from(ANSWER_LEN));
    for packet in buffer.get(..len).unwrap_or_default().chunks(segment_len.max(1)) {
        let Ok((header, data)) = Header::parse(packet) else {
            continue;
        };
        if header.kind == Kind::Vmcore {
            let at = usize::try_from(header.offset)?;
            let room = file
                .get_mut(at..at + data.len())
                .ok_or_else(|| anyhow!("data beyond the file"))?;
            room.copy_from_slice(data);
        }
        answers.extend(header.seqno.0.to_be_bytes());
    }
    let one = [ControlMessage::UdpGsoSegments(&ANSWER_LEN)];
    let control: &[ControlMessage<'_>] = if answers.len() > usize::from(ANSWER_LEN) {
        &one
    } else {
        &[]
    };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(&answers)],
        control,
        MsgFlags::empty(),
        from.as_ref(),
    )?;
    Ok(())
}

/// Bytes that came in one call, of how many each datagram of them is, and from whom.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Result<(usize, usize, Option<SockaddrIn>), Errno> {
    let mut control = nix::cmsg_space!(i32);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let segment_len = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(len) => usize::try_from(len).ok(),
        _ => None,
    });
    Ok((message.bytes, segment_len.unwrap_or(message.bytes), message.address))
}
