//! The sending end of a dump, at the level of UDP payloads.
//!
//! The caller pushes bytes with their file offsets; the client cuts them into messages, keeps them until they are
//! acknowledged and sends them again when they seem lost: after later packets were acknowledged, or after a time-out
//! that follows the measured round trip. To a receiver it looks like a stock client that never waits at the end of a
//! burst: a stock receiver acknowledges every message by itself and in any order.
//!
//! ```
//! use netdump::{Client, ClientConfig, Instant, Kind, wire};
//!
//! let now = Instant::ZERO;
//! let mut client = Client::new(ClientConfig::stock(1500), "", vec![0; 65536], now)?;
//! let mut out = [0; 2048];
//! let herald = client.poll_transmit(now, &mut out).unwrap();
//! assert_eq!((herald.port, herald.len), (wire::HERALD_PORT, 24));
//! client.handle_datagram(now, 49152, &[0, 0, 0, 1]);
//! assert_eq!(client.push(Kind::Vmcore, 0, &[7; 4096]), 4096);
//! let data = client.poll_transmit(now, &mut out).unwrap();
//! assert_eq!((data.port, data.len), (49152, 24 + 1448));
//! # Ok::<(), netdump::client::ClientConfigError>(())
//! ```

mod config;
mod outcome;
mod rtt;
mod window;

pub use self::{
    config::{ClientConfig, ClientConfigError},
    outcome::{ClientError, ClientEvent, ClientStats, Transmit},
};
use self::{
    rtt::Rtt,
    window::{AckOutcome, Window},
};
use crate::{
    limits,
    time::Instant,
    wire::{self, HERALD_PORT, Kind},
};

