//! A long-running child process that ends with the test.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::PATIENCE;

/// A running child: its standard output line by line, its standard error kept for failure messages.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    lines: mpsc::Receiver<String>,
    stderr: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts `command` with both outputs read in the background, so that the child never blocks on a full pipe.
    pub(crate) fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let kept = Arc::new(Mutex::new(String::new()));
        let keeper = Arc::clone(&kept);
        thread::spawn(move || keep(stderr, &keeper));
        Self {
            child,
            lines,
            stderr: kept,
        }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next standard output line that starts with `prefix`; lines before it are dropped.
    pub(crate) fn line_starting(&self, prefix: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line.starts_with(prefix) => return line,
                Ok(_) => {}
                Err(why) => panic!("no line `{prefix}…` ({why}); standard error:\n{}", self.stderr_text()),
            }
        }
    }

    /// What the child has written to standard error so far.
    pub(crate) fn stderr_text(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a signal to this child and to nothing else.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process id fits"));
        kill(pid, signal).unwrap_or_else(|error| panic!("cannot send {signal} to {pid}: {error}"));
    }

    /// Asks the child to end (SIGTERM) and waits for it.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.exit_within(PATIENCE)
    }

    /// Ends the child at once, as a crash would (SIGKILL), and waits for it.
    pub(crate) fn kill(mut self) -> ExitStatus {
        self.signal(Signal::SIGKILL);
        self.exit_within(PATIENCE)
    }

    /// Waits for the child to end by itself.
    pub(crate) fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(
                began.elapsed() < limit,
                "still running after {limit:?}; standard error:\n{}",
                self.stderr_text()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a pipe to its end into a shared text.
fn keep(mut pipe: impl Read, kept: &Mutex<String>) {
    let mut chunk = [0; 4096];
    while let Ok(len) = pipe.read(&mut chunk) {
        if len == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&chunk[..len]);
        kept.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
    }
}
