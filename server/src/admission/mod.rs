//! Who may dump, how often, and how much: the receiver's limits, and what becomes of those who meet them.
//!
//! ```text
//! HERALD ─► allowed network? ─► rate of its source, of all ─► a place ─► session
//! data   ─► one dump's length ─► the guest's bytes ─► all cores' bytes ─► free space ─► stored
//!                               whoever is refused is counted, and told of once
//! ```

mod ledger;
mod rate;
mod refusals;
mod share;

use std::net::{IpAddr, SocketAddrV4};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use netdump::{Instant, Seqno};

pub(crate) use self::ledger::{Account, Ledger, Short, Space, SpaceLimits};
pub use self::rate::Rate;
use self::rate::{HeraldRates, Verdict};
pub(crate) use self::refusals::{Refusals, Refused};
pub use self::share::{Share, ShareError};
use crate::allow::{self, Cidr};
use crate::limits;

/// What dumps may take. The reasons for the defaults stand beside them in [`crate::limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Length of one dump's file.
    pub dump_max: Share,
    /// Stored bytes of the cores of one guest, known by its address.
    pub guest_max: Share,
    /// Stored bytes of all cores.
    pub total_max: Share,
    /// Bytes of the file system that no dump may fill.
    pub free_min: Share,
    /// Sessions that have had nothing but a herald.
    pub half_open_max: usize,
    /// Sessions that one address may open.
    pub source_heralds: Rate,
    /// Sessions that all together may open.
    pub heralds: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dump_max: limits::DUMP_MAX,
            guest_max: limits::GUEST_MAX,
            total_max: limits::TOTAL_MAX,
            free_min: limits::FREE_MIN,
            half_open_max: limits::HALF_OPEN_MAX,
            source_heralds: limits::SOURCE_HERALDS,
            heralds: limits::HERALDS,
        }
    }
}

/// Applies the limits of a receiver.
#[derive(Debug)]
pub(crate) struct Admission {
    allow: Vec<Cidr>,
    pub(crate) limits: Limits,
    rates: Mutex<HeraldRates>,
    pub(crate) refusals: Refusals,
    pub(crate) ledger: Ledger,
}

impl Admission {
    pub(crate) fn new(allow: Vec<Cidr>, limits: Limits) -> Self {
        Self {
            allow,
            rates: Mutex::new(HeraldRates::new(limits.source_heralds, limits.heralds)),
            refusals: Refusals::default(),
            ledger: Ledger::new(SpaceLimits {
                guest_max: limits.guest_max,
                total_max: limits.total_max,
                free_min: limits.free_min,
            }),
            limits,
        }
    }

    /// Whether a peer's network may dump.
    pub(crate) fn is_allowed(&self, peer: SocketAddrV4) -> bool {
        let allowed = allow::is_allowed(&self.allow, IpAddr::V4(*peer.ip()));
        if !allowed {
            self.refuse(peer, Refused::NotAllowed, "no `allow` names its network");
        }
        allowed
    }

    /// Whether a herald may open a session now; if so, whether it came again after it had been refused.
    pub(crate) fn may_open(&self, now: Instant, peer: SocketAddrV4, seqno: Seqno) -> Option<Again> {
        let verdict = self.lock_rates().herald(now, peer, seqno);
        let (why, rate) = match verdict {
            Verdict::Admitted { again } => return Some(Again(again)),
            Verdict::SourceTooFast => (Refused::SourceRate, self.limits.source_heralds),
            Verdict::AllTooFast => (Refused::TotalRate, self.limits.heralds),
        };
        let sentence = format!("more than {} heralds a second, {} at once", rate.per_s, rate.burst);
        self.refuse(peer, why, &sentence);
        None
    }

    /// Longest file that one dump may have in `dir`.
    pub(crate) fn file_len_max(&self, dir: &Path) -> u64 {
        let max = match self.limits.dump_max {
            Share::Bytes(bytes) => bytes,
            share => share.of(space_of(dir).size_bytes),
        };
        max.min(netdump::limits::FILE_LEN_MAX)
    }

    /// There was no place for a herald that might have opened a session: it may come again.
    pub(crate) fn no_place(&self, now: Instant, peer: SocketAddrV4, seqno: Seqno, why: Refused, places: usize) {
        self.lock_rates().refused(now, peer, seqno);
        self.refuse(peer, why, &format!("all {places} places are taken"));
    }

    /// Counts and tells a refusal.
    pub(crate) fn refuse(&self, peer: SocketAddrV4, why: Refused, sentence: &str) {
        self.refusals.note(*peer.ip(), why, &sentence);
    }

    fn lock_rates(&self) -> std::sync::MutexGuard<'_, HeraldRates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a herald came again after it had been refused, as a real client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Again(pub(crate) bool);

/// Size and free space of the file system of a directory; nothing is free where that cannot be told.
pub(crate) fn space_of(dir: &Path) -> Space {
    match rustix::fs::statvfs(dir) {
        Ok(found) => Space {
            size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        },
        Err(_) => Space {
            size_bytes: 0,
            free_bytes: 0,
        },
    }
}
