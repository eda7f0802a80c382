//! Threads that do a device's work beside the vCPUs: bounded rounds behind one gate, waits in between.
//!
//! ```text
//!           ┌────────────── Again ──────────────┐
//!  gate ──► round (may touch guest memory) ──► wait (kick, descriptor or time; touches nothing) ──► gate
//!    │ paused: stays here until resume
//! ```
//!
//! A pause returns when no worker is inside a round, so a frozen guest's memory stands still.
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::event::EventfdFlags;

use crate::limits::{DEVICE_STOP_TIMEOUT, ROUND_TIME};

/// What a worker does after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// There is more to do at once; the gate is passed in between.
    Again,
    /// Nothing to do until a kick, or until one of these.
    Wait {
        /// Whether [`Job::descriptor`] becoming readable ends the wait.
        readable: bool,
        /// When the wait ends by itself.
        timeout: Option<Duration>,
    },
}

impl After {
    /// Waits for a kick only.
    pub const KICK: After = After::Wait {
        readable: false,
        timeout: None,
    };
}

/// How long a round has been going on. Every loop of a round looks at it, so that a freeze waits for one step of it only.
#[derive(Clone, Copy, Debug)]
pub struct Round(Instant);

impl Round {
    /// A round begins.
    #[must_use]
    pub fn begin() -> Round {
        Round(Instant::now())
    }

    /// Whether it is time to go back to the gate.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.0.elapsed() >= ROUND_TIME
    }
}

/// The work of one device.
pub trait Job: Send + 'static {
    /// Does a bounded amount of work. Early and needless calls are harmless.
    fn round(&mut self) -> After;

    /// What else than a kick may bring work; asked once.
    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}

/// Wakes one worker from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A waker whose worker comes later.
    ///
    /// # Errors
    /// What eventfd(2) says.
    pub fn new() -> io::Result<Waker> {
        let event = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Waker(Arc::new(event)))
    }

    /// Makes the worker do a round.
    pub fn wake(&self) {
        // The one way to fail is a full counter, and then the worker is awake anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    paused: bool,
    stop: bool,
    /// One per worker: inside a round.
    busy: Vec<bool>,
    /// One per worker: its thread is about to end.
    ended: Vec<bool>,
}

/// All workers of one machine. Dropping them stops them.
#[derive(Default)]
pub struct Workers {
    gate: Arc<Gate>,
    threads: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    name: String,
    waker: Waker,
    thread: JoinHandle<()>,
}

impl Workers {
    /// Starts a worker that `waker` wakes; its first round comes at once.
    ///
    /// # Errors
    /// When the system gives no thread or no descriptor.
    pub fn spawn(&mut self, name: &str, waker: Waker, mut job: impl Job) -> io::Result<()> {
        let descriptor = job.descriptor()?;
        let index = {
            let mut state = self.gate.lock();
            state.busy.push(false);
            state.ended.push(false);
            state.busy.len() - 1
        };
        let gate = Arc::clone(&self.gate);
        let own_waker = waker.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ending = Ending(Arc::clone(&gate), index);
            while gate.enter(index) {
                let inside = Inside(&gate, index);
                let after = job.round();
                drop(inside);
                if let After::Wait { readable, timeout } = after {
                    let also = descriptor.as_ref().filter(|_| readable).map(AsFd::as_fd);
                    wait(&own_waker, also, timeout);
                }
            }
        })?;
        self.threads.push(Worker {
            name: name.to_owned(),
            waker,
            thread,
        });
        Ok(())
    }

    /// Keeps workers out of their rounds and waits until none is inside one.
    ///
    /// # Errors
    /// The names of those that did not come out in time; the pause stays ordered.
    pub fn pause(&self, timeout: Duration) -> Result<(), Vec<String>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.gate.lock();
        state.paused = true;
        while state.busy.iter().any(|busy| *busy) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let stuck = state.busy.iter().zip(&self.threads).filter(|(busy, _)| **busy);
                return Err(stuck.map(|(_, worker)| worker.name.clone()).collect());
            }
            state = self.gate.wait(state, left);
        }
        Ok(())
    }

    /// Lets them work again.
    pub fn resume(&self) {
        self.gate.lock().paused = false;
        self.gate.changed.notify_all();
    }

    /// Ends them and waits for their last round. Who has not ended by then is left behind, with its wire or disk.
    pub fn stop(&mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.gate.lock();
        state.stop = true;
        self.gate.changed.notify_all();
        self.threads.iter().for_each(|worker| worker.waker.wake());
        while !state.ended.iter().all(|ended| *ended) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.gate.wait(state, left);
        }
        let ended = state.ended.clone();
        drop(state);
        for (worker, ended) in self.threads.drain(..).zip(ended) {
            if !ended {
                tracing::error!(worker = worker.name, "a device's worker hangs and is left behind");
            } else {
                // One that panicked has said so.
                let _ = worker.thread.join();
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop(DEVICE_STOP_TIMEOUT);
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.threads.iter().map(|worker| &worker.name))
            .finish()
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Waits while paused; false when it is time to end.
    fn enter(&self, index: usize) -> bool {
        let mut state = self.lock();
        while state.paused && !state.stop {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop {
            return false;
        }
        if let Some(busy) = state.busy.get_mut(index) {
            *busy = true;
        }
        true
    }
}

/// A worker inside a round, however the round ends.
struct Inside<'a>(&'a Gate, usize);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(busy) = state.busy.get_mut(self.1) {
            *busy = false;
        }
        if state.paused {
            self.0.changed.notify_all();
        }
    }
}

