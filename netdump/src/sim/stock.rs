use alloc::{collections::VecDeque, vec, vec::Vec};

use super::{
    image::Image,
    ours::place,
    plan::{Order, Plan, Write},
    world::{Receiver, SendOutcome, Sender},
};
use crate::{
    limits,
    time::{Duration, Instant},
    wire::{self, HEADER_LEN, HERALD_PORT, Header, Kind, STOCK_DATA_LEN_MAX, Seqno},
};

/// How often a stock client looks whether all is acknowledged (`debugnet_send` in `sys/net/debugnet.c`: 500 us).
const TICK: Duration = Duration::from_micros(500);

/// When it sends again what is not: after `net.debugnet.npolls` ticks.
const RESEND_AFTER: Duration = Duration::from_micros(500 * 2001);

/// How often (`net.debugnet.nretries` and once more) before it gives up.
const RESENDS_MAX: u32 = 11;

/// Which acknowledgements a stock client takes: those less than this number ahead of its burst.
const IN_FLIGHT_MAX: u32 = 64;

/// A stock client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockConfig {
    /// Whose habits it has.
    pub order: Order,
    /// MTU of the path.
    pub mtu: u16,
    /// It keeps its acknowledgements with a 32-bit `1 << i`, as all released ones do: packets 32 apart share a bit.
    /// Without the fault every packet of a burst has a bit of its own.
    pub shift_fault: bool,
}

impl StockConfig {
    /// Data bytes of one message: FreeBSD 12 cuts at 4096, FreeBSD 13 at the MTU only, the older one at 8192, the test
    /// client sends 1000 at a time.
    const fn payload_len_max(self) -> usize {
        let by_mtu = self.mtu as usize - limits::MTU_OVERHEAD;
        let cap = match self.order {
            Order::FreeBsd12 => STOCK_DATA_LEN_MAX,
            Order::FreeBsd13 => usize::MAX,
            Order::Sandvine => 8192,
            Order::TestClient => 1000,
        };
        if by_mtu < cap { by_mtu } else { cap }
    }
}

/// A stock client as `sys/net/debugnet.c` has it: bursts of 64 KiB, each acknowledged whole before the next.
#[derive(Debug)]
pub struct StockSender {
    config: StockConfig,
    writes: VecDeque<Write>,
    port: u16,
    seqno: u32,
    burst: Burst,
    resends: u32,
    resent_packets: u64,
    outcome: Option<SendOutcome>,
}

/// What is being sent: packets as offset into the write and length, the acknowledgement bits, what is yet to go out.
#[derive(Debug)]
struct Burst {
    write: Write,
    packets: Vec<(usize, usize)>,
    to_send: VecDeque<usize>,
    acked: u128,
    wanted: u128,
    look_at: Instant,
    resend_at: Instant,
}

impl StockSender {
    /// A client that will send `plan`, with a path of `path_len` bytes and a NUL in its HERALD; none if that is zero.
    #[must_use]
    pub fn new(config: StockConfig, path_len: usize, plan: &Plan) -> Self {
        let mut path = vec![b'p'; path_len];
        path.extend((path_len > 0).then_some(0));
        let control = |kind, bytes| Write { kind, offset: 0, bytes };
        let mut writes: VecDeque<Write> = VecDeque::new();
        if config.order == Order::TestClient {
            let cut = |write: &Write| {
                let at = |index: usize| write.offset + (index * config.payload_len_max()) as u64;
                let chunks = write.bytes.chunks(config.payload_len_max()).enumerate();
                chunks
                    .map(|(i, bytes)| Write {
                        kind: write.kind,
                        offset: at(i),
                        bytes: bytes.to_vec(),
                    })
                    .collect()
            };
            writes.extend(plan.writes.iter().flat_map(|write| -> Vec<Write> { cut(write) }));
        } else {
            writes.extend(plan.writes.iter().cloned());
        }
        writes.push_back(control(Kind::Finished, Vec::new()));
        let first_seqno = u32::from(config.order != Order::TestClient);
        let burst = Burst::new(config, control(Kind::Herald, path), Instant::ZERO);
        let port = HERALD_PORT;
        Self {
            config,
            writes,
            port,
            seqno: first_seqno,
            burst,
            resends: 0,
            resent_packets: 0,
            outcome: None,
        }
    }

    /// Packets that were sent again.
    #[must_use]
    pub const fn resent_packets(&self) -> u64 {
        self.resent_packets
    }

    fn next_burst(&mut self, now: Instant) {
        let packets = u32::try_from(self.burst.packets.len()).unwrap_or(0);
        self.seqno = self.seqno.wrapping_add(packets);
        let Some(write) = self.writes.pop_front() else {
            self.outcome = Some(SendOutcome::Finished);
            return;
        };
        if self.config.order == Order::TestClient && write.kind == Kind::Finished {
            self.seqno = 0;
        }
        self.burst = Burst::new(self.config, write, now);
        self.resends = 0;
    }
}

impl Burst {
    fn new(config: StockConfig, write: Write, now: Instant) -> Self {
        let len_max = config.payload_len_max();
        let mut packets: Vec<(usize, usize)> = (0..write.bytes.len())
            .step_by(len_max)
            .map(|at| (at, (write.bytes.len() - at).min(len_max)))
            .collect();
        if packets.is_empty() {
            packets.push((0, 0));
        }
        let wanted = (0..packets.len()).fold(0, |bits, index| bits | bit(config, index));
        let to_send = (0..packets.len()).collect();
        let (look_at, resend_at) = (now + TICK, now + RESEND_AFTER);
        Self {
            write,
            packets,
            to_send,
            acked: 0,
            wanted,
            look_at,
            resend_at,
        }
    }
}

