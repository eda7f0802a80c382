//! Interrupts: causes, mask, the level of INTA#, and moderation (SDM chapter 13: ICR, ITR, ICS, IMS,
//! IMC, RDTR, RADV, TIDV, TADV).
//!
//! `level = (ICR & IMS) != 0`, where a rise is put off until ITR allows it and a fall never is.

use crate::spec::registers::cause;

/// Everything that decides the interrupt line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Interrupts {
    /// ICR.
    pub(super) causes: u32,
    /// IMS.
    pub(super) mask: u32,
    /// ITR, in units of 256 ns.
    pub(super) interval: u32,
    /// The line.
    pub(super) level: bool,
    /// When the line last rose; before the clock's start, if that was on another clock.
    pub(super) rose_ns: Option<i64>,
    /// RXT0 put off by RDTR and RADV.
    pub(super) receive: Delay,
    /// TXDW put off by TIDV and TADV.
    pub(super) transmit: Delay,
}

/// A cause that waits: for silence, but not longer than a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Delay {
    /// Restarted by each packet.
    pub(super) packet_ns: Option<u64>,
    /// Counted from the first packet.
    pub(super) cap_ns: Option<u64>,
}

impl Delay {
    /// Another packet came; both times in units of 1.024 us, a cap of 0 is none.
    pub(super) fn restart(&mut self, now_ns: u64, packet_units: u32, cap_units: u32) {
        let after = |units: u32| now_ns.saturating_add(u64::from(units) * DELAY_UNIT_NS);
        self.packet_ns = Some(after(packet_units));
        if cap_units != 0 && self.cap_ns.is_none() {
            self.cap_ns = Some(after(cap_units));
        }
    }

    /// When the cause is due.
    fn deadline(&self) -> Option<u64> {
        earliest(self.packet_ns, self.cap_ns)
    }
}

impl Interrupts {
    /// Sets causes.
    pub(super) fn raise(&mut self, causes: u32) {
        self.causes |= causes & cause::ALL;
        if causes & cause::RXT0 != 0 {
            self.receive = Delay::default();
        }
        if causes & cause::TXDW != 0 {
            self.transmit = Delay::default();
        }
    }

    /// Reads and clears all causes.
    pub(super) fn take(&mut self) -> u32 {
        core::mem::take(&mut self.causes)
    }

    /// Delivers the receive cause now if one waits.
    pub(super) fn flush_receive(&mut self) {
        if self.receive.deadline().is_some() {
            self.raise(cause::RXT0);
        }
    }

    /// Recomputes the line; to be called after every change.
    pub(super) fn evaluate(&mut self, now_ns: u64) {
        let wanted = self.causes & self.mask != 0;
        if !wanted {
            self.level = false;
        } else if !self.level && self.allowed_ns().is_none_or(|allowed| allowed <= now_ns) {
            self.level = true;
            self.rose_ns = Some(signed(now_ns));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn deadline(&self) -> Option<u64> {
        let throttled = (self.causes & self.mask != 0 && !self.level).then(|| self.allowed_ns().unwrap_or(0));
        earliest(throttled, earliest(self.receive.deadline(), self.transmit.deadline()))
    }

    /// Fires what is due.
    pub(super) fn handle_timeout(&mut self, now_ns: u64) {
        if self.receive.deadline().is_some_and(|due| due <= now_ns) {
            self.raise(cause::RXT0);
        }
        if self.transmit.deadline().is_some_and(|due| due <= now_ns) {
            self.raise(cause::TXDW);
        }
        self.evaluate(now_ns);
    }

    /// When the line may rise again.
    fn allowed_ns(&self) -> Option<u64> {
        let window = i64::from(self.interval) * INTERVAL_UNIT_NS;
        self.rose_ns
            .map(|rose| u64::try_from(rose.saturating_add(window)).unwrap_or(0))
    }
}

/// A time that can be counted back beyond the clock's start; 292 years are enough.
pub(super) fn signed(time_ns: u64) -> i64 {
    i64::try_from(time_ns).unwrap_or(i64::MAX)
}

/// The earlier of two deadlines.
pub(super) fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Unit of ITR.
const INTERVAL_UNIT_NS: i64 = 256;

/// Unit of RDTR, RADV, TIDV, TADV.
const DELAY_UNIT_NS: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_cause_is_lost_and_rises_keep_their_spacing(
            interval in 0_u32..600,
            steps in proptest::collection::vec((0_u8..5, 0_u32..0x1FFFF, 0_u64..200_000), 1..200),
        ) {
            let mut irq = Interrupts { interval, ..Interrupts::default() };
            let (mut now, mut expected, mut last_rise) = (0, 0, None);
            for (what, bits, wait) in steps {
                now += wait;
                let before = irq.level;
                match what {
                    0 => { irq.raise(bits); expected |= bits; }
                    1 => { prop_assert_eq!(irq.take(), expected); expected = 0; }
                    2 => irq.mask |= bits,
                    3 => irq.mask &= !bits,
                    _ => irq.handle_timeout(now),
                }
                irq.evaluate(now);
                prop_assert_eq!(irq.causes, expected);
                if irq.level && !before {
                    if let Some(last) = last_rise {
                        prop_assert!(now - last >= u64::from(interval) * 256);
                    }
                    last_rise = Some(now);
                }
                let wanted = irq.causes & irq.mask != 0;
                prop_assert!(wanted || !irq.level);
                if wanted && !irq.level {
                    let due = irq.deadline();
                    prop_assert!(due.is_some_and(|due| due > now), "a throttled line has a deadline ahead");
                }
            }
        }
    }

    #[test]
    fn delayed_cause_waits_for_silence_but_not_beyond_its_cap() {
        let mut irq = Interrupts::default();
        irq.receive.restart(0, 10, 15);
        irq.receive.restart(9 * 1024, 10, 15);
        assert_eq!(irq.deadline(), Some(15 * 1024));
        irq.handle_timeout(15 * 1024 - 1);
        assert_eq!(irq.causes, 0);
        irq.handle_timeout(15 * 1024);
        assert_eq!((irq.causes, irq.deadline()), (cause::RXT0, None));
    }
}
