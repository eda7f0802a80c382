use super::{
    image::Image,
    ingest::OurIngest,
    world::{Receiver, SendOutcome, Sender},
};
use crate::{
    time::{Duration, Instant},
    wire::Kind,
};

/// A sender that loses power in the middle of its dump, or fails, and one that begins anew a while later: the machine
/// after its reboot, or the kernel with its next dump device.
#[derive(Debug)]
pub struct Retried<S> {
    first: S,
    second: S,
    cut_at: Option<Instant>,
    pause: Duration,
    /// When the second one begins, once that is known; its clock begins there, too.
    second_at: Option<Instant>,
    second_began: bool,
}

impl<S: Sender> Retried<S> {
    /// `first` until `cut_at`, if that is given, and `second` after a pause. Both are made to begin at zero.
    #[must_use]
    pub const fn new(first: S, second: S, cut_at: Option<Instant>, pause: Duration) -> Self {
        Self {
            first,
            second,
            cut_at,
            pause,
            second_at: None,
            second_began: false,
        }
    }

    /// Whether there was a second attempt.
    #[must_use]
    pub const fn was_retried(&self) -> bool {
        self.second_at.is_some()
    }

    fn turn(&mut self, now: Instant) {
        let cut = self.cut_at.is_some_and(|cut_at| cut_at <= now);
        let ended = match self.first.outcome() {
            None => cut,
            Some(outcome) => outcome == SendOutcome::Failed,
        };
        if ended && self.second_at.is_none() {
            self.second_at = Some(now + self.pause);
        }
    }

    /// The one whose turn it is, and its time; nobody during the pause.
    fn current(&mut self, now: Instant) -> Option<(&mut S, Instant)> {
        self.turn(now);
        match self.second_at {
            None => Some((&mut self.first, now)),
            Some(at) if at <= now => Some((&mut self.second, Instant::ZERO + now.since(at))),
            Some(_) => None,
        }
    }
}

impl<S: Sender> Sender for Retried<S> {
    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<(u16, usize)> {
        let (sender, now) = self.current(now)?;
        sender.transmit(now, out)
    }

    fn receive(&mut self, now: Instant, source_port: u16, datagram: &[u8]) {
        if let Some((sender, now)) = self.current(now) {
            sender.receive(now, source_port, datagram);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.second_at {
            None => {
                let cut_at = self.cut_at.filter(|_| self.first.outcome().is_none());
                [self.first.deadline(), cut_at].into_iter().flatten().min()
            }
            Some(at) if !self.second_began => Some(at),
            Some(at) => {
                let local = self.second.deadline().map(Instant::as_nanos);
                local.map(|nanos| at + Duration::from_nanos(nanos))
            }
        }
    }

    fn timeout(&mut self, now: Instant) {
        if let Some((sender, now)) = self.current(now) {
            sender.timeout(now);
        }
        self.turn(now);
        self.second_began = self.second_at.is_some_and(|at| at <= now);
    }

    fn outcome(&self) -> Option<SendOutcome> {
        match (self.first.outcome(), self.second_at) {
            (first, None) => first.filter(|outcome| *outcome == SendOutcome::Finished),
            (_, Some(_)) => self.second.outcome(),
        }
    }
}

/// A receiver that is killed at a time, and the one that is started in its place.
#[derive(Debug)]
pub struct Replaced<R> {
    first: R,
    second: R,
    at: Instant,
    replaced: bool,
}

impl<R: Receiver> Replaced<R> {
    /// `first` until `at`, then `second`.
    #[must_use]
    pub const fn new(first: R, second: R, at: Instant) -> Self {
        Self {
            first,
            second,
            at,
            replaced: false,
        }
    }

    /// The one whose turn it is.
    #[must_use]
    pub const fn current(&self) -> &R {
        if self.replaced { &self.second } else { &self.first }
    }

    /// The one whose dump is safe, else the one whose turn it is.
    #[must_use]
    pub fn judged(&self) -> &R {
        if self.first.is_durable() {
            &self.first
        } else {
            self.current()
        }
    }

    fn current_mut(&mut self, now: Instant) -> &mut R {
        self.replaced |= self.at <= now;
        if self.replaced {
            &mut self.second
        } else {
            &mut self.first
        }
    }
}

impl<R: Receiver> Receiver for Replaced<R> {
    fn receive(&mut self, now: Instant, port: u16, datagram: &[u8]) {
        self.current_mut(now).receive(now, port, datagram);
    }

    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<(u16, usize)> {
        self.current_mut(now).transmit(now, out)
    }

    fn deadline(&self) -> Option<Instant> {
        let restart = (!self.replaced).then_some(self.at);
        [self.current().deadline(), restart].into_iter().flatten().min()
    }

    fn timeout(&mut self, now: Instant) {
        self.current_mut(now).timeout(now);
    }

    fn is_over(&self) -> bool {
        self.current().is_over()
    }

    fn image(&self, kind: Kind) -> Option<&Image> {
        self.current().image(kind)
    }

    fn is_durable(&self) -> bool {
        self.current().is_durable()
    }

    fn holds(&self, kind: Kind, offset: u64, bytes: &[u8]) -> bool {
        self.current().holds(kind, offset, bytes)
    }
}

/// Our receiver whose process is killed at a time, and started again with its storage a while later.
#[derive(Debug)]
pub struct Restarted {
    ingest: OurIngest,
    down_at: Instant,
    up_at: Instant,
    is_up_again: bool,
}

impl Restarted {
    /// `ingest`, killed at `down_at` and back after `down_for`.
    #[must_use]
    pub fn new(ingest: OurIngest, down_at: Instant, down_for: Duration) -> Self {
        Self {
            ingest,
            down_at,
            up_at: down_at + down_for,
            is_up_again: false,
        }
    }

    /// The receiver.
    #[must_use]
    pub const fn ingest(&self) -> &OurIngest {
        &self.ingest
    }

    fn is_up(&mut self, now: Instant) -> bool {
        if self.up_at <= now && !self.is_up_again {
            self.is_up_again = true;
            self.ingest.take_over(now);
        }
        now < self.down_at || self.is_up_again
    }
}

impl Receiver for Restarted {
    fn receive(&mut self, now: Instant, port: u16, datagram: &[u8]) {
        if self.is_up(now) {
            self.ingest.receive(now, port, datagram);
        }
    }

    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<(u16, usize)> {
        if self.is_up(now) {
            self.ingest.transmit(now, out)
        } else {
            None
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.is_up_again {
            return self.ingest.deadline();
        }
        let ingest = self.ingest.deadline().filter(|at| *at < self.down_at);
        [ingest, Some(self.up_at)].into_iter().flatten().min()
    }

    fn timeout(&mut self, now: Instant) {
        if self.is_up(now) {
            self.ingest.timeout(now);
        }
    }

    fn is_over(&self) -> bool {
        self.ingest.is_over()
    }

    fn image(&self, kind: Kind) -> Option<&Image> {
        self.ingest.image(kind)
    }

    fn is_durable(&self) -> bool {
        self.ingest.is_durable()
    }

    fn holds(&self, kind: Kind, offset: u64, bytes: &[u8]) -> bool {
        self.ingest.holds(kind, offset, bytes)
    }
}
