use alloc::{collections::VecDeque, vec, vec::Vec};
use core::mem;

use super::{
    plan::{Order, Plan, Write},
    world::{SendOutcome, Sender},
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
    /// When it began: the ticks count from here.
    started_at: Instant,
    /// When the client sees that it is complete.
    complete_at: Option<Instant>,
    resend_at: Instant,
    /// Acknowledgements that arrived after the last look before the resend.
    late: Vec<usize>,
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

    /// The second dump after one boot, whose first block goes to where the first dump ended (`nd_tx_off` of
    /// `sys/netinet/netdump/netdump_client.c` is set on a flush only).
    #[must_use]
    pub fn after_a_dump_of(mut self, old_len: u64) -> Self {
        let mut data = self.writes.iter_mut().filter(|write| write.kind == Kind::Vmcore);
        if let Some(first) = data.next() {
            first.offset = old_len;
        }
        self
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
        Self {
            write,
            packets,
            to_send,
            acked: 0,
            wanted,
            started_at: now,
            complete_at: None,
            resend_at: now + RESEND_AFTER,
            late: Vec::new(),
        }
    }
}

impl Burst {
    /// The client polls its NIC at each tick and sees a tick later whether it has all acknowledgements.
    fn acknowledge(&mut self, now: Instant, config: StockConfig, index: usize) {
        let ticks = now.since(self.started_at).as_nanos().div_ceil(TICK.as_nanos());
        let polled_at = self.started_at + TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
        if polled_at + TICK > self.resend_at {
            self.late.push(index);
            return;
        }
        self.acked |= bit(config, index);
        if self.acked == self.wanted {
            self.complete_at = self.complete_at.or(Some(polled_at + TICK));
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

    fn receive(&mut self, now: Instant, source_port: u16, datagram: &[u8]) {
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
        let config = self.config;
        self.burst.acknowledge(now, config, index);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.outcome.is_some() {
            return None;
        }
        Some(self.burst.complete_at.unwrap_or(self.burst.resend_at))
    }

    fn timeout(&mut self, now: Instant) {
        let burst = &mut self.burst;
        if let Some(complete_at) = burst.complete_at {
            if self.outcome.is_none() && complete_at <= now {
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
            for index in mem::take(&mut burst.late) {
                burst.acknowledge(now, config, index);
            }
        }
    }

    fn outcome(&self) -> Option<SendOutcome> {
        self.outcome
    }
}
