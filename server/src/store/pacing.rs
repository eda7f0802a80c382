//! How far the disk may fall behind what is acknowledged: a state machine without a disk or a clock.
//!
//! The acknowledgement of FINISHED waits for one last sync, and stock senders wait 12 s for it. So write-back starts early,
//! and what is not synced yet stays below [`BACKLOG_TIME`] of the disk's measured rate. A sender that is faster is slowed
//! down: acknowledgements of its data are held, for less time than after which it sends again.
//!
//! ```text
//! wrote ─► sync due? ─► sync started ─► sync done: rate measured, less backlog ─► held acknowledgements may go
//! ```

use std::time::{Duration, Instant};

use crate::limits::{
    BACKLOG_BYTES_MIN, BACKLOG_TIME, HOLD_MAX, HOLD_MIN, RATE_FIRST, RATE_SAMPLE_BYTES, SYNC_BYTES_MAX, SYNC_BYTES_MIN,
    SYNC_TIME,
};

/// Bytes written and bytes synced of one file.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    /// Written since the last sync began.
    dirty_bytes: u64,
    /// When the first of them was written.
    dirty_since: Option<Instant>,
    running: Option<Running>,
    /// What the disk was seen to take.
    rate_bytes_per_s: Option<u64>,
}

/// A sync that runs.
#[derive(Debug, Clone, Copy)]
struct Running {
    since: Instant,
    bytes: u64,
}

impl Pacing {
    /// Bytes have been written.
    pub(crate) fn wrote(&mut self, now: Instant, bytes: u64) {
        self.dirty_bytes = self.dirty_bytes.saturating_add(bytes);
        self.dirty_since.get_or_insert(now);
    }

    /// Whether a sync is to be started: none runs, and half a second of the disk's work is waiting, or what waits has
    /// waited long enough.
    pub(crate) fn is_sync_due(&self, now: Instant) -> bool {
        let Some(since) = self.dirty_since.filter(|_| self.running.is_none()) else {
            return false;
        };
        let enough = (self.rate_bytes_per_s.unwrap_or(0) / 2).clamp(SYNC_BYTES_MIN, SYNC_BYTES_MAX);
        self.dirty_bytes >= enough || now.saturating_duration_since(since) >= SYNC_TIME
    }

    /// A sync of everything that is written was started.
    pub(crate) fn sync_started(&mut self, now: Instant) {
        self.running = Some(Running {
            since: now,
            bytes: self.dirty_bytes,
        });
        self.dirty_bytes = 0;
        self.dirty_since = None;
    }

    /// It is done.
    pub(crate) fn sync_done(&mut self, now: Instant) {
        let Some(done) = self.running.take() else {
            return;
        };
        // A short one says more about the disk's latency than about its rate.
        if done.bytes >= RATE_SAMPLE_BYTES {
            let seen = per_second(done.bytes, now.saturating_duration_since(done.since));
            let rate = self.rate_bytes_per_s.map_or(seen, |rate| rate / 2 + seen / 2);
            self.rate_bytes_per_s = Some(rate);
        }
    }

    /// Bytes that a loss of power would cost.
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.dirty_bytes + self.running.map_or(0, |running| running.bytes)
    }

    /// How long acknowledgements of data are to be held at most. They may go earlier, once this is zero.
    pub(crate) fn hold(&self, now: Instant) -> Duration {
        let rate = self.rate(now);
        // From three quarters on: a held sender still sends a burst each time.
        let most = rate.saturating_mul(BACKLOG_TIME.as_secs()).max(BACKLOG_BYTES_MIN);
        let backlog_max = most / 4 * 3;
        let Some(excess) = self
            .backlog_bytes()
            .checked_sub(backlog_max)
            .filter(|excess| *excess > 0)
        else {
            return Duration::ZERO;
        };
        let millis = excess.saturating_mul(1000) / rate.max(1);
        Duration::from_millis(millis).clamp(HOLD_MIN, HOLD_MAX)
    }

    /// What the disk takes now, in bytes per second: a sync that runs for long shows that it has become slow.
    fn rate(&self, now: Instant) -> u64 {
        let measured = self.rate_bytes_per_s.unwrap_or(RATE_FIRST);
        let running = self.running.filter(|running| running.bytes >= RATE_SAMPLE_BYTES);
        running.map_or(measured, |running| {
            measured.min(per_second(running.bytes, now.saturating_duration_since(running.since)))
        })
    }
}

