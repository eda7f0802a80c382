use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};

use super::{
    link::{Link, LinkConfig},
    plan::{Plan, Write},
    stock::{StockConfig, StockSender},
    world::{SendOutcome, Sender},
};
use crate::{
    server::{Accepted, AckPolicy, Session, SessionLimits},
    time::{Duration, Instant},
    wire::{HERALD_PORT, Header, Kind},
};

/// Length of one write of the dumper.
const WRITE_LEN: usize = 64 * 1024;

/// Virtual time after which a dump is stuck.
const END_BY: Instant = Instant::from_nanos(24 * 3600 * 1_000_000_000);

/// The port that the session answers from.
const SESSION_PORT: u16 = 49_152;

/// What a long dump came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongDump {
    /// Whether its sender believes that it is safe.
    pub finished: bool,
    /// Ranges that are missing all the same.
    pub holes: u64,
    /// Bytes of them.
    pub missing_bytes: u64,
    /// Packets that were sent again.
    pub resent_packets: u64,
    /// Virtual time that it took.
    pub took: Duration,
}

/// A long dump of a stock client, whose bytes do not matter, over a link that loses `loss_ppm` in a million datagrams of
/// either direction. The storage takes no time.
///
/// # Errors
///
/// The dump got stuck, or what the session believes to have is not what it was handed.
pub fn long_dump(
    config: StockConfig,
    file_len: u64,
    loss_ppm: u32,
    ack_policy: AckPolicy,
    seed: u64,
) -> Result<LongDump, String> {
    let mut sender = StockSender::new(config, 0, &plan(file_len));
    let lossy = LinkConfig {
        loss_ppm,
        ..LinkConfig::clean()
    };
    let (mut up, mut down) = (Link::new(lossy.clone(), seed ^ 0xa11ce), Link::new(lossy, seed ^ 0xb0b));
    let mut receiver = Receiver {
        limits: SessionLimits {
            ack_policy,
            ..SessionLimits::default()
        },
        session: None,
        handed_out: BTreeMap::new(),
    };
    let mut now = Instant::ZERO;
    let mut out = vec![0; 1 << 16];
    while sender.outcome().is_none() {
        while let Some((port, len)) = sender.transmit(now, &mut out) {
            up.send(now, port, out.get(..len).unwrap_or_default());
        }
        while let Some(session) = &mut receiver.session
            && let Some(len) = session.poll_ack(&mut out)
        {
            down.send(now, SESSION_PORT, out.get(..len).unwrap_or_default());
        }
        let session_at = receiver.session.as_ref().and_then(Session::poll_timeout);
        let wakes = [up.next_at(), down.next_at(), sender.deadline(), session_at];
        now = match wakes.into_iter().flatten().min() {
            Some(next) if next <= END_BY => now.max(next),
            _ => return Err(format!("seed {seed}: no end by {now}")),
        };
        while let Some((port, datagram)) = up.receive(now) {
            receiver.take(now, port, &datagram);
        }
        while let Some((port, datagram)) = down.receive(now) {
            sender.receive(now, port, &datagram);
        }
        if sender.deadline().is_some_and(|deadline| deadline <= now) {
            sender.timeout(now);
        }
        if let Some(session) = receiver
            .session
            .as_mut()
            .filter(|_| session_at.is_some_and(|at| at <= now))
        {
            session.handle_timeout(now);
        }
    }
    let finished = sender.outcome() == Some(SendOutcome::Finished);
    let mut dump = receiver.judge(file_len, seed)?;
    (dump.finished, dump.resent_packets, dump.took) = (finished, sender.resent_packets(), now.since(Instant::ZERO));
    Ok(dump)
}

/// A page, then writes of 64 KiB, then a kernel dump header: all zeros, for nothing looks at them.
fn plan(file_len: u64) -> Plan {
    let mut writes = Vec::new();
    let mut at = 0;
    while at < file_len {
        let len = if at == 0 { 4096 } else { WRITE_LEN };
        let len = usize::try_from(file_len - at).map_or(len, |left| left.min(len));
        writes.push(Write {
            kind: Kind::Vmcore,
            offset: at,
            bytes: vec![0; len],
        });
        at += len as u64;
    }
    writes.push(Write {
        kind: Kind::KernelHeader,
        offset: 0,
        bytes: vec![0; 512],
    });
    Plan { writes, file_len }
}

/// Our session, and what it was handed, counted without its help.
struct Receiver {
    limits: SessionLimits,
    session: Option<Session>,
    /// Offset to length of each packet of data.
    handed_out: BTreeMap<u64, u64>,
}

impl Receiver {
    fn take(&mut self, now: Instant, port: u16, datagram: &[u8]) {
        let Some(session) = &mut self.session else {
            if let Ok((header, payload)) = Header::parse(datagram)
                && (header.kind, port) == (Kind::Herald, HERALD_PORT)
            {
                self.session = Some(Session::new(self.limits, &header, payload, now));
            }
            return;
        };
        match session.handle_datagram(now, datagram) {
            Ok(Accepted::Data {
                offset, bytes, ticket, ..
            }) => {
                self.handed_out.insert(offset, bytes.len() as u64);
                let _ = session.received(ticket);
            }
            Ok(Accepted::KernelHeader { ticket, .. } | Accepted::Key { ticket, .. }) => {
                let _ = session.received(ticket);
            }
            Ok(Accepted::Finished { ticket }) => session.durable(now, ticket),
            Ok(Accepted::Herald | Accepted::Repeated) | Err(_) => {}
        }
    }

    fn judge(&self, file_len: u64, seed: u64) -> Result<LongDump, String> {
        let session = self.session.as_ref().ok_or("no session")?;
        let holes: Vec<_> = session.received_extents().gaps(0..file_len).collect();
        let missing_bytes = holes.iter().map(|hole| hole.end - hole.start).sum();
        // Stock clients cut each write the same way every time, so that packets never overlap.
        let there: u64 = self.handed_out.values().sum();
        if there + missing_bytes != file_len {
            return Err(format!(
                "seed {seed}: {there} bytes came and {missing_bytes} are known to be missing"
            ));
        }
        Ok(LongDump {
            holes: holes.len() as u64,
            missing_bytes,
            ..LongDump::default()
        })
    }
}
