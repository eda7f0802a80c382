//! The least that a receiver of stock traffic can do: take datagrams, many by one call, and acknowledge each.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::Result;
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt};

/// Datagrams taken by one call.
const BATCH: usize = 64;
/// Kinds of messages (netdump(4)).
const FINISHED: [u8; 4] = [0, 0, 0, 2];

/// Takes one dump, and goes on until it is ended.
pub(crate) fn run(address: SocketAddrV4) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    let _ = setsockopt(&socket, RcvBuf, &(4 << 20));
    println!("ready netdump={}", socket.local_addr()?);
    let mut buffers = vec![[0_u8; 9000]; BATCH];
    let mut headers_in = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut headers_out = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    loop {
        let mut peers = Vec::with_capacity(BATCH);
        {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> =
                buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            let received = recvmmsg(
                socket.as_raw_fd(),
                &mut headers_in,
                slices.iter_mut(),
                MsgFlags::MSG_WAITFORONE,
                None,
            )?;
            peers.extend(received.map(|message| message.address));
        }
        let seqnos: Vec<[u8; 4]> = buffers
            .iter()
            .take(peers.len())
            .map(|buffer| [buffer[4], buffer[5], buffer[6], buffer[7]])
            .collect();
        let acks: Vec<[IoSlice<'_>; 1]> = seqnos.iter().map(|seqno| [IoSlice::new(seqno)]).collect();
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut headers_out,
            &acks,
            &peers,
            [],
            MsgFlags::empty(),
        )?;
        sent.for_each(drop);
        if buffers.iter().take(peers.len()).any(|buffer| buffer[..4] == FINISHED) {
            // The last acknowledgement may be lost to a caller that ends this at once: it does so after it has it.
            std::thread::park();
        }
    }
}
