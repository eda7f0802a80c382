//! The send engine of a stock client: a burst goes out, and nothing more until all of it is acknowledged.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    loss::Loss,
    sender::AckBits,
    wire::{HEADER_LEN, Message},
};

/// Packets in flight that the client's bookkeeping knows: later acks are dropped (`DEBUGNET_MAX_IN_FLIGHT`).
const IN_FLIGHT_MAX: u32 = 64;

/// Transmissions of a packet before the client gives up: the first and 11 more (`net.debugnet.nretries` = 10).
const TRANSMISSIONS: u32 = 12;

/// How long that takes with the client's own rounds. One with shorter rounds, for a quick test, is as patient.
const PATIENCE: Duration = Duration::from_secs(12);

/// The client heard nothing for all its transmissions; the dump has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GaveUp {
    pub(crate) kind: u32,
    pub(crate) offset: u64,
}

/// One client's end of a conversation.
#[derive(Debug)]
pub(crate) struct Engine {
    socket: UdpSocket,
    /// Where the next packet goes; the port changes once, to the source port of the first ack.
    server: SocketAddrV4,
    learned: bool,
    seqno: u32,
    round: Duration,
    bits: AckBits,
    exact_acks: bool,
    aux2: u32,
    loss: Loss,
    retransmitted: u64,
    sent: Arc<AtomicU64>,
}

/// What an [`Engine`] is made of.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) client: SocketAddrV4,
    pub(crate) server: SocketAddrV4,
    pub(crate) first_seqno: u32,
    pub(crate) round: Duration,
    pub(crate) bits: AckBits,
    /// Whether only datagrams of exactly 4 bytes count as acks (13 and later), or longer ones too (12.0 and before).
    pub(crate) exact_acks: bool,
    pub(crate) aux2: u32,
    pub(crate) loss: Loss,
    /// Counts the packets that went out.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Engine {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup {
            client,
            server,
            first_seqno,
            round,
            bits,
            exact_acks,
            aux2,
            loss,
            sent,
        } = setup;
        let socket = UdpSocket::bind(client).unwrap_or_else(|error| panic!("cannot bind {client}: {error}"));
        let (seqno, learned, retransmitted) = (first_seqno, false, 0);
        Self {
            socket,
            server,
            learned,
            seqno,
            round,
            bits,
            exact_acks,
            aux2,
            loss,
            retransmitted,
            sent,
        }
    }

    pub(crate) fn retransmitted(&self) -> u64 {
        self.retransmitted
    }

    /// The address this client speaks from.
    pub(crate) fn address(&self) -> Ipv4Addr {
        match self.socket.local_addr().expect("the socket has an address").ip() {
            std::net::IpAddr::V4(address) => address,
            std::net::IpAddr::V6(address) => panic!("{address} is no IPv4 address"),
        }
    }

    /// Overrides the sequence number of the next burst.
    pub(crate) fn set_seqno(&mut self, seqno: u32) {
        self.seqno = seqno;
    }

    /// Sends `bytes` as one burst of packets of at most `payload_len` bytes and waits until all count as acknowledged.
    pub(crate) fn send(&mut self, kind: u32, offset: u64, bytes: &[u8], payload_len: usize) -> Result<(), GaveUp> {
        let pieces: Vec<&[u8]> = if bytes.is_empty() {
            vec![bytes]
        } else {
            bytes.chunks(payload_len).collect()
        };
        let base = self.seqno;
        let packet = |index: usize, aux2: u32| {
            let index_u32 = u32::try_from(index).expect("a burst has few packets");
            let message = Message {
                kind,
                seqno: base.wrapping_add(index_u32),
                offset: offset + (index * payload_len) as u64,
                len: u32::try_from(pieces[index].len()).expect("a packet is small"),
                aux2,
            };
            message.datagram(pieces[index])
        };
        let wanted = (0..pieces.len()).fold(0, |mask, index| mask | self.bits.bit(index));
        let mut received = 0;
        let transmissions = PATIENCE.as_millis() / self.round.as_millis().max(1);
        for transmission in 0..transmissions.max(TRANSMISSIONS.into()) {
            for index in 0..pieces.len() {
                if received & self.bits.bit(index) == 0 {
                    self.retransmitted += u64::from(transmission > 0);
                    self.transmit(&packet(index, self.aux2));
                }
            }
            let deadline = Instant::now() + self.round;
            while received & wanted != wanted {
                match self.ack_before(deadline) {
                    None => break,
                    Some(seqno) => {
                        let index = seqno.wrapping_sub(base);
                        if index < IN_FLIGHT_MAX {
                            received |= self.bits.bit(index as usize);
                        }
                    }
                }
            }
            if received & wanted == wanted {
                self.seqno = base.wrapping_add(u32::try_from(pieces.len()).expect("a burst has few packets"));
                return Ok(());
            }
        }
        Err(GaveUp { kind, offset })
    }

    fn transmit(&mut self, datagram: &[u8]) {
        debug_assert!(datagram.len() >= HEADER_LEN);
        self.sent.fetch_add(1, Ordering::Relaxed);
        if !self.loss.strikes() {
            // The kernel client does not see ICMP errors; neither does this one care.
            let _ = self.socket.send_to(datagram, self.server);
        }
    }

    /// The sequence number of the next ack that arrives in time.
    fn ack_before(&mut self, deadline: Instant) -> Option<u32> {
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).expect("a time-out can be set");
            let (len, from) = match self.socket.recv_from(&mut buffer) {
                Ok((len, std::net::SocketAddr::V4(from))) => (len, from),
                Ok(_) => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(_) => continue,
            };
            let is_ack = if self.exact_acks { len == 4 } else { len >= 4 };
            // Only the address is checked; any port may answer, also after the first ack.
            if !is_ack || from.ip() != self.server.ip() || self.loss.strikes() {
                continue;
            }
            if !self.learned {
                self.server.set_port(from.port());
                self.learned = true;
            }
            return Some(u32::from_be_bytes(buffer[..4].try_into().expect("four bytes")));
        }
    }
}
