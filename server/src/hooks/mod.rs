//! Commands that are run when something happens to a dump.
//!
//! ```text
//! session ─► event ─► bounded queue ─► one thread: command, arguments, JSON on standard input, deadline
//! ```
//!
//! A session only puts its event into the queue and never waits. Commands run one after the other, so that `start` comes
//! before `complete`; no shell is between, and everything that a guest says is escaped.

mod child;
mod event;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::child::{Call, Outcome};
pub(crate) use self::event::{Happened, HookEvent};
use crate::ingest::Counters;
use crate::limits::{HOOK_DEADLINE, HOOK_QUEUE, HOOK_STOP_TIME};

/// A program and the arguments that come before ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCommand {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
}

/// As whom commands are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookUser {
    /// User id (setuid(2)); the process has no supplementary groups then.
    pub uid: u32,
    /// Group id (setgid(2)).
    pub gid: u32,
}

/// What is run when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// The first bytes of a dump came.
    pub start: Option<HookCommand>,
    /// A core is complete.
    pub complete: Option<HookCommand>,
    /// A core is not complete.
    pub incomplete: Option<HookCommand>,
    /// There is no room for a dump, or will not be for all of it.
    pub nospace: Option<HookCommand>,
    /// A script that takes the arguments of netdumpd(8)'s `-i`, run after each dump.
    pub netdumpd_script: Option<PathBuf>,
    /// A command that runs longer is killed, with its process group.
    pub deadline: Duration,
    /// As whom; as the receiver itself if nobody is named.
    pub user: Option<HookUser>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            start: None,
            complete: None,
            incomplete: None,
            nospace: None,
            netdumpd_script: None,
            deadline: HOOK_DEADLINE,
            user: None,
        }
    }
}

impl Hooks {
    /// Whether anything is run at all.
    fn is_empty(&self) -> bool {
        let commands = [&self.start, &self.complete, &self.incomplete, &self.nospace];
        commands.iter().all(|command| command.is_none()) && self.netdumpd_script.is_none()
    }

    /// What is to be run for an event.
    fn calls(&self, root: &Path, event: &HookEvent) -> Vec<Call> {
        let command = match event.happened {
            Happened::Start => &self.start,
            Happened::Complete => &self.complete,
            Happened::Incomplete => &self.incomplete,
            Happened::NoSpace => &self.nospace,
        };
        let ours = command.as_ref().map(|command| Call {
            program: command.program.clone(),
            arguments: command.arguments.iter().cloned().chain(event.arguments()).collect(),
            input: event.json(),
            path: true,
            dir: PathBuf::from("/"),
        });
        let theirs = self.netdumpd_script.as_ref().and_then(|script| {
            Some(Call {
                program: script.clone(),
                arguments: event.netdumpd_arguments(root)?,
                input: Vec::new(),
                path: false,
                dir: root.to_owned(),
            })
        });
        ours.into_iter().chain(theirs).collect()
    }
}

/// Hands events to the thread that runs the commands.
#[derive(Debug)]
pub(crate) struct HookRunner {
    queue: Mutex<Option<SyncSender<HookEvent>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// When everything has to be over, once the receiver stops.
    stop_at: Arc<Mutex<Option<Instant>>>,
    counters: Arc<Counters>,
}

impl HookRunner {
    /// Starts the thread, if there is anything to run.
    pub(crate) fn start(root: &Path, hooks: Hooks, counters: Arc<Counters>) -> Self {
        let stop_at = Arc::new(Mutex::new(None));
        let (queue, thread) = if hooks.is_empty() {
            (None, None)
        } else {
            let (queue, events) = mpsc::sync_channel(HOOK_QUEUE);
            let (root, stop_at) = (root.to_owned(), Arc::clone(&stop_at));
            let run = move || run(&root, &hooks, &events, &stop_at);
            match thread::Builder::new().name("hooks".to_owned()).spawn(run) {
                Ok(thread) => (Some(queue), Some(thread)),
                Err(why) => {
                    tracing::error!("no hook will run, its thread cannot be started: {why}");
                    (None, None)
                }
            }
        };
        Self {
            queue: Mutex::new(queue),
            thread: Mutex::new(thread),
            stop_at,
            counters,
        }
    }

    /// Something happened. Never waits: when too much has happened already, the commands of this are left out.
    pub(crate) fn happened(&self, event: impl FnOnce() -> HookEvent) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*queue
            && let Err(why) = queue.try_send(event())
        {
            Counters::add(&self.counters.hooks_dropped, 1);
            tracing::error!("hook left out, {HOOK_QUEUE} others are waiting: {why}");
        }
    }

    /// Runs what is waiting, for a bounded time, and ends the thread.
    pub(crate) fn stop(&self) {
        *self.stop_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + HOOK_STOP_TIME);
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// The thread.
fn run(root: &Path, hooks: &Hooks, events: &Receiver<HookEvent>, stop_at: &Mutex<Option<Instant>>) {
    while let Ok(event) = events.recv() {
        for call in hooks.calls(root, &event) {
            let deadline = Instant::now() + hooks.deadline;
            let until = || {
                let stop = *stop_at.lock().unwrap_or_else(PoisonError::into_inner);
                stop.map_or(deadline, |stop| stop.min(deadline))
            };
            let (program, core) = (call.program.display(), &event.id);
            match child::run(&call, hooks.user, &until) {
                Ok(Outcome::Ended(status)) if status.success() => tracing::info!(%program, core, "hook ended"),
                Ok(Outcome::Ended(status)) => tracing::warn!(%program, core, "hook ended with {status}"),
                Ok(Outcome::Killed) => tracing::warn!(%program, core, "hook killed at its deadline"),
                Err(why) => tracing::warn!(%program, core, "hook cannot be run: {why}"),
            }
        }
    }
}
