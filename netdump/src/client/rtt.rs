use crate::time::Duration;

/// The retransmission time-out: RFC 6298 with bounds of our own, and with Karn's rule (an acknowledgement that may be
/// for either of two transmissions measures nothing, and a backed-off time-out stays until something is measured).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    smoothed: Option<Duration>,
    variance: Duration,
    least: Duration,
    backoff: u32,
    min: Duration,
    initial: Duration,
    max: Duration,
}

impl Rtt {
    pub(super) const fn new(min: Duration, initial: Duration, max: Duration) -> Self {
        Self {
            smoothed: None,
            variance: Duration::ZERO,
            least: Duration::MAX,
            backoff: 0,
            min,
            initial,
            max,
        }
    }

    /// A round trip was measured without doubt.
    pub(super) fn measured(&mut self, sample: Duration) {
        self.backoff = 0;
        self.least = self.least.min(sample);
        self.mix(sample);
    }

    /// An acknowledgement that may belong to an earlier transmission came `since_first` after the first of them. That is
    /// never too little, so it serves until something better comes: a path slower than the initial time-out would
    /// otherwise never be measured.
    pub(super) fn bounded(&mut self, since_first: Duration) {
        if self.smoothed.is_none() {
            self.mix(since_first.min(self.max));
        }
    }

    /// A time-out found nothing.
    pub(super) fn back_off(&mut self) {
        if self.timeout() < self.max {
            self.backoff += 1;
        }
    }

    /// The time-out of a packet sent now.
    pub(super) fn timeout(&self) -> Duration {
        // Never closer to the round trip than the least margin: on a steady path the variance goes to zero, and the first
        // late acknowledgement would send a whole window again.
        let measured = |smoothed| smoothed + self.min.max(self.variance * 4);
        let base = self.smoothed.map_or(self.initial, measured);
        let backed_off = base.checked_mul(1 << self.backoff.min(16)).unwrap_or(self.max);
        backed_off.min(self.max)
    }

    /// The smoothed round trip, if one was measured.
    pub(super) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The shortest round trip seen, zero before the first.
    pub(super) fn least(&self) -> Duration {
        if self.least == Duration::MAX {
            Duration::ZERO
        } else {
            self.least
        }
    }

    fn mix(&mut self, sample: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variance = sample / 2;
            }
            Some(smoothed) => {
                let off = smoothed.abs_diff(sample);
                self.variance = (self.variance * 3 + off) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn rtt() -> Rtt {
        Rtt::new(ms(20), ms(200), ms(1000))
    }

    #[test]
    fn a_fast_path_is_held_at_the_floor_and_backs_off_to_the_ceiling() {
        let mut rtt = rtt();
        assert_eq!(rtt.timeout(), ms(200));
        for _ in 0..20 {
            rtt.measured(ms(5));
        }
        assert_eq!(rtt.timeout(), ms(25));
        for expected in [50, 100, 200, 400, 800, 1000, 1000] {
            rtt.back_off();
            assert_eq!(rtt.timeout(), ms(expected));
        }
        rtt.measured(ms(5));
        assert_eq!(rtt.timeout(), ms(25));
    }

    #[test]
    fn a_doubtful_sample_counts_only_while_there_is_no_other() {
        let mut rtt = rtt();
        rtt.bounded(ms(300));
        assert_eq!(rtt.timeout(), ms(900));
        rtt.bounded(ms(1));
        assert_eq!(rtt.smoothed(), Some(ms(300)));
        assert_eq!(rtt.least(), Duration::ZERO);
    }
}
