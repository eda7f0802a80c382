//! What happens to the guest once its memory is safe, or could not be saved.
//!
//! A pure state machine: the attempt to dump has ended (receiver, spool, deadline), [`Policy::after_crash`] says what to do
//! with the guest. A crash loop is braked: more restarts than [`RestartLimit`] allows, and the guest is preserved instead, so
//! that one bad kernel does not fill the receiver with copies of the same core.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What the operator asked for with `--on-crash`. The names follow libvirt's `on_crash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnCrash {
    /// Whether guest memory is ferried away before the action.
    pub dump: bool,
    /// What happens to the guest afterwards.
    pub action: CrashAction,
}

/// What is done with a crashed guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashAction {
    /// Kept frozen as it is, until somebody stops it.
    Preserve,
    /// Thrown away, and a new incarnation boots.
    Restart,
    /// Thrown away; the process ends.
    Destroy,
}

/// At most `restarts` in any `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartLimit {
    /// Restarts that are granted within one window.
    pub restarts: usize,
    /// Length of the sliding window.
    pub window: Duration,
}

impl RestartLimit {
    /// Three an hour: enough to ride out a bad moment, few enough that a loop is seen by a person.
    pub const DEFAULT: Self = Self {
        restarts: 3,
        window: Duration::from_secs(3600),
    };
}

/// The policy of one virtual machine over all its incarnations.
#[derive(Debug)]
pub struct Policy {
    on_crash: OnCrash,
    limit: RestartLimit,
    /// Times of the restarts within the window, oldest first; never longer than `limit.restarts`.
    recent: VecDeque<Instant>,
}

/// What [`Policy::after_crash`] decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What to do with the guest now.
    pub action: CrashAction,
    /// The restart was asked for and refused, because the limit is reached.
    pub braked: bool,
}

impl Policy {
    /// A policy with no restart on its account yet.
    #[must_use]
    pub fn new(on_crash: OnCrash, limit: RestartLimit) -> Self {
        Self {
            on_crash,
            limit,
            recent: VecDeque::new(),
        }
    }

    /// Whether a crash is dumped at all.
    #[must_use]
    pub fn dumps(&self) -> bool {
        self.on_crash.dump
    }

    /// Decides about a guest that crashed and whose dump, if any, has ended. A granted restart is put on the account.
    pub fn after_crash(&mut self, now: Instant) -> Verdict {
        let action = self.on_crash.action;
        if action != CrashAction::Restart {
            return Verdict { action, braked: false };
        }
        while self
            .recent
            .front()
            .is_some_and(|&at| now.saturating_duration_since(at) >= self.limit.window)
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.limit.restarts {
            return Verdict {
                action: CrashAction::Preserve,
                braked: true,
            };
        }
        self.recent.push_back(now);
        Verdict { action, braked: false }
    }
}

/// A policy or a limit that could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParsePolicyError {
    /// Not one of the six names.
    #[error("`{0}` is no crash policy: use dump-preserve, dump-restart, dump-destroy, preserve, restart or destroy")]
    OnCrash(String),
    /// Not of the form `N/TIME`.
    #[error("`{0}` is no restart limit: write how many restarts in how long, as in 3/1h, 5/30m or 1/90s")]
    RestartLimit(String),
}

impl FromStr for OnCrash {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (dump, action) = match text.strip_prefix("dump-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let action = match action {
            "preserve" => CrashAction::Preserve,
            "restart" => CrashAction::Restart,
            "destroy" => CrashAction::Destroy,
            _ => return Err(ParsePolicyError::OnCrash(text.to_owned())),
        };
        Ok(Self { dump, action })
    }
}

impl fmt::Display for OnCrash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            CrashAction::Preserve => "preserve",
            CrashAction::Restart => "restart",
            CrashAction::Destroy => "destroy",
        };
        write!(out, "{}{action}", if self.dump { "dump-" } else { "" })
    }
}

impl FromStr for RestartLimit {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParsePolicyError::RestartLimit(text.to_owned());
        let (restarts, window) = text.split_once('/').ok_or_else(wrong)?;
        let restarts = restarts.parse().map_err(|_| wrong())?;
        let digits = window.trim_end_matches(['s', 'm', 'h', 'd']);
        let unit_s: u64 = match &window[digits.len()..] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        let window_s = count
            .checked_mul(unit_s)
            .filter(|&seconds| seconds > 0)
            .ok_or_else(wrong)?;
        Ok(Self {
            restarts,
            window: Duration::from_secs(window_s),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_name_survives_a_round_trip() {
        for name in [
            "dump-preserve",
            "dump-restart",
            "dump-destroy",
            "preserve",
            "restart",
            "destroy",
        ] {
            assert_eq!(name.parse::<OnCrash>().unwrap().to_string(), name);
        }
        let refused = "dump".parse::<OnCrash>().unwrap_err().to_string();
        assert!(
            refused.contains("`dump`") && refused.contains("dump-restart"),
            "{refused}"
        );
    }

    #[test]
    fn restart_limits_are_counts_in_a_time() {
        let limit: RestartLimit = "5/30m".parse().unwrap();
        assert_eq!(
            limit,
            RestartLimit {
                restarts: 5,
                window: Duration::from_secs(1800)
            }
        );
        for wrong in [
            "",
            "3",
            "3/",
            "/1h",
            "x/1h",
            "3/1y",
            "3/0s",
            "3/99999999999999999999h",
            "3/hh",
            "3/1é",
        ] {
            assert!(wrong.parse::<RestartLimit>().is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn a_crash_loop_is_preserved_and_a_quiet_hour_lifts_the_brake() {
        let mut policy = Policy::new("dump-restart".parse().unwrap(), "2/1h".parse().unwrap());
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        assert_eq!(policy.after_crash(start).action, CrashAction::Restart);
        assert_eq!(policy.after_crash(start + minute).action, CrashAction::Restart);
        assert_eq!(
            policy.after_crash(start + 2 * minute),
            Verdict {
                action: CrashAction::Preserve,
                braked: true
            }
        );
        assert_eq!(policy.after_crash(start + 61 * minute).action, CrashAction::Restart);
    }

    #[test]
    fn a_limit_of_none_never_restarts() {
        let mut policy = Policy::new("restart".parse().unwrap(), "0/1h".parse().unwrap());
        assert!(policy.after_crash(Instant::now()).braked);
    }
}
