//! What the driver wants of a device, on its way to the worker. A vCPU never waits for the worker, which may wait for a disk.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::queue::QueueSetup;

/// One wish of the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Everything as after power-on.
    Reset,
    /// This queue is set up so.
    Enable {
        index: u16,
        setup: QueueSetup,
        event_idx: bool,
    },
    /// The driver is ready; these features are agreed upon.
    Start(u64),
}

/// Orders that the worker has not followed yet. There are few: a queue is enabled once and a device started once until the next
/// reset, and a reset makes all orders before it void.
#[derive(Debug, Default)]
pub(super) struct Orders {
    waiting: Mutex<VecDeque<Order>>,
    resetting: AtomicBool,
}

impl Orders {
    /// Gives an order.
    pub(super) fn give(&self, order: Order) {
        let mut waiting = self.lock();
        if order == Order::Reset {
            waiting.clear();
            self.resetting.store(true, Ordering::Release);
        }
        waiting.push_back(order);
    }

    /// The next order to follow.
    pub(super) fn take(&self) -> Option<Order> {
        self.lock().pop_front()
    }

    /// A reset was ordered and has not been done: the status does not read as zero yet (4.1.4.3.1).
    pub(super) fn is_resetting(&self) -> bool {
        self.resetting.load(Ordering::Acquire)
    }

    /// The reset has been done.
    pub(super) fn reset_is_done(&self) {
        self.resetting.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Order>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_makes_what_was_ordered_before_it_void() {
        let orders = Orders::default();
        orders.give(Order::Start(1));
        orders.give(Order::Reset);
        orders.give(Order::Start(2));
        assert!(orders.is_resetting());
        assert_eq!(orders.take(), Some(Order::Reset));
        orders.reset_is_done();
        assert_eq!((orders.take(), orders.take()), (Some(Order::Start(2)), None));
        assert!(!orders.is_resetting());
    }
}