/// The bit that stands for the packet of that index. `1 << i` of a C `int` on x86-64: the shift counts modulo 32, and
/// bit 31 becomes all of bits 31 to 63 when it is widened.
fn bit(config: StockConfig, index: usize) -> u128 {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    if config.shift_fault {
        u128::from(i64::from(1_i32.wrapping_shl(index)).cast_unsigned())
    } else {
        1_u128.checked_shl(index).unwrap_or(0)
    }
}

impl Sender for StockSender {
    fn transmit(&mut self, _now: Instant, out: &mut [u8]) -> Option<(u16, usize)> {
        let index = self.burst.to_send.pop_front()?;
        let (at, len) = *self.burst.packets.get(index)?;
        let Write { kind, offset, bytes } = &self.burst.write;
        let seqno = Seqno(self.seqno.wrapping_add(u32::try_from(index).ok()?));
        let aux2 = if self.config.order == Order::Sandvine {
            0xdead_beef ^ seqno.0
        } else {
            0
        };
        let header = Header {
            kind: *kind,
            seqno,
            offset: offset + at as u64,
            len: u32::try_from(len).ok()?,
            aux2,
        };
        let (head, data) = out.get_mut(..HEADER_LEN + len)?.split_at_mut(HEADER_LEN);
        head.copy_from_slice(&header.encode());
        data.copy_from_slice(bytes.get(at..at + len)?);
        Some((self.port, HEADER_LEN + len))
    }

    fn receive(&mut self, _now: Instant, source_port: u16, datagram: &[u8]) {
        let Ok(ack) = wire::parse_ack(datagram) else { return };
        let ahead = ack.0.wrapping_sub(self.seqno);
        if self.config.shift_fault && ahead >= IN_FLIGHT_MAX {
            return;
        }
        let index = usize::try_from(ahead).unwrap_or(usize::MAX);
        if index >= self.burst.packets.len() {
            return;
        }
        if self.port == HERALD_PORT {
            self.port = source_port;
        }
        self.burst.acked |= bit(self.config, index);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.outcome.is_some() {
            return None;
        }
        let complete = self.burst.acked == self.burst.wanted;
        Some(if complete {
            self.burst.look_at
        } else {
            self.burst.resend_at
        })
    }

    fn timeout(&mut self, now: Instant) {
        let burst = &mut self.burst;
        if burst.acked == burst.wanted {
            if self.outcome.is_none() {
                self.next_burst(now);
            }
        } else if burst.resend_at <= now {
            if self.resends >= RESENDS_MAX {
                self.outcome = Some(SendOutcome::Failed);
                return;
            }
            self.resends += 1;
            burst.resend_at = now + RESEND_AFTER;
            let config = self.config;
            burst.to_send = (0..burst.packets.len())
                .filter(|index| burst.acked & bit(config, *index) == 0)
                .collect();
            self.resent_packets += burst.to_send.len() as u64;
        }
    }

    fn outcome(&self) -> Option<SendOutcome> {
        self.outcome
    }
}

/// A stock receiver as netdumpd is: acknowledges everything at once, from a new port, takes at most 4096 data bytes a
/// message, and is gone after FINISHED.
#[derive(Debug)]
pub struct StockReceiver {
    port: u16,
    state: StockState,
    heard_at: Instant,
    images: [Image; 3],
    acks: VecDeque<Seqno>,
    dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StockState {
    Idle,
    Herald,
    Data,
    Closed,
}

impl StockReceiver {
    /// How long it believes in a silent client.
    const SILENT_AFTER: Duration = Duration::from_secs(600);

    /// A receiver that will answer from `port`.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self {
            port,
            state: StockState::Idle,
            heard_at: Instant::ZERO,
            images: [Image::default(), Image::default(), Image::default()],
            acks: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Messages that it did not take.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Receiver for StockReceiver {
    fn receive(&mut self, now: Instant, port: u16, datagram: &[u8]) {
        let parsed = Header::parse(datagram)
            .ok()
            .filter(|(_, payload)| payload.len() <= STOCK_DATA_LEN_MAX);
        let Some((header, payload)) = parsed else {
            self.dropped += 1;
            return;
        };
        let herald = header.kind == Kind::Herald;
        self.state = match self.state {
            StockState::Idle | StockState::Herald if herald && port == HERALD_PORT => StockState::Herald,
            StockState::Herald | StockState::Data if !herald && port == self.port => StockState::Data,
            _ => {
                self.dropped += 1;
                return;
            }
        };
        self.heard_at = now;
        if header.kind == Kind::Finished {
            self.state = StockState::Closed;
        }
        if let Some(image) = self.images.get_mut(place(header.kind)) {
            image.write(header.offset, payload);
        }
        self.acks.push_back(header.seqno);
    }

    fn transmit(&mut self, _now: Instant, out: &mut [u8]) -> Option<(u16, usize)> {
        let ack = wire::encode_ack(self.acks.pop_front()?);
        out.get_mut(..ack.len())?.copy_from_slice(&ack);
        Some((self.port, ack.len()))
    }

    fn deadline(&self) -> Option<Instant> {
        matches!(self.state, StockState::Herald | StockState::Data).then(|| self.heard_at + Self::SILENT_AFTER)
    }

    fn timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.state = StockState::Closed;
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, StockState::Idle | StockState::Closed)
    }

    fn image(&self, kind: Kind) -> Option<&Image> {
        self.images.get(place(kind))
    }

    fn is_durable(&self) -> bool {
        self.state == StockState::Closed
    }
}
