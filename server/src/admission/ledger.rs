//! How much disk dumps may take: one alone, the cores of one guest, all cores, and what stays free.
//!
//! A guest is known by its address: its name comes last and is whatever it says. A running dump takes space in steps
//! ([`GRANT_BYTES`]), so that storing a packet asks nobody; what was granted and not used counts as taken.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Refused, Share};
use crate::limits::GRANT_BYTES;

/// What bounds the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpaceLimits {
    pub(crate) guest_max: Share,
    pub(crate) total_max: Share,
    pub(crate) free_min: Share,
}

/// What the file system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Its size.
    pub(crate) size_bytes: u64,
    /// What of it may be written.
    pub(crate) free_bytes: u64,
}

/// Why space was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Short {
    /// The guest has its share.
    #[error("the cores of {guest} take {taken_bytes} bytes, and {max_bytes} is what one guest may (guest-max)")]
    Guest {
        /// Who.
        guest: Ipv4Addr,
        /// What they take, this dump included.
        taken_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// All cores have theirs.
    #[error("all cores take {taken_bytes} bytes, and {max_bytes} is what they may (total-max)")]
    Total {
        /// What they take, this dump included.
        taken_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The file system has too little left.
    #[error("No space left on device: {free_bytes} bytes are free, of which {kept_bytes} stay free (free-min)")]
    Free {
        /// What is free.
        free_bytes: u64,
        /// The reserve.
        kept_bytes: u64,
    },
}

impl Short {
    /// The same, as a reason that is counted.
    pub(crate) const fn refused(self) -> Refused {
        match self {
            Self::Guest { .. } => Refused::GuestBytes,
            Self::Total { .. } => Refused::TotalBytes,
            Self::Free { .. } => Refused::FreeSpace,
        }
    }
}

/// The sums.
#[derive(Debug)]
struct Sums {
    limits: SpaceLimits,
    /// Bytes of stored cores, by guest.
    kept: HashMap<Ipv4Addr, u64>,
    kept_total: u64,
    /// Bytes that running dumps may take, by guest.
    granted: HashMap<Ipv4Addr, u64>,
    granted_total: u64,
    /// Bytes of these that have been written.
    used_total: u64,
}

/// The sums of a receiver, shared by its sessions.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    sums: Arc<Mutex<Sums>>,
}

/// What one running dump has been given. Dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Account {
    ledger: Ledger,
    guest: Ipv4Addr,
    granted_bytes: u64,
    used_bytes: u64,
    /// What of `used_bytes` the ledger knows.
    told_bytes: u64,
}

impl Ledger {
    pub(crate) fn new(limits: SpaceLimits) -> Self {
        let sums = Sums {
            limits,
            kept: HashMap::new(),
            kept_total: 0,
            granted: HashMap::new(),
            granted_total: 0,
            used_total: 0,
        };
        Self {
            sums: Arc::new(Mutex::new(sums)),
        }
    }

    /// Counts the stored cores anew.
    pub(crate) fn recount(&self, kept: impl Iterator<Item = (Ipv4Addr, u64)>) {
        let mut sums = self.lock();
        sums.kept.clear();
        sums.kept_total = 0;
        for (guest, bytes) in kept {
            sums.keep(guest, bytes);
        }
    }

