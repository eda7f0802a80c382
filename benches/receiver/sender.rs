//! A stock sender that never waits longer than it has to: bursts of 64 KiB, each acknowledged before the next, without the
//! half-millisecond ticks in which a kernel looks for acknowledgements (debugnet_send, sys/net/debugnet.c).

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use vmcore::kernel_header::KernelDumpHeader;

/// The port of stock clients (netdump(4)).
const CLIENT_PORT: u16 = 20_024;
const BURST_BYTES: usize = 64 * 1024;
/// IPv4, UDP and message headers.
const OVERHEAD: usize = 20 + 8 + 24;
const IN_FLIGHT_MAX: usize = 64;
const HERALD: u32 = 1;
const FINISHED: u32 = 2;
const VMCORE: u32 = 3;
const KDH: u32 = 4;

/// Sends a dump; gives the number of packets.
pub(crate) fn dump(to: SocketAddrV4, bytes: &[u8], mtu: usize) -> Result<u64> {
    let mut sender = Sender::connect(to)?;
    let payload = mtu - OVERHEAD;
    for (index, burst) in bytes.chunks(BURST_BYTES).enumerate() {
        sender.burst(VMCORE, (index * BURST_BYTES) as u64, burst, payload)?;
    }
    let header = KernelDumpHeader {
        version: 4,
        dump_len_bytes: bytes.len() as u64,
        block_len_bytes: 4096,
        hostname: "bench".to_owned(),
        ..KernelDumpHeader::default()
    };
    sender.burst(KDH, 0, &header.encode(), payload)?;
    sender.burst(FINISHED, 0, &[], payload)?;
    Ok(sender.packets)
}

struct Sender {
    socket: UdpSocket,
    seqno: u32,
    packets: u64,
    headers_out: MultiHeaders<SockaddrIn>,
    headers_in: MultiHeaders<SockaddrIn>,
}

impl Sender {
    /// Sends a herald and turns to the port that answers.
    fn connect(to: SocketAddrV4) -> Result<Self> {
        let mut addresses = (2..=250).map(|last| Ipv4Addr::new(127, 0, 20, last));
        let socket = addresses.find_map(|address| UdpSocket::bind((address, CLIENT_PORT)).ok());
        let socket = socket.context("no loopback address has port 20024 free")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send_to(&message(HERALD, 1, 0, 0), to)?;
        let mut ack = [0; 16];
        let (_, from) = socket.recv_from(&mut ack).context("nobody answers the herald")?;
        let SocketAddr::V4(from) = from else {
            bail!("{from} answers");
        };
        socket.connect(from)?;
        Ok(Self {
            socket,
            seqno: 2,
            packets: 1,
            headers_out: MultiHeaders::preallocate(IN_FLIGHT_MAX, None),
            headers_in: MultiHeaders::preallocate(IN_FLIGHT_MAX, None),
        })
    }

    /// Sends a burst and waits until all of it is acknowledged; what is not is sent again each second.
    fn burst(&mut self, kind: u32, offset: u64, bytes: &[u8], payload: usize) -> Result<()> {
        let pieces: Vec<&[u8]> = match bytes {
            [] => vec![bytes],
            bytes => bytes.chunks(payload).collect(),
        };
        let base = self.seqno;
        let seqno_of = |index: usize| base.wrapping_add(u32::try_from(index).unwrap_or(u32::MAX));
        let heads: Vec<[u8; 24]> = pieces
            .iter()
            .enumerate()
            .map(|(index, piece)| message(kind, seqno_of(index), offset + (index * payload) as u64, piece.len()))
            .collect();
        let all = if pieces.len() == 64 {
            u64::MAX
        } else {
            (1 << pieces.len()) - 1
        };
        let mut acknowledged = 0_u64;
        for _ in 0..12 {
            let missing = (0..pieces.len()).filter(|index| acknowledged >> index & 1 == 0);
            let datagrams: Vec<[IoSlice<'_>; 2]> = missing
                .map(|index| [IoSlice::new(&heads[index]), IoSlice::new(pieces[index])])
                .collect();
            let nowhere = vec![None::<SockaddrIn>; datagrams.len()];
            let sent = sendmmsg(
                self.socket.as_raw_fd(),
                &mut self.headers_out,
                &datagrams,
                &nowhere,
                [],
                MsgFlags::empty(),
            )?;
            self.packets += sent.count() as u64;
            while acknowledged != all {
                let Some(seqnos) = self.acks()? else { break };
                for seqno in seqnos {
                    let index = seqno.wrapping_sub(base);
                    if index < 64 {
                        acknowledged |= 1 << index & all;
                    }
                }
            }
            if acknowledged == all {
                self.seqno = seqno_of(pieces.len());
                return Ok(());
            }
        }
        bail!("the receiver fell silent at offset {offset}")
    }

    /// The acknowledgements that are there; waits for one, none if none comes in time.
    fn acks(&mut self) -> Result<Option<Vec<u32>>> {
        let mut buffers = [[0_u8; 4]; IN_FLIGHT_MAX];
        let count = {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> =
                buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_WAITFORONE);
            match recvmmsg(socket, &mut self.headers_in, slices.iter_mut(), flags, None) {
                Ok(received) => received.count(),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(why) => return Err(why.into()),
            }
        };
        Ok(Some(
            buffers
                .iter()
                .take(count)
                .map(|buffer| u32::from_be_bytes(*buffer))
                .collect(),
        ))
    }
}

/// The header of a message.
fn message(kind: u32, seqno: u32, offset: u64, len: usize) -> [u8; 24] {
    let mut head = [0; 24];
    head[..4].copy_from_slice(&kind.to_be_bytes());
    head[4..8].copy_from_slice(&seqno.to_be_bytes());
    head[8..16].copy_from_slice(&offset.to_be_bytes());
    head[16..20].copy_from_slice(&u32::try_from(len).unwrap_or(0).to_be_bytes());
    head
}

/// Bytes that do not compress and are never zero pages.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..len.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}
