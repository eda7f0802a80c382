use alloc::collections::VecDeque;

use super::{image::Image, ours::place, world::Receiver};
use crate::{
    time::{Duration, Instant},
    wire::{self, HERALD_PORT, Header, Kind, STOCK_DATA_LEN_MAX, Seqno},
};

/// A stock receiver as netdumpd is: acknowledges everything at once, from a new port, takes at most 4096 data bytes a
/// message, forgets a dump when the next one begins, and is gone after FINISHED.
#[derive(Debug)]
pub struct StockReceiver {
    port: u16,
    state: StockState,
    heard_at: Instant,
    images: [Image; 3],
    acks: VecDeque<Seqno>,
    dropped: u64,
    forgotten: u64,
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
            forgotten: 0,
        }
    }

    /// Dumps that it gave up for a HERALD that came in the middle, a late copy as well as a new one.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
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
        if herald && port == HERALD_PORT && self.state == StockState::Data {
            // A HERALD from the same address ends the dump before, complete or not.
            *self = Self {
                forgotten: self.forgotten + 1,
                ..Self::new(self.port.wrapping_add(1))
            };
        }
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
