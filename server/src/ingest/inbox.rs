//! Datagrams for a session that came to another socket than its own.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::limits::INBOX_DATAGRAMS_MAX;
use crate::os::trains::Datagram;

/// Filled by the listening port's thread, emptied by the session's.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Mutex<VecDeque<Vec<u8>>>,
    /// Readable when something waits.
    wake: OwnedFd,
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            waiting: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Adds a datagram; one too many is dropped, for its sender repeats it.
    pub(super) fn put(&self, datagram: &[u8]) {
        let mut waiting = self.lock();
        if waiting.len() < INBOX_DATAGRAMS_MAX {
            waiting.push_back(datagram.to_vec());
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Takes what waits, one behind the other into `buffer`, as far as it has room.
    pub(super) fn take(&self, buffer: &mut [u8], from: std::net::SocketAddrV4) -> Vec<Datagram> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        let mut at = 0;
        while let Some(next) = waiting.front()
            && let Some(room) = buffer.get_mut(at..at + next.len())
        {
            room.copy_from_slice(next);
            taken.push(Datagram { from, len: next.len() });
            at += next.len();
            waiting.pop_front();
        }
        if waiting.is_empty() && !taken.is_empty() {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        taken
    }

    /// What to wait on.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_out_once_in_order_and_as_far_as_there_is_room() {
        let inbox = Inbox::new().unwrap();
        let from = "192.0.2.1:5".parse().unwrap();
        for text in [&b"one"[..], b"three", b"seventeen"] {
            inbox.put(text);
        }
        let mut buffer = [0; 9];
        assert_eq!(inbox.take(&mut buffer, from).len(), 2);
        assert_eq!(&buffer[..8], b"onethree");
        assert_eq!(inbox.take(&mut buffer, from), [Datagram { from, len: 9 }]);
        assert!(inbox.take(&mut buffer, from).is_empty());
        for _ in 0..2 * INBOX_DATAGRAMS_MAX {
            inbox.put(&[]);
        }
        assert_eq!(inbox.take(&mut buffer, from).len(), INBOX_DATAGRAMS_MAX);
    }
}
