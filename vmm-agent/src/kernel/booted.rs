//! What is found out about the kernel file by a thread of its own while the guest starts.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{KeepError, KeptKernel, LoadedKernel, build_id};
use crate::dump::contained::{PANICKED, contained};
use crate::limits::{KEPT_KERNEL_PATIENCE, KERNEL_FACTS_PATIENCE, KERNEL_THREAD_NICENESS};

/// How often whoever waits looks whether to go on.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The kernel file of one incarnation.
#[derive(Debug, Clone)]
pub struct BootedKernel {
    keep: bool,
    slot: Arc<Slot>,
}

/// What its file tells.
#[derive(Debug, Clone, Default)]
pub struct KernelFacts {
    /// Its build id in hexadecimal, if it has one that can be read.
    pub build_id: Option<String>,
    /// The file for the core, if that was asked for.
    pub kept: Option<Result<Arc<KeptKernel>, Arc<KeepError>>>,
}

#[derive(Debug, Default)]
struct Slot {
    facts: Mutex<Option<KernelFacts>>,
    told: Condvar,
}

impl Slot {
    fn tell(&self, facts: KernelFacts) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
        self.told.notify_all();
    }
}

impl BootedKernel {
    /// Begins to look at what was booted; with `keep` the file is to travel with the core. Never fails: what cannot be found out is
    /// missing in the core, and costs no launch.
    #[must_use]
    pub fn examine(kernel: Option<LoadedKernel>, keep: bool) -> Self {
        let slot = Arc::new(Slot::default());
        let its = Arc::clone(&slot);
        let not_examined = move |why: String| KernelFacts {
            build_id: None,
            kept: keep.then(|| Err(Arc::new(KeepError::NotExamined { why }))),
        };
        let work = move || {
            // The guest comes first.
            let _ = rustix::process::nice(KERNEL_THREAD_NICENESS);
            let facts = kernel.and_then(|kernel| contained(|| look(kernel, keep)));
            its.tell(facts.unwrap_or_else(|| not_examined(PANICKED.to_owned())));
        };
        if let Err(why) = thread::Builder::new().name("kernel".to_owned()).spawn(work) {
            tracing::debug!("no thread to look at the kernel file: {why}");
            slot.tell(not_examined(why.to_string()));
        }
        Self { keep, slot }
    }

    /// What was found, waiting for it as long as [`KERNEL_FACTS_PATIENCE`] or [`KEPT_KERNEL_PATIENCE`] says, not beyond `deadline`, and
    /// no longer than `go_on` says yes.
    #[must_use]
    pub fn facts(&self, deadline: Option<Instant>, go_on: &dyn Fn() -> bool) -> KernelFacts {
        let patience = if self.keep {
            KEPT_KERNEL_PATIENCE
        } else {
            KERNEL_FACTS_PATIENCE
        };
        let began = Instant::now();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(began));
        let patience = left.map_or(patience, |left| patience.min(left));
        let mut facts = self.slot.facts.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(facts) = facts.as_ref() {
                return facts.clone();
            }
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() || !go_on() {
                return KernelFacts {
                    build_id: None,
                    kept: self.keep.then(|| Err(Arc::new(KeepError::TooEarly))),
                };
            }
            let waited = self.slot.told.wait_timeout(facts, left.min(LOOK_EVERY));
            (facts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn look(kernel: LoadedKernel, keep: bool) -> KernelFacts {
    let build_id = build_id::of(&&*kernel.bytes)
        .inspect_err(|why| tracing::debug!("the kernel's build id: {why}"))
        .ok();
    let kept = keep.then(|| KeptKernel::new(kernel).map(Arc::new).map_err(Arc::new));
    KernelFacts { build_id, kept }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use guest_shim::DEMO_GUEST_ELF;

    use super::*;
    use crate::kernel::KernelFile;

    #[test]
    fn the_facts_come_to_whoever_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo.elf");
        std::fs::write(&path, DEMO_GUEST_ELF).unwrap();
        let load = || LoadedKernel {
            file: KernelFile::open(&path).unwrap(),
            bytes: DEMO_GUEST_ELF.into(),
        };
        let booted = BootedKernel::examine(Some(load()), true);
        let facts = booted.facts(None, &|| true);
        assert_eq!(facts.build_id, build_id::of(&DEMO_GUEST_ELF).ok());
        assert_eq!(facts.kept.unwrap().unwrap().len_bytes(), DEMO_GUEST_ELF.len() as u64);
        let booted = BootedKernel::examine(Some(load()), false);
        assert!(booted.facts(None, &|| true).kept.is_none());
    }

    #[test]
    fn who_does_not_wait_learns_that_it_was_too_early() {
        let booted = BootedKernel {
            keep: true,
            slot: Arc::default(),
        };
        let too_early = |facts: KernelFacts| matches!(*facts.kept.unwrap().unwrap_err(), KeepError::TooEarly);
        assert!(too_early(booted.facts(Some(Instant::now()), &|| true)));
        assert!(too_early(booted.facts(None, &|| false)));
    }

    #[test]
    fn a_kernel_that_is_kept_is_worth_a_longer_wait() {
        let booted = BootedKernel {
            keep: true,
            slot: Arc::default(),
        };
        let its = booted.clone();
        let asked = AtomicU32::new(0);
        // It is ready only when whoever waits has looked up once.
        let facts = booted.facts(None, &|| {
            if asked.fetch_add(1, Ordering::Relaxed) == 1 {
                let slot = Arc::clone(&its.slot);
                let ready = KernelFacts {
                    build_id: Some("ab".to_owned()),
                    kept: None,
                };
                thread::spawn(move || slot.tell(ready));
            }
            true
        });
        assert_eq!(facts.build_id.as_deref(), Some("ab"));
        const { assert!(KEPT_KERNEL_PATIENCE.as_secs() > KERNEL_FACTS_PATIENCE.as_secs()) };
    }
}
