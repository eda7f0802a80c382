//! Decides what a sign of a crash means: pure state machine, knows no clock and no virtual machine.
//!
//! ```text
//!            CRASHLOADED                 trigger, or the grace time ends
//!  healthy ──────────────► guest dumps itself ─────────────────────────► crashed (kdump-failed)
//!     └── any other trigger ───┴──────────────────────────────────────► crashed (first trigger wins)
//!                                                                          later ones are only recorded
//! ```
//!
//! A guest that resets or powers off by itself has not crashed: each incarnation gets a detector of its own.
use std::fmt;
use std::time::Duration;

use crate::limits::CRASH_LOADED_GRACE;

/// A sign that the guest may have crashed, or a request to dump it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// pvpanic said PANICKED and the guest's panic record is whole.
    PanicRecord {
        /// The message in the record.
        message: String,
        /// The vCPU that panicked, if the guest knew.
        crashed_cpu: Option<u32>,
    },
    /// pvpanic said PANICKED; there is no panic record (QEMU docs/specs/pvpanic, bit 0).
    Pvpanic,
    /// pvpanic said CRASHLOADED: the guest will dump itself (QEMU docs/specs/pvpanic, bit 1).
    CrashLoaded,
    /// A vCPU shut down after a triple fault (KVM_EXIT_SHUTDOWN).
    TripleFault,
    /// KVM could not go on (KVM_EXIT_INTERNAL_ERROR).
    InternalError {
        /// KVM's suberror; 1 is an instruction that KVM cannot emulate.
        suberror: u32,
    },
    /// A vCPU could not be entered (KVM_EXIT_FAIL_ENTRY).
    EntryFailed {
        /// The hardware's reason.
        reason: u64,
    },
    /// The guest reported a crash through KVM (KVM_EXIT_SYSTEM_EVENT, type KVM_SYSTEM_EVENT_CRASH).
    SystemEventCrash,
    /// A vCPU stopped for a reason that this program does not know; its guest will not go on.
    VcpuFailed {
        /// Which one.
        vcpu: u8,
        /// What KVM said.
        what: String,
    },
    /// Somebody asked for a dump.
    ApiRequest {
        /// What they gave as the reason.
        reason: String,
    },
    /// The serial console said that the kernel panics (opt-in).
    PanicConsole {
        /// The line.
        line: String,
    },
    /// The grace time after CRASHLOADED ended and the guest's own dump has not restarted it. Made by [`Detector`].
    KdumpFailed,
}

impl Trigger {
    /// The name in manifests and logs; stable.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Trigger::PanicRecord { .. } => "panic-record",
            Trigger::Pvpanic => "pvpanic",
            Trigger::CrashLoaded => "crash-loaded",
            Trigger::TripleFault => "triple-fault",
            Trigger::InternalError { .. } => "kvm-internal-error",
            Trigger::EntryFailed { .. } => "kvm-entry-failed",
            Trigger::SystemEventCrash => "kvm-system-event-crash",
            Trigger::VcpuFailed { .. } => "vcpu-failed",
            Trigger::ApiRequest { .. } => "api-request",
            Trigger::PanicConsole { .. } => "panic-console",
            Trigger::KdumpFailed => "kdump-failed",
        }
    }

    /// Whether the vCPU that reported it stays stopped until somebody decides. A guest that dumps itself goes on.
    #[must_use]
    pub fn holds_vcpu(&self) -> bool {
        !matches!(
            self,
            Trigger::CrashLoaded | Trigger::ApiRequest { .. } | Trigger::KdumpFailed
        )
    }

    /// Whether the guest crashed, as opposed to a dump of a healthy guest that somebody asked for.
    #[must_use]
    pub fn is_crash(&self) -> bool {
        !matches!(self, Trigger::CrashLoaded | Trigger::ApiRequest { .. })
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::PanicRecord {
                message,
                crashed_cpu: Some(cpu),
            } => write!(f, "the guest panicked on CPU {cpu}: {message}"),
            Trigger::PanicRecord {
                message,
                crashed_cpu: None,
            } => write!(f, "the guest panicked: {message}"),
            Trigger::Pvpanic => f.write_str("the guest reported a panic (pvpanic)"),
            Trigger::CrashLoaded => f.write_str("the guest panicked and dumps itself (pvpanic CRASHLOADED)"),
            Trigger::TripleFault => f.write_str("a vCPU shut down after a triple fault"),
            Trigger::InternalError { suberror } => write!(f, "KVM internal error, suberror {suberror}"),
            Trigger::EntryFailed { reason } => write!(f, "KVM could not enter a vCPU, hardware reason {reason:#x}"),
            Trigger::SystemEventCrash => f.write_str("the guest reported a crash through KVM"),
            Trigger::VcpuFailed { vcpu, what } => write!(f, "vCPU {vcpu} stopped for good: {what}"),
            Trigger::ApiRequest { reason } => write!(f, "a dump was asked for: {reason}"),
            Trigger::PanicConsole { line } => write!(f, "the serial console said: {line}"),
            Trigger::KdumpFailed => f.write_str("the guest's own dump failed or took too long"),
        }
    }
}