/// A client of one dump towards one receiver.
///
/// `B` is the send buffer: a `Vec`, a boxed slice, an array or a `&mut [u8]` of at least
/// [`ClientConfig::window_bytes`].
#[derive(Debug)]
pub struct Client<B> {
    config: ClientConfig,
    window: Window<B>,
    rtt: Rtt,
    phase: Phase,
    finish_wanted: bool,
    port: u16,
    /// Packets that may be in flight now; shrinks after time-outs.
    window_now: u32,
    growth_acks: u32,
    /// Transmissions by which a packet must be overtaken to count as lost.
    reorder: u64,
    /// No packet times out before this.
    check_at: Option<Instant>,
    /// When something was last acknowledged for the first time, or first sent after everything was.
    quiet_since: Instant,
    connected: Option<ClientEvent>,
    ended: Option<ClientEvent>,
    stats: ClientStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Sending,
    /// `finish` was called; FINISHED is not pushed before everything is acknowledged.
    Draining,
    Finishing,
    Over,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Client<B> {
    /// A client that has its HERALD ready. `herald_path` is the directory label of netdump(4), empty for none.
    ///
    /// # Errors
    ///
    /// [`ClientConfigError`] if the configuration, the path or the length of the buffer does not fit.
    pub fn new(config: ClientConfig, herald_path: &str, buffer: B, now: Instant) -> Result<Self, ClientConfigError> {
        config.check(herald_path, buffer.as_ref().len())?;
        let mut window = Window::new(buffer, config.window_bytes, config.window_packets);
        let mut herald = [0; limits::HERALD_LEN_MAX];
        let with_nul = if herald_path.is_empty() {
            0
        } else {
            herald_path.len() + 1
        };
        if let Some(room) = herald.get_mut(..herald_path.len()) {
            room.copy_from_slice(herald_path.as_bytes());
        }
        window.push(Kind::Herald, 0, herald.get(..with_nul).unwrap_or_default());
        Ok(Self {
            config,
            window,
            rtt: Rtt::new(config.rto_min, config.rto_initial, config.rto_max),
            phase: Phase::Connecting,
            finish_wanted: false,
            port: HERALD_PORT,
            window_now: config.window_packets,
            growth_acks: 0,
            reorder: limits::REORDER_PACKETS,
            check_at: None,
            quiet_since: now,
            connected: None,
            ended: None,
            stats: ClientStats::default(),
        })
    }

    /// Data bytes that [`Client::push`] would take now: none while the window is full, before a receiver answered and
    /// after [`Client::finish`]. It is a number of whole messages: filling up a window with crumbs as they become free
    /// would use up its packets.
    #[must_use]
    pub fn capacity(&self) -> usize {
        if self.phase != Phase::Sending {
            return 0;
        }
        let packets = usize::try_from(self.window.packets_free()).unwrap_or(0);
        packets.min(self.window.bytes_free() / self.config.payload_len_max) * self.config.payload_len_max
    }

    /// Takes the first bytes of `bytes`, up to [`Client::capacity`], and returns how many. Only the last of the messages
    /// that they are cut into is shorter than the others, so long runs are best. `offset` is that of the first byte in
    /// the object that `kind` names; HERALD and FINISHED are the client's own and take nothing.
    pub fn push(&mut self, kind: Kind, offset: u64, bytes: &[u8]) -> usize {
        if matches!(kind, Kind::Herald | Kind::Finished) {
            return 0;
        }
        let taken = bytes.len().min(self.capacity());
        let mut at = offset;
        for packet in bytes
            .get(..taken)
            .unwrap_or_default()
            .chunks(self.config.payload_len_max)
        {
            self.window.push(kind, at, packet);
            at = at.wrapping_add(packet.len() as u64);
        }
        self.stats.pushed_bytes += taken as u64;
        taken
    }

    /// No more will be pushed: FINISHED goes out as soon as everything is acknowledged, HERALD included.
    pub fn finish(&mut self) {
        self.finish_wanted = true;
        if self.phase == Phase::Sending {
            self.phase = Phase::Draining;
        }
    }

    /// Bytes that `out` of [`Client::poll_transmit`] must hold.
    #[must_use]
    pub const fn datagram_len_max(&self) -> usize {
        self.config.datagram_len_max()
    }

    /// Writes the next message to be sent now, if there is one. It is to be called until it returns `None`; a message
    /// that could not be sent may be dropped, it comes again. `None` also if `out` is too short.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        if self.phase == Phase::Draining && self.window.is_empty() {
            self.window.push(Kind::Finished, 0, &[]);
            self.phase = Phase::Finishing;
        }
        let in_flight = self.window.in_flight();
        if self.phase == Phase::Over || in_flight >= self.window_now {
            return None;
        }
        let seq = self.window.next_to_send()?;
        let len = self.window.write(seq, out)?;
        if self.window.unacknowledged() == 0 {
            self.check_at = None;
            if self.phase != Phase::Connecting {
                self.quiet_since = now;
            }
        }
        let again = self.window.sent(seq, now);
        let due = now + self.rtt.timeout();
        self.check_at = Some(self.check_at.map_or(due, |check_at| check_at.min(due)));
        self.stats.sent_packets += 1;
        self.stats.sent_bytes += len as u64;
        self.stats.retransmitted_packets += u64::from(again);
        Some(Transmit { port: self.port, len })
    }

    /// Takes a datagram of the receiver that came from its UDP port `source_port`. Only acknowledgements count, and
    /// after the first one only those from the same port: an earlier dump's late ones must not acknowledge this one.
    pub fn handle_datagram(&mut self, now: Instant, source_port: u16, payload: &[u8]) {
        let ack = wire::parse_ack(payload).ok().filter(|_| self.phase != Phase::Over);
        let expected = self.phase == Phase::Connecting || source_port == self.port;
        let Some(ack) = ack.filter(|_| expected) else {
            self.stats.ignored_datagrams += 1;
            return;
        };
        match self.window.acknowledge(ack) {
            AckOutcome::Unknown => self.stats.ignored_datagrams += 1,
            AckOutcome::Again { spurious } => {
                self.stats.repeated_acks += 1;
                if spurious {
                    self.reorder = (self.reorder * 2).min(limits::REORDER_PACKETS_MAX);
                }
            }
            AckOutcome::New { slot, resent } => {
                self.quiet_since = now;
                self.stats.acked_packets += 1;
                self.measure(now, &slot, resent);
                self.advance(source_port, slot.kind, slot.len);
            }
        }
    }

    /// When [`Client::handle_timeout`] is to be called; `None` while nothing is awaited.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let give_up_at = self.give_up_at()?;
        Some(self.check_at.map_or(give_up_at, |check_at| check_at.min(give_up_at)))
    }

    /// Looks for packets that timed out, and whether the receiver has been silent for too long. Calling it early does
    /// no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(deadline) = self.poll_timeout() else { return };
        let late = now.since(deadline);
        if late > limits::CALLER_AWAY_MIN {
            self.quiet_since = self.quiet_since + late;
        }
        if self.check_at.is_some_and(|check_at| check_at <= now) {
            let (lost, next_check_at) = self.window.time_out(now, self.rtt.timeout());
            self.check_at = next_check_at;
            if lost > 0 {
                self.rtt.back_off();
                self.window_now =
                    (self.window_now / 2).max(limits::WINDOW_PACKETS_FLOOR.min(self.config.window_packets));
                self.stats.timeouts += 1;
            }
        }
        if self.give_up_at().is_some_and(|give_up_at| give_up_at <= now) {
            self.give_up(now);
        }
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.connected.take().or_else(|| self.ended.take())
    }

    /// Whether the dump ended, well or not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether everything pushed so far is acknowledged.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.window.is_empty()
    }

    /// Packets that are on their way.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.window.in_flight()
    }

    /// What was sent and acknowledged so far.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        ClientStats {
            round_trip: self.rtt.smoothed(),
            ..self.stats
        }
    }

    fn measure(&mut self, now: Instant, slot: &window::Slot, resent: bool) {
        let since_sent = now.since(slot.sent_at);
        if resent {
            self.rtt.bounded(now.since(slot.first_sent_at));
        } else {
            self.rtt.measured(since_sent);
            self.growth_acks += 1;
            if self.growth_acks >= limits::WINDOW_GROWTH_ACKS {
                self.growth_acks = 0;
                self.window_now = (self.window_now + 1).min(self.config.window_packets);
            }
        }
        // Faster than any round trip so far: that was the answer to an earlier transmission, which proves nothing about
        // packets sent since.
        if !resent || since_sent >= self.rtt.least() {
            let lost = self.window.overtake(slot.seq, slot.order, self.reorder);
            self.stats.overtaken_packets += u64::from(lost);
        }
    }

    fn advance(&mut self, source_port: u16, kind: Kind, len: usize) {
        match kind {
            Kind::Herald => {
                self.phase = if self.finish_wanted {
                    Phase::Draining
                } else {
                    Phase::Sending
                };
                self.port = source_port;
                self.connected = Some(ClientEvent::Connected { port: source_port });
            }
            Kind::Finished => {
                self.phase = Phase::Over;
                self.ended = Some(ClientEvent::Finished);
            }
            Kind::Vmcore | Kind::KernelHeader | Kind::Key => self.stats.acked_bytes += len as u64,
        }
    }

    fn give_up_at(&self) -> Option<Instant> {
        let limit = match self.phase {
            Phase::Connecting => self.config.answer_within,
            Phase::Sending | Phase::Draining if self.window.unacknowledged() > 0 => self.config.give_up_after,
            Phase::Finishing if self.window.unacknowledged() > 0 => self.config.finished_within,
            Phase::Sending | Phase::Draining | Phase::Finishing | Phase::Over => return None,
        };
        Some(self.quiet_since + limit)
    }

    fn give_up(&mut self, now: Instant) {
        let waited = now.since(self.quiet_since);
        let unacknowledged_packets = self.window.unacknowledged();
        let error = match self.phase {
            Phase::Connecting => ClientError::NoAnswer { waited },
            Phase::Finishing => ClientError::Unfinished { waited },
            Phase::Sending | Phase::Draining | Phase::Over => {
                let oldest_offset = self.window.oldest().map_or(0, |slot| slot.offset);
                ClientError::Silent {
                    waited,
                    unacknowledged_packets,
                    oldest_offset,
                }
            }
        };
        self.phase = Phase::Over;
        self.ended = Some(ClientEvent::Failed(error));
    }
}
