//! Waiting on one descriptor with a bound.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits until `fd` shows one of `events` (or an error state) or `timeout` is over; returns what it shows.
/// A signal does not end the wait.
pub(super) fn wait_for(fd: BorrowedFd<'_>, events: PollFlags, timeout: Duration) -> Result<PollFlags, Errno> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A fraction of a millisecond is rounded up, so that waiting for a deadline never spins before it.
        let left_ms = left.as_micros().div_ceil(1000);
        let mut fds = [PollFd::new(fd, events)];
        match poll(&mut fds, PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX)) {
            Ok(_) => return Ok(fds[0].revents().unwrap_or(PollFlags::empty())),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
