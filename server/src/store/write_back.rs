//! Write-back during the dump, by a thread of its own, so that the last sync is short.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

/// Syncs one file on request. An error is final: what the kernel failed to write once may look written the next time.
#[derive(Debug)]
pub(crate) struct WriteBack {
    file: Arc<File>,
    worker: Option<Worker>,
    /// What the journal calls the state that the running sync will make durable.
    running: Option<u64>,
    failed: bool,
}

#[derive(Debug)]
struct Worker {
    requests: Sender<()>,
    results: Receiver<io::Result<()>>,
    thread: JoinHandle<()>,
}

impl WriteBack {
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self {
            file,
            worker: None,
            running: None,
            failed: false,
        }
    }

    /// Whether no sync runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// Starts a sync; `mark` is handed back when it is done.
    pub(crate) fn start(&mut self, mark: u64) {
        if self.worker.is_none() {
            self.worker = Worker::start(&self.file);
        }
        if let Some(worker) = &self.worker
            && worker.requests.send(()).is_ok()
        {
            self.running = Some(mark);
        }
    }

    /// The mark of a sync that ended since the last call.
    pub(crate) fn poll(&mut self) -> io::Result<Option<u64>> {
        let (Some(worker), Some(mark)) = (&self.worker, self.running) else {
            return Ok(None);
        };
        match worker.results.try_recv() {
            Ok(Ok(())) => {
                self.running = None;
                Ok(Some(mark))
            }
            Ok(Err(why)) => {
                self.failed = true;
                Err(why)
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the write-back thread ended")),
        }
    }

    /// Waits for a running sync and ends the thread.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let Some(worker) = self.worker.take() else {
            return Ok(());
        };
        drop(worker.requests);
        let last = match self.running {
            Some(_) if !self.failed => worker.results.recv().unwrap_or(Ok(())),
            _ => Ok(()),
        };
        let _ = worker.thread.join();
        if self.failed {
            return Err(io::Error::other("an earlier sync of the file failed"));
        }
        last
    }
}

impl Worker {
    /// Starts the thread; without one, the last sync does all the work.
    fn start(file: &Arc<File>) -> Option<Self> {
        let (requests, work) = mpsc::channel();
        let (done, results) = mpsc::channel();
        let file = Arc::clone(file);
        let run = move || {
            while work.recv().is_ok() {
                if done.send(file.sync_data()).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("write-back".to_owned()).spawn(run).ok()?;
        Some(Self {
            requests,
            results,
            thread,
        })
    }
}
