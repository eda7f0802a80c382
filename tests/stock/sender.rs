//! The four kinds of stock sender.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    engine::{Engine, GaveUp, Setup},
    loss::Loss,
    wire::{FINISHED, HERALD, KDH, KEY, VMCORE},
};

/// The port of every packet a stock client sends and of every ack it takes (`NETDUMP_ACKPORT`).
pub(crate) const CLIENT_PORT: u16 = 20024;

/// A burst: `MAXDUMPPGS` pages.
const BURST_LEN: usize = 64 * 1024;

/// The first write of a minidump is one page, flushed on its own.
const FIRST_WRITE_LEN: usize = 4096;

/// Which stock client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// About 2005: header first and again behind the data, up to 8192 bytes a packet, `aux2` never set.
    Sandvine,
    /// FreeBSD 12: data, header, key; at most 4096 bytes a packet.
    FreeBsd12,
    /// FreeBSD 13 and later: key, data, header; as much as the MTU takes.
    FreeBsd13,
    /// The test tool that comes with netdumpd: one message of 1000 bytes at a time, sequence numbers from 0.
    StopAndWait,
}

impl Order {
    pub(crate) const ALL: [Self; 4] = [Self::Sandvine, Self::FreeBsd12, Self::FreeBsd13, Self::StopAndWait];

    /// Data bytes of a packet: the MTU less IPv4, UDP and message header, within the client's own bound.
    fn payload_len(self, mtu: usize) -> usize {
        let room = mtu - 20 - 8 - 24;
        match self {
            Self::Sandvine => room.min(8192),
            Self::FreeBsd12 => room.min(4096),
            Self::FreeBsd13 => room,
            Self::StopAndWait => 1000.min(room),
        }
    }
}

/// How a client keeps the acks of a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckBits {
    /// As in every release seen: a 64-bit mask whose bits are made by shifting a 32-bit one, so that packets 32 apart
    /// share a bit and packet 31 sets all bits above it.
    Shared,
    /// With the 64-bit constant that was meant.
    Own,
}

impl AckBits {
    pub(crate) fn bit(self, index: usize) -> u64 {
        match self {
            // The processor takes the shift count modulo 32; the result is sign-extended.
            Self::Shared => i64::from(1_i32 << (index % 32)).cast_unsigned(),
            Self::Own => 1 << (index % 64),
        }
    }
}

/// A stock client about to dump.
#[derive(Debug, Clone)]
pub(crate) struct StockSender {
    pub(crate) order: Order,
    pub(crate) mtu: usize,
    pub(crate) server: SocketAddrV4,
    pub(crate) client: SocketAddrV4,
    /// The dump directory that the herald asks for.
    pub(crate) path: Option<&'static str>,
    /// The block that goes out as EKCD_KEY.
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) bits: AckBits,
    /// One wait for acks before what is missing is sent again: 2000 polls of 0.5 ms (`net.debugnet.npolls`).
    pub(crate) round: Duration,
    pub(crate) loss: Loss,
    /// Packets that have gone out, for a test that wants to know how far it is.
    pub(crate) sent: Arc<AtomicU64>,
}

impl StockSender {
    /// A client as released, on a loopback address of its own, so that many can have the one port they need.
    pub(crate) fn new(order: Order, mtu: usize, server: SocketAddrV4) -> Self {
        Self {
            order,
            mtu,
            server,
            client: SocketAddrV4::new(own_address(), CLIENT_PORT),
            path: None,
            key: None,
            bits: AckBits::Shared,
            round: Duration::from_secs(1),
            loss: Loss::none(),
            sent: Arc::default(),
        }
    }

    /// Packets of a dump that loses none: herald, data, header, FINISHED.
    pub(crate) fn packets(&self, core_len: usize) -> usize {
        let payload_len = self.order.payload_len(self.mtu);
        let (first, rest) = (core_len.min(FIRST_WRITE_LEN), core_len.saturating_sub(FIRST_WRITE_LEN));
        let bursts = rest / BURST_LEN * BURST_LEN.div_ceil(payload_len) + (rest % BURST_LEN).div_ceil(payload_len);
        first.div_ceil(payload_len) + bursts + 3
    }

