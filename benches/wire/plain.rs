//! What a UDP socket can do with the same packets and the same window, and nothing around it.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use netdump::wire::HEADER_LEN;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::{Sample, cpu};

/// Bytes in flight, as the dump port has them.
const WINDOW_BYTES: usize = 64 << 10;
/// Headers of IPv4 and UDP.
const IP_UDP_LEN: usize = 28;
/// Data bytes of a packet that stock receivers take at most.
const DATA_LEN_MAX: usize = 4096;
/// Datagrams of one call at most, and bytes (udp(7)).
const TRAIN_PACKETS_MAX: usize = 64;
const TRAIN_BYTES_MAX: usize = 65_507;
const VMCORE: u32 = 3;

/// Sends the bytes as packets of a core, each answered.
pub(crate) fn send(to: SocketAddrV4, bytes: &[u8], mtu: u16, segmented: bool) -> Result<Sample> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let data_len = DATA_LEN_MAX.min(usize::from(mtu) - IP_UDP_LEN - HEADER_LEN);
    let pieces: Vec<&[u8]> = bytes.chunks(data_len).collect();
    let window = (WINDOW_BYTES / data_len).min(TRAIN_PACKETS_MAX);
    let train_max = match segmented {
        true => TRAIN_PACKETS_MAX.min(TRAIN_BYTES_MAX / (HEADER_LEN + data_len)),
        false => 1,
    };
    let (start, before) = (Instant::now(), cpu::of_this_thread());
    let (mut sent, mut answered) = (0, 0);
    while answered < pieces.len() {
        let room = window - (sent - answered);
        if room >= window / 2 {
            let until = pieces.len().min(sent + room);
            while sent < until {
                let train = pieces.get(sent..until.min(sent + train_max)).unwrap_or_default();
                send_train(&socket, train, sent, data_len)?;
                sent += train.len();
            }
        }
        answered += answers(&socket)?;
    }
    Ok(Sample {
        bytes: bytes.len() as u64,
        took: start.elapsed(),
        sender_cpu: cpu::of_this_thread().saturating_sub(before),
        ..Sample::default()
    })
}

/// Sends packets in one call; the first of them is the one of this number.
fn send_train(socket: &UdpSocket, pieces: &[&[u8]], first: usize, data_len: usize) -> Result<()> {
    let head = |(index, piece): (usize, &&[u8])| {
        let number = first + index;
        let mut head = [0; HEADER_LEN];
        head[..4].copy_from_slice(&VMCORE.to_be_bytes());
        head[4..8].copy_from_slice(&u32::try_from(number).unwrap_or(0).to_be_bytes());
        head[8..16].copy_from_slice(&((number * data_len) as u64).to_be_bytes());
        head[16..20].copy_from_slice(&u32::try_from(piece.len()).unwrap_or(0).to_be_bytes());
        head
    };
    let heads: Vec<[u8; HEADER_LEN]> = pieces.iter().enumerate().map(head).collect();
    let slices: Vec<IoSlice<'_>> = heads
        .iter()
        .zip(pieces)
        .flat_map(|(head, piece)| [IoSlice::new(head), IoSlice::new(piece)])
        .collect();
    let segment_len = u16::try_from(HEADER_LEN + data_len)?;
    let one = [ControlMessage::UdpGsoSegments(&segment_len)];
    let control: &[ControlMessage<'_>] = if pieces.len() > 1 { &one } else { &[] };
    sendmsg::<()>(socket.as_raw_fd(), &slices, control, MsgFlags::empty(), None)?;
    Ok(())
}

/// Waits for an answer, and counts all that are there.
fn answers(socket: &UdpSocket) -> Result<usize> {
    let mut answer = [0; 64];
    socket
        .recv(&mut answer)
        .context("no answer within 10 s: a packet was lost")?;
    let mut count = 1;
    loop {
        match nix::sys::socket::recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => count += 1,
            Err(Errno::EAGAIN) => return Ok(count),
            Err(why) => return Err(why.into()),
        }
    }
}
