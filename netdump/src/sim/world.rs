use alloc::{boxed::Box, collections::BTreeMap, vec, vec::Vec};
use core::fmt;

use super::{image::Image, link::Link};
use crate::{
    server::invariants::may_acknowledge,
    time::Instant,
    wire::{self, Header, Kind},
};

/// The end that sends a dump.
pub trait Sender: fmt::Debug {
    /// Writes the next datagram into `out` and returns the receiver's port and its length.
    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<(u16, usize)>;
    /// Takes a datagram that came from the receiver's port `source_port`.
    fn receive(&mut self, now: Instant, source_port: u16, datagram: &[u8]);
    /// When [`Sender::timeout`] is due.
    fn deadline(&self) -> Option<Instant>;
    /// Time has passed.
    fn timeout(&mut self, now: Instant);
    /// How the dump ended, once it has.
    fn outcome(&self) -> Option<SendOutcome>;
}

/// The end that receives a dump.
pub trait Receiver: fmt::Debug {
    /// Takes a datagram that came to `port`.
    fn receive(&mut self, now: Instant, port: u16, datagram: &[u8]);
    /// Writes the next datagram into `out` and returns the port that it leaves from and its length.
    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<(u16, usize)>;
    /// When [`Receiver::timeout`] is due.
    fn deadline(&self) -> Option<Instant>;
    /// Time has passed.
    fn timeout(&mut self, now: Instant);
    /// Whether it has forgotten the dump, or never had one.
    fn is_over(&self) -> bool;
    /// What storage holds of the object that a kind of message fills.
    fn image(&self, kind: Kind) -> Option<&Image>;
    /// Whether everything is on disk for good.
    fn is_durable(&self) -> bool;
    /// Whether storage holds exactly these bytes there.
    fn holds(&self, kind: Kind, offset: u64, bytes: &[u8]) -> bool {
        self.image(kind).is_some_and(|image| image.holds(offset, bytes))
    }
}

impl<S: Sender + ?Sized> Sender for Box<S> {
    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<(u16, usize)> {
        (**self).transmit(now, out)
    }

    fn receive(&mut self, now: Instant, source_port: u16, datagram: &[u8]) {
        (**self).receive(now, source_port, datagram);
    }

    fn deadline(&self) -> Option<Instant> {
        (**self).deadline()
    }

    fn timeout(&mut self, now: Instant) {
        (**self).timeout(now);
    }

    fn outcome(&self) -> Option<SendOutcome> {
        (**self).outcome()
    }
}

/// How a dump ended for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// FINISHED was acknowledged.
    Finished,
    /// The sender gave up.
    Failed,
}

/// Both directions between a sender and a receiver.
#[derive(Debug)]
pub struct Network {
    /// From sender to receiver.
    pub up: Link,
    /// From receiver to sender.
    pub down: Link,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// How the dump ended for its sender.
    pub outcome: SendOutcome,
    /// When the sender knew.
    pub sent_at: Instant,
    /// When the receiver had forgotten the dump.
    pub over_at: Instant,
}

/// Lets both ends talk until the sender is through and the receiver has forgotten the dump, while every
/// acknowledgement is checked against what was sent and stored.
///
/// # Errors
///
/// [`Violation`] names the rule that was broken, or that there was no end by `end_by`.
pub fn run<S: Sender + ?Sized, R: Receiver + ?Sized>(
    sender: &mut S,
    receiver: &mut R,
    network: &mut Network,
    end_by: Instant,
) -> Result<Report, Violation> {
    let mut now = Instant::ZERO;
    let mut seen = Seen::default();
    let mut sent_at = None;
    let mut out = vec![0; 1 << 16];
    loop {
        while let Some((port, len)) = sender.transmit(now, &mut out) {
            let datagram = out.get(..len).unwrap_or_default();
            seen.sent(datagram);
            network.up.send(now, port, datagram);
        }
        while let Some((port, len)) = receiver.transmit(now, &mut out) {
            let datagram = out.get(..len).unwrap_or_default();
            seen.check_ack(datagram, receiver)?;
            network.down.send(now, port, datagram);
        }
        if let (None, Some(_)) = (sent_at, sender.outcome()) {
            sent_at = Some(now);
        }
        let wakes = [
            network.up.next_at(),
            network.down.next_at(),
            sender.deadline(),
            receiver.deadline(),
        ];
        let next = wakes.into_iter().flatten().min();
        match (sender.outcome(), next) {
            (Some(outcome), _) if receiver.is_over() => {
                return Ok(Report {
                    outcome,
                    sent_at: sent_at.unwrap_or(now),
                    over_at: now,
                });
            }
            (_, Some(next)) if next <= end_by => now = now.max(next),
            _ => return Err(Violation::NoEnd { at: now }),
        }
        while let Some((port, datagram)) = network.up.receive(now) {
            receiver.receive(now, port, &datagram);
        }
        while let Some((port, datagram)) = network.down.receive(now) {
            sender.receive(now, port, &datagram);
        }
        if sender.deadline().is_some_and(|deadline| deadline <= now) {
            sender.timeout(now);
        }
        if receiver.deadline().is_some_and(|deadline| deadline <= now) {
            receiver.timeout(now);
        }
    }
}

