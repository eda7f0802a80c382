//! Addresses that are told what happens: the same JSON as on the stream of events, signed, tried again, never waited for.
//!
//! ```text
//! event log ─► outbox (one file each) ─► schedule ─ due ─► POST ─ 2xx ─► file removed
//!                                           ▲                └ else: again later, after the last try a dead letter
//!                                           └──────────────────────┘
//! ```
//!
//! What stands in an outbox outlives the receiver. Each address has its own outbox and its own turn, so that a slow one delays no
//! other, and none of them delays a dump: sessions only write to the log.
//!
//! - `schedule`: when what is tried again, without I/O
//! - `letters`: outboxes and dead letters on disk
//! - `sign`: the signature
//! - `work`: the thread

mod letters;
mod schedule;
mod sign;
mod work;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use api::webhook::WebhookUrl;
use api::{EVENT_KINDS, EventLog, Trust};
use tokio::sync::oneshot;

pub use self::letters::dead_letters;
pub use self::sign::Secret;
use self::work::Work;
use crate::ingest::Counters;
use crate::limits::WEBHOOK_DELAYS;

/// The kind of which only the newest counts, and which nobody is told by webhook.
const PROGRESS: &str = "dump.progress";

/// An address that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where.
    pub url: WebhookUrl,
    /// What the deliveries are signed with.
    pub secret: Secret,
    /// Of what; of everything if the list is empty.
    pub kinds: Vec<String>,
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

impl Webhook {
    /// The kinds of events that an address can be told of.
    pub fn all_kinds() -> impl Iterator<Item = &'static str> {
        EVENT_KINDS.into_iter().filter(|kind| *kind != PROGRESS)
    }

    fn wants(&self, kind: &str) -> bool {
        kind != PROGRESS && (self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted == kind))
    }

    fn trust(&self) -> Trust {
        Trust {
            ca: self.ca.clone(),
            identity: None,
        }
    }
}

/// All addresses, and how patient deliveries are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// The addresses.
    pub targets: Vec<Webhook>,
    /// How long to wait after each try that failed; one more fails for good.
    pub delays: Vec<Duration>,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            delays: WEBHOOK_DELAYS.to_vec(),
        }
    }
}

/// The thread that tells them.
#[derive(Debug)]
pub(crate) struct WebhookTeller {
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl WebhookTeller {
    /// Starts the thread, if there is anybody to tell, or what is left of an earlier receiver is to be put away.
    pub(crate) fn start(root: &Path, webhooks: Webhooks, log: Arc<EventLog>, counters: &Arc<Counters>) -> Self {
        let nothing = Self {
            stop: Mutex::new(None),
            thread: Mutex::new(None),
        };
        if webhooks.targets.is_empty() && !letters::any(root) {
            return nothing;
        }
        let (stop, stopped) = oneshot::channel();
        let started = Work::new(root, webhooks, log, counters).and_then(|work| {
            let builder = thread::Builder::new().name("webhooks".to_owned());
            builder.spawn(move || work.run(stopped))
        });
        match started {
            Ok(thread) => Self {
                stop: Mutex::new(Some(stop)),
                thread: Mutex::new(Some(thread)),
            },
            Err(why) => {
                tracing::error!("nobody is told by webhook: {why}");
                nothing
            }
        }
    }

    /// Puts what happened last into the outboxes, and ends the thread. What waits there is for the next receiver.
    pub(crate) fn stop(&self) {
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}
