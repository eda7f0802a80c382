//! Which cores are to go: by signature first, then by guest, by age, and by space. No I/O: the list and the time come in.
//!
//! A crash loop must not push out the only core of another fault, so that a signature gives up its own middle cores first, and space
//! is made of faults that have several cores before any fault loses its last one. A pinned core never goes, nor one that is
//! still being received.

use std::collections::HashMap;
use std::time::Duration;

use api::{CoreState, CoreSummary};
use jiff::{SignedDuration, Timestamp};

/// What is kept. A rule that is none holds nothing against a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Cores older than this go.
    pub max_age: Option<Duration>,
    /// Cores of one signature: of more, the oldest and the newest stay.
    pub per_signature: Option<usize>,
    /// Cores of one guest; the oldest go.
    pub per_guest: Option<usize>,
    /// Stored bytes of all cores.
    pub max_stored_bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Some(Duration::from_hours(30 * 24)),
            per_signature: Some(5),
            per_guest: Some(10),
            max_stored_bytes: None,
        }
    }
}

/// The rule by which a core goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// There are others of its signature.
    Signature,
    /// There are newer ones of its guest.
    Guest,
    /// It is old.
    Age,
    /// There is no room.
    Space,
}

impl Rule {
    /// Its name, as it is written down.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Guest => "guest",
            Self::Age => "age",
            Self::Space => "space",
        }
    }
}

/// The cores that go, oldest first, each with its rule.
#[must_use]
pub fn condemned<'c>(cores: &'c [CoreSummary], keep: &Retention, now: Timestamp) -> Vec<(&'c CoreSummary, Rule)> {
    let mut oldest_first: Vec<&CoreSummary> = cores.iter().filter(|core| core.state != CoreState::Receiving).collect();
    oldest_first.sort_by(|a, b| (&a.received_at, &a.id).cmp(&(&b.received_at, &b.id)));
    let mut verdicts: Vec<Option<Rule>> = vec![None; oldest_first.len()];
    if let Some(max) = keep.per_signature {
        by_signature(&oldest_first, &mut verdicts, max);
    }
    if let Some(max) = keep.per_guest {
        by_guest(&oldest_first, &mut verdicts, max);
    }
    if let Some(max) = keep.max_age {
        by_age(&oldest_first, &mut verdicts, max, now);
    }
    if let Some(max) = keep.max_stored_bytes {
        by_space(&oldest_first, &mut verdicts, max);
    }
    let all = oldest_first.into_iter().zip(verdicts);
    all.filter_map(|(core, rule)| Some((core, rule?))).collect()
}

/// Condemns a core that is not pinned and not condemned yet; whether it was.
fn condemn(core: &CoreSummary, verdict: &mut Option<Rule>, rule: Rule) -> bool {
    let goes = !core.pinned && verdict.is_none();
    if goes {
        *verdict = Some(rule);
    }
    goes
}

/// Of more than `max` cores the first ones and the last ones stay: how it began, and how it is now.
fn by_signature(cores: &[&CoreSummary], verdicts: &mut [Option<Rule>], max: usize) {
    let mut totals: HashMap<&str, usize> = HashMap::new();
    for signature in cores.iter().filter_map(|core| core.signature.as_deref()) {
        *totals.entry(signature).or_default() += 1;
    }
    let last_ones = max * 2 / 5;
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (core, verdict) in cores.iter().zip(verdicts) {
        let Some(signature) = core.signature.as_deref() else {
            continue;
        };
        let total = totals.get(signature).copied().unwrap_or(0);
        let place = seen.entry(signature).or_default();
        let is_first = *place < max - last_ones;
        let is_last = *place >= total.saturating_sub(last_ones);
        *place += 1;
        if !is_first && !is_last {
            condemn(core, verdict, Rule::Signature);
        }
    }
}

/// Of more than `max` cores that are left of a guest the oldest go.
fn by_guest(cores: &[&CoreSummary], verdicts: &mut [Option<Rule>], max: usize) {
    let mut newer: HashMap<&str, usize> = HashMap::new();
    for (core, verdict) in cores.iter().zip(verdicts).rev() {
        let count = newer.entry(&core.guest).or_default();
        if verdict.is_none() {
            if *count >= max && condemn(core, verdict, Rule::Guest) {
                continue;
            }
            *count += 1;
        }
    }
}

fn by_age(cores: &[&CoreSummary], verdicts: &mut [Option<Rule>], max: Duration, now: Timestamp) {
    let max = SignedDuration::try_from(max).unwrap_or(SignedDuration::MAX);
    for (core, verdict) in cores.iter().zip(verdicts) {
        let received = core.received_at.parse::<Timestamp>();
        // A time that cannot be read is no reason to lose a core.
        if received.is_ok_and(|received| now.duration_since(received) > max) {
            condemn(core, verdict, Rule::Age);
        }
    }
}