    /// A dump of this guest begins.
    pub(crate) fn open(&self, guest: Ipv4Addr) -> Account {
        Account {
            ledger: self.clone(),
            guest,
            granted_bytes: 0,
            used_bytes: 0,
            told_bytes: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn keep(&mut self, guest: Ipv4Addr, bytes: u64) {
        let kept = self.kept.entry(guest).or_default();
        *kept = kept.saturating_add(bytes);
        self.kept_total = self.kept_total.saturating_add(bytes);
    }

    /// Whether a dump of `guest` may take `more_bytes`.
    fn check(&self, guest: Ipv4Addr, more_bytes: u64, space: Space) -> Result<(), Short> {
        let of = |map: &HashMap<Ipv4Addr, u64>| map.get(&guest).copied().unwrap_or(0);
        let taken_bytes = of(&self.kept) + of(&self.granted) + more_bytes;
        let max_bytes = self.limits.guest_max.of(space.size_bytes);
        if taken_bytes > max_bytes && guest != Ipv4Addr::LOCALHOST {
            return Err(Short::Guest {
                guest,
                taken_bytes,
                max_bytes,
            });
        }
        let taken_bytes = self.kept_total + self.granted_total + more_bytes;
        let max_bytes = self.limits.total_max.of(space.size_bytes);
        if taken_bytes > max_bytes {
            return Err(Short::Total { taken_bytes, max_bytes });
        }
        let promised_bytes = self.granted_total.saturating_sub(self.used_total);
        let free_bytes = space.free_bytes.saturating_sub(promised_bytes);
        let kept_bytes = self.limits.free_min.of(space.size_bytes);
        if free_bytes < kept_bytes.saturating_add(more_bytes) {
            return Err(Short::Free { free_bytes, kept_bytes });
        }
        Ok(())
    }

    fn give_back(&mut self, guest: Ipv4Addr, granted_bytes: u64, told_bytes: u64) {
        if let Some(granted) = self.granted.get_mut(&guest) {
            *granted = granted.saturating_sub(granted_bytes);
            if *granted == 0 {
                self.granted.remove(&guest);
            }
        }
        self.granted_total = self.granted_total.saturating_sub(granted_bytes);
        self.used_total = self.used_total.saturating_sub(told_bytes);
    }
}

impl Account {
    /// `more_bytes` are about to be written. `space` is asked only when more has to be granted.
    pub(crate) fn take(&mut self, more_bytes: u64, space: impl FnOnce() -> Space) -> Result<(), Short> {
        let wanted = self.used_bytes.saturating_add(more_bytes);
        if wanted > self.granted_bytes {
            let need = wanted - self.granted_bytes;
            let space = space();
            // Near a limit there may be room for what is needed and not for a whole step.
            let step = self.grant(need.max(GRANT_BYTES), space);
            step.or_else(|_| self.grant(need, space))?;
        }
        self.used_bytes = wanted;
        Ok(())
    }

    /// So much has been written by an earlier receiver, and is there whatever the limits say.
    pub(crate) fn has_written(&mut self, bytes: u64) {
        let mut sums = self.ledger.lock();
        let granted = sums.granted.entry(self.guest).or_default();
        *granted = granted.saturating_add(bytes);
        sums.granted_total = sums.granted_total.saturating_add(bytes);
        sums.used_total = sums.used_total.saturating_add(bytes);
        self.granted_bytes += bytes;
        self.used_bytes += bytes;
        self.told_bytes += bytes;
    }

    /// The dump will take so much in all: sets it aside if there is room.
    pub(crate) fn expect(&mut self, total_bytes: u64, space: Space) -> Result<(), Short> {
        match total_bytes.checked_sub(self.granted_bytes) {
            None | Some(0) => Ok(()),
            Some(need) => self.grant(need, space),
        }
    }

    /// A core of `stored_bytes` was made of it.
    pub(crate) fn keep(self, stored_bytes: u64) {
        self.ledger.lock().keep(self.guest, stored_bytes);
    }

    fn grant(&mut self, need_bytes: u64, space: Space) -> Result<(), Short> {
        let mut sums = self.ledger.lock();
        sums.used_total += self.used_bytes - self.told_bytes;
        self.told_bytes = self.used_bytes;
        sums.check(self.guest, need_bytes, space)?;
        *sums.granted.entry(self.guest).or_default() += need_bytes;
        sums.granted_total += need_bytes;
        self.granted_bytes += need_bytes;
        Ok(())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut sums = self.ledger.lock();
        sums.give_back(self.guest, self.granted_bytes, self.told_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const MIB: u64 = 1 << 20;

    fn ledger() -> Ledger {
        Ledger::new(SpaceLimits {
            guest_max: Share::Bytes(40 * MIB),
            total_max: Share::Bytes(60 * MIB),
            free_min: Share::Percent(10),
        })
    }

    /// A file system of 1000 MiB, so that 100 stay free (a percent is 10 MiB but for a rounded part).
    fn free(mib: u64) -> Space {
        Space {
            size_bytes: 1000 * MIB,
            free_bytes: mib * MIB,
        }
    }

    fn fill(account: &mut Account, space: Space) -> (u64, Short) {
        let mut taken = 0;
        loop {
            match account.take(4096, || space) {
                Ok(()) => taken += 4096,
                Err(why) => return (taken, why),
            }
        }
    }

    #[test]
    fn a_guest_may_have_its_share_to_the_last_byte_and_no_more() {
        let ledger = ledger();
        ledger.recount([(A, 10 * MIB)].into_iter());
        let mut account = ledger.open(A);
        let (taken, why) = fill(&mut account, free(900));
        assert_eq!(taken, 30 * MIB);
        assert_eq!(why.refused(), Refused::GuestBytes);
        assert!(
            ledger.open(B).take(20 * MIB, || free(900)).is_ok(),
            "the other guest has its own"
        );
    }

    #[test]
    fn the_guests_of_this_host_have_one_address_and_no_share_of_it() {
        let (taken, why) = fill(&mut ledger().open(Ipv4Addr::LOCALHOST), free(900));
        assert_eq!((taken, why.refused()), (60 * MIB, Refused::TotalBytes));
    }

    #[test]
    fn all_together_may_have_theirs() {
        let ledger = ledger();
        ledger.recount([(A, 25 * MIB), (B, 25 * MIB)].into_iter());
        let (taken, why) = fill(&mut ledger.open(A), free(900));
        assert_eq!((taken, why.refused()), (10 * MIB, Refused::TotalBytes));
    }

    #[test]
    fn the_reserve_stays_free_whoever_else_is_writing() {
        let ledger = ledger();
        let mut first = ledger.open(A);
        first.expect(20 * MIB, free(130)).unwrap();
        // Nothing of the first dump's 20 MiB is on the disk yet: the second one has what is left of 30.
        let mut second = ledger.open(B);
        let why = second.expect(10 * MIB + 1, free(130)).unwrap_err();
        assert_eq!(why.refused(), Refused::FreeSpace);
        assert!(second.expect(10 * MIB, free(130)).is_ok());
        drop((first, second));
        assert!(ledger.open(B).take(30 * MIB, || free(130)).is_ok());
    }

    #[test]
    fn what_is_too_large_is_known_at_once_and_takes_nothing() {
        let ledger = ledger();
        let mut account = ledger.open(A);
        let why = account.expect(41 * MIB, free(900)).unwrap_err();
        assert_eq!(why.refused(), Refused::GuestBytes);
        assert!(account.take(40 * MIB, || free(900)).is_ok());
    }

    #[test]
    fn a_core_counts_by_what_is_stored_of_it() {
        let ledger = ledger();
        let mut account = ledger.open(A);
        account.expect(40 * MIB, free(900)).unwrap();
        account.take(5 * MIB, || free(900)).unwrap();
        account.keep(5 * MIB);
        let (taken, _) = fill(&mut ledger.open(A), free(900));
        assert_eq!(taken, 35 * MIB);
        ledger.recount(std::iter::empty());
        let (taken, _) = fill(&mut ledger.open(A), free(900));
        assert_eq!(taken, 40 * MIB, "cores that are gone no longer count");
    }
}