    /// Sends a whole dump; returns how many packets had to be sent again.
    pub(crate) fn dump(&self, core: &[u8], header: &[u8]) -> Result<u64, GaveUp> {
        let mut engine = Engine::new(Setup {
            client: self.client,
            server: self.server,
            first_seqno: u32::from(self.order != Order::StopAndWait),
            round: self.round,
            bits: self.bits,
            exact_acks: self.order != Order::Sandvine && self.order != Order::FreeBsd12,
            aux2: if self.order == Order::Sandvine { 0xdead_c0de } else { 0 },
            loss: self.loss.clone(),
            sent: Arc::clone(&self.sent),
        });
        let payload_len = self.order.payload_len(self.mtu);
        let path = self.path.map(|path| format!("{path}\0")).unwrap_or_default();
        engine.send(HERALD, 0, path.as_bytes(), payload_len)?;
        let key = |engine: &mut Engine| {
            self.key
                .as_deref()
                .map_or(Ok(()), |key| engine.send(KEY, 0, key, payload_len))
        };
        match self.order {
            Order::Sandvine => {
                engine.send(KDH, 0, header, payload_len)?;
                bursts(&mut engine, core, payload_len)?;
                engine.send(VMCORE, core.len() as u64, header, payload_len)?;
            }
            Order::FreeBsd12 => {
                bursts(&mut engine, core, payload_len)?;
                engine.send(KDH, 0, header, payload_len)?;
                key(&mut engine)?;
            }
            Order::FreeBsd13 => {
                key(&mut engine)?;
                bursts(&mut engine, core, payload_len)?;
                engine.send(KDH, 0, header, payload_len)?;
            }
            Order::StopAndWait => {
                for (index, message) in core.chunks(payload_len).enumerate() {
                    engine.send(VMCORE, (index * payload_len) as u64, message, payload_len)?;
                }
                engine.send(KDH, 0, header, payload_len)?;
                engine.set_seqno(0);
            }
        }
        engine.send(FINISHED, 0, &[], payload_len)?;
        Ok(engine.retransmitted())
    }
}

/// The data in the writes of the kernel's dumper: its first page, then runs of 64 KiB.
fn bursts(engine: &mut Engine, core: &[u8], payload_len: usize) -> Result<(), GaveUp> {
    let (first, rest) = core.split_at(FIRST_WRITE_LEN.min(core.len()));
    engine.send(VMCORE, 0, first, payload_len)?;
    for (index, burst) in rest.chunks(BURST_LEN).enumerate() {
        engine.send(VMCORE, (FIRST_WRITE_LEN + index * BURST_LEN) as u64, burst, payload_len)?;
    }
    Ok(())
}

/// A loopback address that no other client of this test run has.
pub(crate) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = next.to_be_bytes();
    // The process id keeps test runs side by side apart.
    let process = u8::try_from(std::process::id() % 250).expect("below 250") + 2;
    Ipv4Addr::new(127, process, high, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_bits_take_packet_33_for_packet_1() {
        assert_eq!(AckBits::Shared.bit(33), AckBits::Shared.bit(1));
        assert_eq!(AckBits::Shared.bit(31), 0xffff_ffff_8000_0000);
        assert_ne!(AckBits::Own.bit(33), AckBits::Own.bit(1));
    }

    #[test]
    fn packets_of_a_burst_are_as_many_as_the_protocol_says() {
        let packets = |mtu| BURST_LEN.div_ceil(Order::FreeBsd13.payload_len(mtu));
        let counts = [576, 1076, 1280, 1500, 2100, 4148, 9000].map(packets);
        assert_eq!(counts, [126, 64, 54, 46, 32, 16, 8]);
    }
}
