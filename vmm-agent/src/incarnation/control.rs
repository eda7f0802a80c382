//! Orders to the vCPU threads. Everybody gives them here, and every thread passes the gate before it enters the guest.
//!
//! A vCPU may run unless somebody holds it: the machine is frozen, paused or at its end, or the vCPU itself reported
//! something and waits for a decision.
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmcore::CpuState;

use crate::kvm::{Kicker, SpareVcpu, Vcpu};
use crate::limits::{VCPU_KICK_INTERVAL, VCPU_STOP_TIMEOUT};

/// Shared by all threads of one machine.
#[derive(Debug)]
pub(super) struct Control {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) stop: bool,
    pub(super) frozen: bool,
    pub(super) paused: bool,
    pub(super) ended: bool,
    pub(super) slots: Vec<Slot>,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    kicker: Option<Kicker>,
    /// Registers of a vCPU that does not park, and of one whose thread has ended.
    pub(super) spare: Option<SpareVcpu>,
    /// Why the vCPU waits for a decision: `reported` or `failed`.
    pub(super) held: Option<&'static str>,
    pub(super) parked: Option<Parked>,
    pub(super) gone: bool,
    nmi: bool,
    note_stop: bool,
}

/// A vCPU that stands still with no I/O pending.
#[derive(Clone, Debug)]
pub(super) struct Parked {
    pub(super) registers: Result<CpuState, String>,
    pub(super) activity: &'static str,
}

/// What a vCPU thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Run,
    Leave,
}

impl Orders {
    fn holds(&self, index: usize) -> bool {
        self.frozen || self.paused || self.ended || self.slots.get(index).is_some_and(|slot| slot.held.is_some())
    }

    /// vCPUs that do not stand still.
    pub(super) fn moving(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.parked.is_none() && !slot.gone)
    }

    fn kick_moving(&self) {
        for kicker in self.moving().filter_map(|(_, slot)| slot.kicker.as_ref()) {
            kicker.kick();
        }
    }
}

impl Control {
    pub(super) fn new(vcpus: u8) -> Control {
        let slots = (0..vcpus).map(|_| Slot::default()).collect();
        Control {
            orders: Mutex::new(Orders {
                slots,
                ..Orders::default()
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the orders; vCPUs that are in the guest or wait look at them again.
    pub(super) fn order(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = self.lock();
        change(&mut orders);
        orders.kick_moving();
        drop(orders);
        self.changed.notify_all();
    }

    /// Waits until every vCPU stands still, but not for ever: then some may still be [`Orders::moving`].
    pub(super) fn wait_all_parked(&self) -> MutexGuard<'_, Orders> {
        self.wait_for(|orders| orders.moving().next().is_none())
    }

    /// Waits until the first `started` vCPU threads are about to end, but not for ever; kicks until then.
    pub(super) fn wait_all_gone(&self, started: usize) -> MutexGuard<'_, Orders> {
        self.wait_for(|orders| orders.slots.iter().take(started).all(|slot| slot.gone))
    }

    fn wait_for(&self, reached: impl Fn(&Orders) -> bool) -> MutexGuard<'_, Orders> {
        let deadline = Instant::now() + VCPU_STOP_TIMEOUT;
        let mut orders = self.lock();
        while !reached(&orders) && Instant::now() < deadline {
            orders.kick_moving();
            orders = self.wait(orders, VCPU_KICK_INTERVAL);
        }
        orders
    }

    fn wait<'a>(&self, orders: MutexGuard<'a, Orders>, timeout: Duration) -> MutexGuard<'a, Orders> {
        self.changed
            .wait_timeout(orders, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Injects an NMI into every vCPU before it next runs.
    pub(super) fn nmi(&self) {
        self.order(|orders| orders.slots.iter_mut().for_each(|slot| slot.nmi = true));
    }

    /// Lets everything run again that is not paused or at its end; `was_stopped` tells guests with kvmclock.
    pub(super) fn release(&self, was_stopped: bool) {
        self.order(|orders| {
            orders.frozen = false;
            for slot in &mut orders.slots {
                slot.held = None;
                slot.note_stop |= was_stopped;
            }
        });
    }

    /// Ends a pause, of which guests with kvmclock are told.
    pub(super) fn unpause(&self) {
        self.order(|orders| {
            let was_paused = std::mem::take(&mut orders.paused);
            for slot in &mut orders.slots {
                slot.note_stop |= was_paused;
            }
        });
    }

    /// A vCPU's thread is there.
    pub(super) fn arrive(&self, index: u8, kicker: Kicker, spare: Option<SpareVcpu>) {
        if let Some(slot) = self.lock().slots.get_mut(usize::from(index)) {
            slot.kicker = Some(kicker);
            slot.spare = spare;
        }
    }

    /// A vCPU's thread is about to drop its vCPU.
    pub(super) fn leave(&self, index: u8) {
        if let Some(slot) = self.lock().slots.get_mut(usize::from(index)) {
            slot.kicker = None;
            slot.gone = true;
        }
        self.changed.notify_all();
    }

    /// A vCPU keeps out of the guest until somebody decides.
    pub(super) fn hold(&self, index: u8, why: &'static str) {
        if let Some(slot) = self.lock().slots.get_mut(usize::from(index)) {
            slot.held = Some(why);
        }
    }

    /// Every vCPU thread comes here before it enters the guest. `complete` finishes pending I/O.
    pub(super) fn gate(&self, vcpu: &mut Vcpu, mut complete: impl FnMut(&mut Vcpu)) -> Next {
        let index = usize::from(vcpu.index());
        let mut orders = self.lock();
        loop {
            if orders.stop {
                return Next::Leave;
            }
            if !orders.holds(index) {
                break;
            }
            drop(orders);
            complete(vcpu);
            let registers = vcpu.cpu_state().map_err(|error| error_chain(&error));
            let parked = Parked {
                registers,
                activity: vcpu.activity(),
            };
            orders = self.lock();
            if let Some(slot) = orders.slots.get_mut(index) {
                slot.parked = Some(parked);
            }
            self.changed.notify_all();
            while orders.holds(index) && !orders.stop {
                orders = self.changed.wait(orders).unwrap_or_else(PoisonError::into_inner);
            }
            if let Some(slot) = orders.slots.get_mut(index) {
                slot.parked = None;
            }
        }
        if let Some(slot) = orders.slots.get_mut(index) {
            if std::mem::take(&mut slot.note_stop) {
                vcpu.note_stopped_clock();
            }
            if std::mem::take(&mut slot.nmi)
                && let Err(error) = vcpu.nmi()
            {
                tracing::warn!(vcpu = index, %error, "no NMI");
            }
        }
        // Under the lock: whoever gives an order after this finds the flag cleared and sets it again.
        vcpu.set_immediate_exit(false);
        Next::Run
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", error_chain(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(control: &Control) -> Vec<bool> {
        control.lock().slots.iter().map(|slot| slot.note_stop).collect()
    }

    #[test]
    fn every_vcpu_is_told_of_a_pause_and_of_nothing_else() {
        let control = Control::new(2);
        control.unpause();
        assert_eq!(noted(&control), [false; 2], "it was not paused");
        control.order(|orders| orders.paused = true);
        control.unpause();
        assert_eq!((noted(&control), control.lock().paused), (vec![true; 2], false));
    }
}