/// What to do about a trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Freeze the guest and dump it, for this reason.
    Dump(Trigger),
    /// Write it down; a dump is already decided, or the guest dumps itself.
    Record,
}

/// The state machine. `now` is a monotonic time since any fixed moment.
#[derive(Clone, Debug)]
pub struct Detector {
    grace: Duration,
    state: State,
    /// Triggers so far.
    recorded: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Healthy,
    GuestDumps { until: Duration },
    Crashed,
}

/// Most triggers that are told; a guest can write pvpanic as often as it likes.
const RECORDED_MAX: u64 = 64;

impl Default for Detector {
    fn default() -> Self {
        Detector::new(CRASH_LOADED_GRACE)
    }
}

impl Detector {
    /// A detector whose guests get `grace` for a dump of their own.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Detector {
            grace,
            state: State::Healthy,
            recorded: 0,
        }
    }

    /// Takes a trigger.
    pub fn handle(&mut self, now: Duration, trigger: Trigger) -> Decision {
        self.recorded = self.recorded.saturating_add(1);
        match (self.state, trigger) {
            (State::Crashed, _) => Decision::Record,
            (State::Healthy, Trigger::CrashLoaded) => {
                self.state = State::GuestDumps {
                    until: now.saturating_add(self.grace),
                };
                Decision::Record
            }
            (State::GuestDumps { .. }, Trigger::CrashLoaded) => Decision::Record,
            (State::GuestDumps { .. }, trigger) if trigger.is_crash() => {
                self.state = State::Crashed;
                Decision::Dump(Trigger::KdumpFailed)
            }
            (State::Healthy | State::GuestDumps { .. }, trigger) => {
                self.state = State::Crashed;
                Decision::Dump(trigger)
            }
        }
    }

    /// When [`Detector::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.state {
            State::GuestDumps { until } => Some(until),
            State::Healthy | State::Crashed => None,
        }
    }

    /// Ends the grace time if it is over.
    pub fn handle_timeout(&mut self, now: Duration) -> Option<Decision> {
        match self.state {
            State::GuestDumps { until } if now >= until => {
                self.state = State::Crashed;
                Some(Decision::Dump(Trigger::KdumpFailed))
            }
            _ => None,
        }
    }

    /// How many triggers came after as many as are worth telling.
    #[must_use]
    pub fn recorded_dropped(&self) -> u64 {
        self.recorded.saturating_sub(RECORDED_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_first_trigger_wins_and_later_ones_are_only_recorded() {
        let mut detector = Detector::default();
        assert_eq!(
            detector.handle(MINUTE, Trigger::Pvpanic),
            Decision::Dump(Trigger::Pvpanic)
        );
        assert_eq!(detector.handle(2 * MINUTE, Trigger::TripleFault), Decision::Record);
    }

    #[test]
    fn crash_loaded_waits_ten_minutes_and_then_dumps_as_kdump_failed() {
        let mut detector = Detector::default();
        assert_eq!(detector.handle(MINUTE, Trigger::CrashLoaded), Decision::Record);
        assert_eq!(detector.poll_timeout(), Some(11 * MINUTE));
        assert_eq!(detector.handle_timeout(10 * MINUTE), None);
        assert_eq!(
            detector.handle_timeout(11 * MINUTE),
            Some(Decision::Dump(Trigger::KdumpFailed))
        );
        assert_eq!(detector.poll_timeout(), None);
    }

    #[test]
    fn a_crash_in_the_grace_time_dumps_as_kdump_failed() {
        for trigger in [Trigger::Pvpanic, Trigger::TripleFault] {
            let mut detector = Detector::default();
            detector.handle(MINUTE, Trigger::CrashLoaded);
            assert_eq!(
                detector.handle(2 * MINUTE, trigger),
                Decision::Dump(Trigger::KdumpFailed)
            );
        }
    }

    #[test]
    fn a_second_crash_loaded_does_not_prolong_the_grace_time() {
        let mut detector = Detector::default();
        detector.handle(MINUTE, Trigger::CrashLoaded);
        detector.handle(5 * MINUTE, Trigger::CrashLoaded);
        assert_eq!(detector.poll_timeout(), Some(11 * MINUTE));
    }

    #[test]
    fn a_request_during_the_grace_time_dumps_as_a_request() {
        let mut detector = Detector::default();
        detector.handle(MINUTE, Trigger::CrashLoaded);
        let request = Trigger::ApiRequest {
            reason: "test".to_owned(),
        };
        assert_eq!(detector.handle(2 * MINUTE, request.clone()), Decision::Dump(request));
    }

    #[test]
    fn what_is_told_of_triggers_is_bounded() {
        let mut detector = Detector::default();
        for _ in 0..100 {
            detector.handle(MINUTE, Trigger::Pvpanic);
        }
        assert_eq!(detector.recorded_dropped(), 36);
    }
}