/// A worker's thread, however it ends.
struct Ending(Arc<Gate>, usize);

impl Drop for Ending {
    fn drop(&mut self) {
        if thread::panicking() {
            let worker = thread::current().name().unwrap_or_default().to_owned();
            tracing::error!(
                worker,
                "a device's worker panicked, and its guest waits in vain: this is a bug"
            );
        }
        if let Some(ended) = self.0.lock().ended.get_mut(self.1) {
            *ended = true;
        }
        self.0.changed.notify_all();
    }
}

fn wait(waker: &Waker, also: Option<BorrowedFd<'_>>, timeout: Option<Duration>) {
    let mut fds = vec![PollFd::new(waker.0.as_fd(), PollFlags::POLLIN)];
    fds.extend(also.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // Rounded up, so that waiting for a deadline does not spin before it.
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
        PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut fds, timeout) {
        // A signal is for a vCPU or for the process; the next round finds nothing to do.
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => tracing::error!(%errno, "a device's worker cannot wait"),
    }
    // Cleared before the round, so that a kick during the round is not lost.
    waker.clear();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Count(Arc<AtomicU64>, After);

    impl Job for Count {
        fn round(&mut self) -> After {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1
        }
    }

    fn rounds_reach(count: &AtomicU64, wanted: u64) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while count.load(Ordering::SeqCst) < wanted && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        count.load(Ordering::SeqCst) >= wanted
    }

    #[test]
    fn a_kick_brings_a_round_and_nothing_else_does() {
        let count = Arc::new(AtomicU64::new(0));
        let waker = Waker::new().unwrap();
        let mut workers = Workers::default();
        workers
            .spawn("count", waker.clone(), Count(Arc::clone(&count), After::KICK))
            .unwrap();
        assert!(rounds_reach(&count, 1));
        thread::sleep(Duration::from_millis(20));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        waker.wake();
        assert!(rounds_reach(&count, 2));
    }

    #[test]
    fn a_pause_stops_even_a_busy_worker_until_it_is_resumed() {
        let count = Arc::new(AtomicU64::new(0));
        let mut workers = Workers::default();
        workers
            .spawn("busy", Waker::new().unwrap(), Count(Arc::clone(&count), After::Again))
            .unwrap();
        assert!(rounds_reach(&count, 100));
        workers.pause(Duration::from_secs(5)).unwrap();
        let seen = count.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(count.load(Ordering::SeqCst), seen);
        workers.resume();
        assert!(rounds_reach(&count, seen + 1));
    }

    #[test]
    fn a_worker_that_hangs_is_named() {
        struct Hang(Arc<Mutex<()>>);
        impl Job for Hang {
            fn round(&mut self) -> After {
                drop(self.0.lock().unwrap());
                After::KICK
            }
        }
        let lock = Arc::new(Mutex::new(()));
        let held = lock.lock().unwrap();
        let mut workers = Workers::default();
        workers
            .spawn("disk0", Waker::new().unwrap(), Hang(Arc::clone(&lock)))
            .unwrap();
        while !workers.gate.lock().busy[0] {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(workers.pause(Duration::from_millis(10)), Err(vec!["disk0".to_owned()]));
        drop(held);
        workers.pause(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn paused_workers_can_be_stopped() {
        let count = Arc::new(AtomicU64::new(0));
        let mut workers = Workers::default();
        workers
            .spawn("count", Waker::new().unwrap(), Count(count, After::Again))
            .unwrap();
        workers.pause(Duration::from_secs(5)).unwrap();
        workers.stop(Duration::from_secs(5));
    }

    #[test]
    fn a_worker_that_hangs_for_ever_is_left_behind() {
        struct Hang(Arc<Mutex<()>>);
        impl Job for Hang {
            fn round(&mut self) -> After {
                drop(self.0.lock());
                After::KICK
            }
        }
        let lock = Arc::new(Mutex::new(()));
        let held = lock.lock().unwrap();
        let mut workers = Workers::default();
        workers
            .spawn("disk0", Waker::new().unwrap(), Hang(Arc::clone(&lock)))
            .unwrap();
        while !workers.gate.lock().busy[0] {
            thread::sleep(Duration::from_millis(1));
        }
        workers.stop(Duration::from_millis(10));
        assert!(workers.threads.is_empty());
        drop(held);
    }
}
