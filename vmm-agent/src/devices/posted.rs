//! Posted writes: registers whose writes leave no mark before the device is looked at next, so that a guest need not leave its
//! processor for them. KVM keeps such writes, in order, until somebody takes them.
//!
//! ```text
//!  vCPU ── write into a zone ──► KVM's ring ──┐ catch_up: before any access that exits,
//!  vCPU ── any other access ──► exit ─────────┴── and before a device works ──► bus ──► device
//! ```
//!
//! Whoever takes them holds the ring until the device has them: no later access overtakes one.
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::bus::{Shared, lock};
use super::pci::PciRoot;

/// A write that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostedWrite {
    /// Where.
    pub gpa: u64,
    /// What, in its first bytes.
    pub data: [u8; 8],
    /// How many.
    pub len: usize,
}

/// Where writes wait.
pub trait PostedRing: Send {
    /// The oldest one.
    fn take(&mut self) -> Option<PostedWrite>;
}

/// Says which writes may wait.
pub trait PostedZones: fmt::Debug + Send + Sync {
    /// Writes into `gpas` wait from now on, or no longer. Where that fails they do not wait, which is always right.
    fn set(&self, gpas: Range<u64>, posted: bool);
}

/// The posted writes of a machine.
#[derive(Debug, Default)]
pub struct Posted {
    zones: Option<Arc<dyn PostedZones>>,
    /// There is somewhere to take them from.
    connected: AtomicBool,
    taker: Mutex<Taker>,
}

#[derive(Default)]
struct Taker {
    ring: Option<Box<dyn PostedRing>>,
    pci: Weak<Mutex<PciRoot>>,
}

impl Posted {
    /// No write waits before [`Posted::connect`].
    #[must_use]
    pub fn new(zones: Arc<dyn PostedZones>) -> Posted {
        Posted {
            zones: Some(zones),
            ..Posted::default()
        }
    }

    /// Takes writes from `ring` to the functions on `pci`.
    pub fn connect(&self, ring: Box<dyn PostedRing>, pci: &Shared<PciRoot>) {
        *lock(&self.taker) = Taker {
            ring: Some(ring),
            pci: Arc::downgrade(pci),
        };
        self.connected.store(true, Ordering::Release);
    }

    /// Lets writes into these places wait, or no longer; false if they do not.
    pub fn set(&self, zones: impl IntoIterator<Item = Range<u64>>, posted: bool) -> bool {
        let Some(to) = self.zones.as_ref().filter(|_| self.connected.load(Ordering::Acquire)) else {
            return false;
        };
        zones.into_iter().for_each(|gpas| to.set(gpas, posted));
        posted
    }

    /// Brings what waits to its devices. Not to be called with a device locked.
    pub fn catch_up(&self) {
        if !self.connected.load(Ordering::Acquire) {
            return;
        }
        let mut taker = lock(&self.taker);
        let Taker { ring, pci } = &mut *taker;
        let Some(ring) = ring else { return };
        while let Some(PostedWrite { gpa, data, len }) = ring.take() {
            let bytes = data.get(..len).unwrap_or_default();
            let found = pci.upgrade().and_then(|pci| lock(&pci).find_memory(gpa, len));
            let outcome = found.map(|found| found.write(bytes));
            tracing::trace!(gpa, ?outcome, "posted write");
        }
    }
}

impl fmt::Debug for Taker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taker").finish_non_exhaustive()
    }
}