/// Makes room: first of faults that keep another core, oldest first, and only then of all.
fn by_space(cores: &[&CoreSummary], verdicts: &mut [Option<Rule>], max_bytes: u64) {
    let mut stored: u64 = 0;
    let mut left: HashMap<&str, usize> = HashMap::new();
    for (core, verdict) in cores.iter().zip(verdicts.iter()) {
        if verdict.is_none() {
            stored = stored.saturating_add(core.stored_bytes);
            *left.entry(fault(core)).or_default() += 1;
        }
    }
    for spare_last in [true, false] {
        for (core, verdict) in cores.iter().zip(verdicts.iter_mut()) {
            if stored <= max_bytes {
                return;
            }
            let count = left.entry(fault(core)).or_default();
            if spare_last && *count < 2 {
                continue;
            }
            if condemn(core, verdict, Rule::Space) {
                *count -= 1;
                stored = stored.saturating_sub(core.stored_bytes);
            }
        }
    }
}

/// What a core is one of several of; one without a signature is of its own.
fn fault(core: &CoreSummary) -> &str {
    core.signature.as_deref().unwrap_or(&core.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Retention = Retention {
        max_age: None,
        per_signature: None,
        per_guest: None,
        max_stored_bytes: None,
    };

    /// The core of hour `n`, with its signature (`-` for none) and guest.
    fn core(n: usize, signature: &str, guest: &str) -> CoreSummary {
        CoreSummary {
            id: format!("{n:02}"),
            guest: guest.to_owned(),
            client_addr: "127.0.0.1:1".to_owned(),
            received_at: format!("2026-01-01T{n:02}:00:00Z"),
            state: CoreState::Complete,
            panic: None,
            signature: (signature != "-").then(|| signature.to_owned()),
            format: "elf".to_owned(),
            file_len_bytes: 100,
            stored_bytes: 100,
            holes: Vec::new(),
            kernel: None,
            pinned: false,
        }
    }

    fn go(cores: &[CoreSummary], keep: Retention) -> Vec<String> {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let all = condemned(cores, &keep, now).into_iter();
        all.map(|(core, rule)| format!("{} {}", core.id, rule.as_str()))
            .collect()
    }

    #[test]
    fn of_a_signature_the_first_three_and_the_last_two_stay() {
        let mut cores: Vec<_> = (0..8).rev().map(|n| core(n, "loop", "a")).collect();
        cores.push(core(8, "other", "a"));
        cores.push(core(9, "-", "a"));
        let keep = Retention {
            per_signature: Some(5),
            ..NOTHING
        };
        assert_eq!(go(&cores, keep), ["03 signature", "04 signature", "05 signature"]);
        let of_four = cores.iter_mut().find(|core| core.id == "04").unwrap();
        of_four.pinned = true;
        assert_eq!(go(&cores, keep), ["03 signature", "05 signature"]);
    }

    #[test]
    fn the_newest_of_a_guest_stay_and_old_ones_go() {
        let cores: Vec<_> = (0..4).map(|n| core(n, "-", if n == 1 { "b" } else { "a" })).collect();
        let keep = Retention {
            per_guest: Some(2),
            ..NOTHING
        };
        assert_eq!(go(&cores, keep), ["00 guest"]);
        let keep = Retention {
            max_age: Some(Duration::from_hours(22)),
            ..NOTHING
        };
        assert_eq!(go(&cores, keep), ["00 age", "01 age"]);
    }

    #[test]
    fn space_is_made_of_a_crash_loop_before_another_fault_loses_its_only_core() {
        let mut cores = vec![core(0, "rare", "a")];
        cores.extend((1..5).map(|n| core(n, "loop", "b")));
        let keep = |bytes| Retention {
            max_stored_bytes: Some(bytes),
            ..NOTHING
        };
        assert_eq!(go(&cores, keep(500)), Vec::<String>::new());
        assert_eq!(go(&cores, keep(250)), ["01 space", "02 space", "03 space"]);
        assert_eq!(go(&cores, keep(100)), ["00 space", "01 space", "02 space", "03 space"]);
        for core in &mut cores {
            core.pinned = true;
        }
        assert_eq!(go(&cores, keep(0)), Vec::<String>::new());
    }

    #[test]
    fn a_core_that_is_being_received_stays_under_every_rule() {
        let mut cores = vec![core(0, "x", "a"), core(1, "x", "a")];
        cores[0].state = CoreState::Receiving;
        let keep = Retention {
            max_age: Some(Duration::ZERO),
            per_signature: Some(0),
            per_guest: Some(0),
            max_stored_bytes: Some(0),
        };
        assert_eq!(go(&cores, keep), ["01 signature"]);
        assert_eq!(go(&cores, NOTHING), Vec::<String>::new());
    }
}
