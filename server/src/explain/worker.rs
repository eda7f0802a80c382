//! The thread that has cores explained, one at a time, and keeps what comes out.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use api::{EventLog, Explanation};

use crate::cores::LocalCores;
use crate::events;
use crate::limits::{EXPLAIN_QUEUE, EXPLAIN_TIME, EXPLANATION_BYTES_MAX, STOP_LOOK};
use crate::os;
use crate::store::layout;

/// How often it is looked whether a program that has printed everything has ended.
const END_LOOK: Duration = Duration::from_millis(2);

/// Why a core has no explanation.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    /// The program cannot be run, or its output not be read.
    #[error("{0}")]
    Run(#[from] io::Error),
    /// It took too long, or the receiver was stopped.
    #[error("stopped after {0:.1?}")]
    Killed(Duration),
    /// It failed.
    #[error("it ended with {0}")]
    Failed(std::process::ExitStatus),
    /// What it printed is no explanation.
    #[error("it printed no explanation: {0}")]
    NoExplanation(#[from] serde_json::Error),
}

/// Has cores explained. Cores that come faster than that are left out.
#[derive(Debug)]
pub(crate) struct Explainer {
    queue: Mutex<Option<SyncSender<PathBuf>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    stop: Arc<AtomicBool>,
}

/// What the thread works with.
#[derive(Debug)]
struct Work {
    program: PathBuf,
    cores: Arc<LocalCores>,
    events: Arc<EventLog>,
    stop: Arc<AtomicBool>,
}

impl Explainer {
    /// Starts the thread; `program` is run as `PROGRAM explain-core DIRECTORY` and prints an [`Explanation`].
    pub(crate) fn start(program: Option<PathBuf>, cores: Arc<LocalCores>, events: Arc<EventLog>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let started = program.and_then(|program| {
            let (queue, dirs) = mpsc::sync_channel(EXPLAIN_QUEUE);
            let work = Work {
                program,
                cores,
                events,
                stop: Arc::clone(&stop),
            };
            let builder = thread::Builder::new().name("explain".to_owned());
            match builder.spawn(move || work.run(&dirs)) {
                Ok(thread) => Some((queue, thread)),
                Err(why) => {
                    tracing::error!("no core will be explained, the thread cannot be started: {why}");
                    None
                }
            }
        });
        let (queue, thread) = started.unzip();
        Self {
            queue: Mutex::new(queue),
            thread: Mutex::new(thread),
            stop,
        }
    }

    /// A core was kept in this directory. Never waits.
    pub(crate) fn kept(&self, core_dir: &Path) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*queue
            && queue.try_send(core_dir.to_owned()).is_err()
        {
            tracing::warn!(
                "{} is not explained, {EXPLAIN_QUEUE} others are waiting",
                core_dir.display()
            );
        }
    }

    /// Ends the thread, and the program that it runs. Cores that wait are not explained.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Work {
    /// The thread.
    fn run(&self, dirs: &Receiver<PathBuf>) {
        while let Ok(dir) = dirs.recv() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let core = dir.display();
            match self.explain(&dir) {
                Ok(explanation) => {
                    let signature = explanation.crash.as_ref().map(|crash| crash.signature.as_str());
                    tracing::info!(%core, signature, "core explained");
                    self.cores.explained(&dir, &explanation);
                    if let Some(core) = dir.file_name().and_then(|id| self.cores.by_id(id.to_str()?)) {
                        events::tell(&self.events, "core.explained", events::of_core(&core));
                    }
                }
                Err(why) => tracing::warn!(%core, "core not explained: {why}"),
            }
        }
    }

    /// Runs the program and keeps its explanation.
    fn explain(&self, dir: &Path) -> Result<Explanation, ExplainError> {
        let mut child = Command::new(&self.program)
            .arg("explain-core")
            .arg(dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let printed = match child.stdout.take() {
            Some(stdout) => self.read_all(stdout, &mut child),
            None => Err(io::Error::other("it has no standard output").into()),
        };
        // Whatever happened, it does not outlive this: one that has ended is not hurt.
        let _ = child.kill();
        let status = child.wait()?;
        let printed = printed?;
        if !status.success() {
            return Err(ExplainError::Failed(status));
        }
        let explanation = serde_json::from_slice(&printed)?;
        keep(dir, &explanation)?;
        Ok(explanation)
    }

    /// What the program prints until it ends, for a bounded time.
    fn read_all(&self, mut stdout: ChildStdout, child: &mut Child) -> Result<Vec<u8>, ExplainError> {
        let start = Instant::now();
        let mut printed = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if start.elapsed() >= EXPLAIN_TIME || self.stop.load(Ordering::Relaxed) {
                return Err(ExplainError::Killed(start.elapsed()));
            }
            if !os::is_readable(&stdout, STOP_LOOK)? {
                continue;
            }
            match stdout.read(&mut buffer)? {
                0 => break,
                len => printed.extend_from_slice(buffer.get(..len).unwrap_or_default()),
            }
            if printed.len() as u64 > EXPLANATION_BYTES_MAX {
                return Err(io::Error::other(format!("it printed more than {EXPLANATION_BYTES_MAX} bytes")).into());
            }
        }
        // It has closed its output, so that it is about to end.
        while child.try_wait()?.is_none() {
            if start.elapsed() >= EXPLAIN_TIME || self.stop.load(Ordering::Relaxed) {
                return Err(ExplainError::Killed(start.elapsed()));
            }
            thread::sleep(END_LOOK);
        }
        Ok(printed)
    }
}

/// Writes explain.json at once and as a whole. It is derived, so that it need not outlive a loss of power.
fn keep(dir: &Path, explanation: &Explanation) -> io::Result<()> {
    let part = dir.join(format!("{}.part", layout::EXPLANATION));
    let _ = fs::remove_file(&part);
    layout::write_file(&part, &serde_json::to_vec_pretty(explanation)?)?;
    fs::rename(&part, dir.join(layout::EXPLANATION))
}

/// The explanation in a core's directory, if there is one that can be read.
pub(crate) fn read(dir: &Path) -> Option<Explanation> {
    let file = fs::File::open(dir.join(layout::EXPLANATION)).ok()?;
    let mut json = Vec::new();
    file.take(EXPLANATION_BYTES_MAX).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}