/// What the sender put on the wire, by sequence number. The test client of netdumpd uses number 0 twice.
#[derive(Default)]
struct Seen {
    messages: BTreeMap<u32, Vec<(Kind, u64, Vec<u8>)>>,
}

impl Seen {
    fn sent(&mut self, datagram: &[u8]) {
        let Ok((header, payload)) = Header::parse(datagram) else {
            return;
        };
        let same_number = self.messages.entry(header.seqno.0).or_default();
        if !same_number
            .iter()
            .any(|(kind, offset, _)| (*kind, *offset) == (header.kind, header.offset))
        {
            same_number.push((header.kind, header.offset, payload.to_vec()));
        }
    }

    /// An acknowledged byte was handed to storage; FINISHED is acknowledged only once everything is durable; nothing is
    /// acknowledged that was not sent.
    fn check_ack<R: Receiver + ?Sized>(&self, datagram: &[u8], receiver: &R) -> Result<(), Violation> {
        let Ok(seqno) = wire::parse_ack(datagram) else {
            return Err(Violation::NoAck {
                len_bytes: datagram.len(),
            });
        };
        let messages = self
            .messages
            .get(&seqno.0)
            .ok_or(Violation::NeverSent { seqno: seqno.0 })?;
        let kept = |(kind, offset, bytes): &(Kind, u64, Vec<u8>)| {
            let is_stored = || receiver.holds(*kind, *offset, bytes);
            let has_bytes = !matches!(kind, Kind::Herald | Kind::Finished);
            may_acknowledge(*kind, has_bytes && is_stored(), receiver.is_durable())
        };
        match messages.iter().find(|message| !kept(message)) {
            Some((kind, offset, _)) if !messages.iter().any(kept) => Err(Violation::NotKept {
                seqno: seqno.0,
                kind: *kind,
                offset: *offset,
            }),
            _ => Ok(()),
        }
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The receiver sent something that is no acknowledgement.
    NoAck {
        /// Bytes of it.
        len_bytes: usize,
    },
    /// A number was acknowledged that no message had.
    NeverSent {
        /// That number.
        seqno: u32,
    },
    /// A message was acknowledged whose bytes storage did not hold, or FINISHED before everything was durable.
    NotKept {
        /// Its number.
        seqno: u32,
        /// Its kind.
        kind: Kind,
        /// Its offset.
        offset: u64,
    },
    /// Neither end had anything more to do, or they did not come to an end in time.
    NoEnd {
        /// The time by then.
        at: Instant,
    },
    /// What the session believes to have received is not what storage holds.
    Coverage {
        /// The kind of messages.
        kind: Kind,
    },
    /// The dump was finished and bytes are missing in storage.
    Missing {
        /// The kind of messages.
        kind: Kind,
        /// File offset of the write that is not all there.
        offset: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAck { len_bytes } => write!(f, "a receiver sent {len_bytes} bytes that are no acknowledgement"),
            Self::NeverSent { seqno } => write!(f, "message {seqno} was acknowledged and never sent"),
            Self::NotKept { seqno, kind, offset } => {
                write!(
                    f,
                    "message {seqno}, {kind} at {offset}, was acknowledged and is not kept"
                )
            }
            Self::NoEnd { at } => write!(f, "no end by {at}"),
            Self::Coverage { kind } => write!(f, "{kind}: the coverage is not what storage holds"),
            Self::Missing { kind, offset } => write!(f, "{kind} at {offset} is missing after FINISHED"),
        }
    }
}

impl core::error::Error for Violation {}
