//! Keeps the guest's vCPUs from waiting for whoever reads the console.
//!
//! Output goes through a bounded queue to a thread that writes it. A terminal that was stopped or a full pipe then costs
//! output, which is counted, but never keeps a vCPU out of a freeze.
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::limits::{CONSOLE_DRAIN_TIMEOUT, CONSOLE_QUEUE_LEN};

/// The end that the serial device writes to. Dropping it lets the thread end once everything is written.
#[derive(Debug)]
pub(super) struct QueuedConsole(Arc<Shared>);

/// Waits for output to be written.
#[derive(Clone, Debug)]
pub(super) struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: VecDeque<u8>,
    dropped_bytes: u64,
    writing: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread that writes to `out`.
///
/// # Errors
/// If the host has no thread left.
pub(super) fn queued(out: Box<dyn Write + Send>) -> io::Result<(QueuedConsole, Drain)> {
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        changed: Condvar::new(),
    });
    let for_thread = Arc::clone(&shared);
    thread::Builder::new()
        .name("console".to_owned())
        .spawn(move || write_out(&for_thread, out))?;
    Ok((QueuedConsole(Arc::clone(&shared)), Drain(shared)))
}

fn write_out(shared: &Shared, mut out: Box<dyn Write + Send>) {
    let mut broken = false;
    let mut queue = shared.lock();
    loop {
        if queue.bytes.is_empty() {
            queue.writing = false;
            shared.changed.notify_all();
            if queue.closed {
                return;
            }
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        queue.writing = true;
        let bytes: Vec<u8> = queue.bytes.drain(..).collect();
        drop(queue);
        // A console that nobody reads any more must not stop the guest.
        if !broken && let Err(error) = out.write_all(&bytes).and_then(|()| out.flush()) {
            tracing::warn!(%error, "the guest's console output cannot be written any more");
            broken = true;
        }
        queue = shared.lock();
    }
}

impl Write for QueuedConsole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.lock();
        let room = CONSOLE_QUEUE_LEN.saturating_sub(queue.bytes.len());
        let taken = bytes.iter().take(room);
        queue.bytes.extend(taken);
        let dropped = bytes.len().saturating_sub(room) as u64;
        if dropped > 0 && queue.dropped_bytes == 0 {
            tracing::warn!("the guest's console output is not read fast enough; some is left out");
        }
        queue.dropped_bytes = queue.dropped_bytes.saturating_add(dropped);
        drop(queue);
        self.0.changed.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for QueuedConsole {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Drain {
    /// Waits until all output so far is written, but not for a reader that stands still.
    pub(super) fn wait(&self) {
        let deadline = Instant::now() + CONSOLE_DRAIN_TIMEOUT;
        let mut queue = self.0.lock();
        while queue.writing || !queue.bytes.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                tracing::warn!(unwritten_bytes = queue.bytes.len(), "console output was not read");
                return;
            };
            queue = self
                .0
                .changed
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Collect(Arc<Mutex<Vec<u8>>>);

    impl Write for Collect {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn output_arrives_whole_and_in_order() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut console, drain) = queued(Box::new(Collect(Arc::clone(&seen)))).unwrap();
        for number in 0..1000 {
            writeln!(console, "{number}").unwrap();
        }
        drain.wait();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(seen.lock().unwrap().clone()).unwrap(), expected);
    }

    #[test]
    fn a_reader_that_stands_still_costs_output_but_never_the_writer() {
        let (release, gate) = mpsc::channel();
        let (mut console, drain) = queued(Box::new(Stuck(gate))).unwrap();
        for _ in 0..2 * CONSOLE_QUEUE_LEN / 1024 + 2 {
            console.write_all(&[b'x'; 1024]).unwrap();
        }
        let queue = console.0.lock();
        assert!(queue.bytes.len() <= CONSOLE_QUEUE_LEN && queue.dropped_bytes > 0);
        drop(queue);
        let started = Instant::now();
        drain.wait();
        assert!(started.elapsed() >= CONSOLE_DRAIN_TIMEOUT);
        drop(release);
    }
}
