//! Write-back during the dump, by a thread of its own, so that the last sync is short.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::layout;

/// What is made durable, in this order.
#[derive(Debug)]
pub(crate) struct Synced {
    /// The session's journal: a mark in it is worth nothing before the records in front of it are on the disk.
    pub(crate) journal: File,
    /// The file of the dump.
    pub(crate) file: Arc<File>,
    /// Directories that name the two: once is enough.
    pub(crate) dirs: Vec<PathBuf>,
}

/// Syncs one session on request. An error is final: what the kernel failed to write once may look written the next time
/// (fsync(2), EIO), so that nothing here asks again.
#[derive(Debug)]
pub(crate) struct WriteBack {
    /// Given to the thread when that starts.
    synced: Option<Synced>,
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
    pub(crate) fn new(synced: Synced) -> Self {
        Self {
            synced: Some(synced),
            worker: None,
            running: None,
            failed: false,
        }
    }

    /// Starts a sync, if none runs; `mark` is handed back when it is done. Whether one was started.
    pub(crate) fn start(&mut self, mark: u64) -> bool {
        if self.running.is_some() {
            return false;
        }
        if let Some(synced) = self.synced.take() {
            self.worker = Worker::start(synced);
        }
        let asked = self
            .worker
            .as_ref()
            .is_some_and(|worker| worker.requests.send(()).is_ok());
        if asked {
            self.running = Some(mark);
        }
        asked
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
                self.running = None;
                self.failed = true;
                Err(why)
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the write-back thread ended")),
        }
    }

    /// Waits for a running sync and ends the thread. An error if any sync failed.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let Some(worker) = self.worker.take() else {
            return Ok(());
        };
        drop(worker.requests);
        let last = match self.running {
            Some(_) => worker.results.recv().unwrap_or(Ok(())),
            None => Ok(()),
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
    fn start(mut synced: Synced) -> Option<Self> {
        let (requests, work) = mpsc::channel();
        let (done, results) = mpsc::channel();
        let run = move || {
            while work.recv().is_ok() {
                if done.send(synced.sync()).is_err() {
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

impl Synced {
    fn sync(&mut self) -> io::Result<()> {
        let began = Instant::now();
        self.journal.sync_data()?;
        self.file.sync_data()?;
        super::FSYNC.add_since(began);
        for dir in std::mem::take(&mut self.dirs) {
            layout::sync_dir(&dir)?;
        }
        Ok(())
    }
}