/// Bytes in some time, as bytes per second.
fn per_second(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BURST: u64 = 64 * 1024;

    /// A sender that always has a next burst, on a link of `link` bytes/s, and a disk that syncs at `disk` bytes/s.
    /// Gives the largest backlog in seconds of the disk's work, and the longest hold.
    fn simulate(link: u64, disk: impl Fn(Duration) -> u64, time: Duration) -> (f64, Duration) {
        let began = Instant::now();
        let mut now = began;
        let mut pacing = Pacing::default();
        let mut sync_ends: Option<Instant> = None;
        let (mut worst, mut longest_hold) = (0.0_f64, Duration::ZERO);
        while now < began + time {
            now += Duration::from_secs_f64(BURST as f64 / link as f64);
            pacing.wrote(now, BURST);
            let received = now;
            loop {
                if let Some(end) = sync_ends.filter(|end| *end <= now) {
                    pacing.sync_done(end);
                    sync_ends = None;
                }
                if pacing.is_sync_due(now) {
                    pacing.sync_started(now);
                    let bytes = pacing.running.unwrap().bytes;
                    sync_ends = Some(now + Duration::from_secs_f64(bytes as f64 / disk(now - began) as f64));
                }
                let hold = pacing.hold(now);
                if hold.is_zero() || now >= received + hold {
                    break;
                }
                now += Duration::from_millis(5);
            }
            longest_hold = longest_hold.max(now - received);
            worst = worst.max(pacing.backlog_bytes() as f64 / disk(now - began) as f64);
        }
        (worst, longest_hold)
    }

    #[test]
    fn a_disk_that_keeps_up_holds_nothing() {
        let (_, hold) = simulate(100 * MIB, |_| 300 * MIB, Duration::from_secs(20));
        assert_eq!(hold, Duration::ZERO);
    }

    #[test]
    fn on_slower_disks_the_backlog_stays_below_its_time() {
        for disk in [2, 3, 5, 20, 80] {
            let (seconds, hold) = simulate(120 * MIB, |_| disk * MIB, Duration::from_secs(60));
            let few_bursts = (4 * BURST) as f64 / (disk * MIB) as f64;
            let bound = BACKLOG_TIME.as_secs_f64() + few_bursts;
            assert!(seconds <= bound, "{disk} MiB/s: {seconds} s of work waited");
            assert!(
                hold <= HOLD_MAX + Duration::from_millis(5),
                "{disk} MiB/s: held {hold:?}"
            );
        }
    }

    #[test]
    fn a_disk_that_becomes_slow_is_noticed_before_its_sync_ends() {
        // Half a second's worth of the fast disk takes the slow one 20 s.
        let slow_after_5_s = |at: Duration| if at.as_secs() < 5 { 200 * MIB } else { 3 * MIB };
        let (_, hold) = simulate(100 * MIB, slow_after_5_s, Duration::from_secs(30));
        assert!(hold > Duration::from_millis(500), "held only {hold:?}");
        assert!(hold <= HOLD_MAX + Duration::from_millis(5), "held {hold:?}");
    }

    #[test]
    fn write_back_starts_early_and_old_bytes_do_not_wait_for_company() {
        let now = Instant::now();
        let mut pacing = Pacing::default();
        assert!(!pacing.is_sync_due(now + SYNC_TIME), "there is nothing to sync");
        pacing.wrote(now, 4096);
        assert!(!pacing.is_sync_due(now));
        assert!(pacing.is_sync_due(now + SYNC_TIME));
        pacing.wrote(now, SYNC_BYTES_MIN);
        assert!(pacing.is_sync_due(now));
        pacing.sync_started(now);
        pacing.wrote(now, SYNC_BYTES_MAX);
        assert!(!pacing.is_sync_due(now), "one at a time");
        assert_eq!(pacing.backlog_bytes(), 4096 + SYNC_BYTES_MIN + SYNC_BYTES_MAX);
        pacing.sync_done(now + Duration::from_millis(100));
        assert_eq!(pacing.backlog_bytes(), SYNC_BYTES_MAX);
    }
}
