//! The thread: takes events out of the log into the outboxes, and delivers what is due, to each address by itself.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use api::{Event, EventLog, TlsClient};
use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep_until;

use super::letters::{self, Letter, Outbox};
use super::schedule::{Outcome, Schedule, Step};
use super::{Webhook, Webhooks};
use crate::ingest::Counters;

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Work {
    targets: Vec<Arc<Target>>,
    log: Arc<EventLog>,
    runtime: Runtime,
}

/// One address.
#[derive(Debug)]
struct Target {
    webhook: Webhook,
    trust: Option<Arc<TlsClient>>,
    outbox: Outbox,
    schedule: Mutex<Schedule>,
    next_number: AtomicU64,
    more: Notify,
    counters: Arc<Counters>,
}

impl Work {
    /// Opens the outboxes.
    pub(super) fn new(
        root: &Path,
        webhooks: Webhooks,
        log: Arc<EventLog>,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let addresses: Vec<String> = webhooks.targets.iter().map(|target| target.url.text()).collect();
        letters::bury_strangers(root, &addresses)?;
        let Webhooks { targets, delays } = webhooks;
        let open = |webhook: Webhook| {
            let (outbox, numbers) = Outbox::open(root, &webhook.url.text())?;
            let trust = webhook.trust().read();
            let trust = trust
                .map_err(|why| tracing::warn!(to = webhook.url.origin(), "{why}"))
                .ok();
            let target = Target {
                trust,
                schedule: Mutex::new(Schedule::new(delays.clone())),
                next_number: AtomicU64::new(numbers.last().map_or(0, |last| last + 1)),
                more: Notify::new(),
                counters: Arc::clone(counters),
                outbox,
                webhook,
            };
            for number in numbers {
                target.find_again(number);
            }
            Ok(Arc::new(target))
        };
        let targets = targets.into_iter().map(open).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { targets, log, runtime })
    }

    /// Runs until it is told to stop.
    pub(super) fn run(self, stopped: oneshot::Receiver<()>) {
        let Self { targets, log, runtime } = self;
        for target in &targets {
            let target = Arc::clone(target);
            runtime.spawn(async move { target.serve().await });
        }
        runtime.block_on(async {
            let mut newest = log.watch();
            let mut at = 0;
            tokio::pin!(stopped);
            loop {
                take_events(&log, &mut at, &targets);
                tokio::select! {
                    changed = newest.changed() => if changed.is_err() { return },
                    _ = &mut stopped => {
                        take_events(&log, &mut at, &targets);
                        return;
                    }
                }
            }
        });
        // Ends deliveries that are under way: their letters are still there.
        runtime.shutdown_background();
    }
}

/// Puts what happened after number `at` into the outboxes.
fn take_events(log: &EventLog, at: &mut u64, targets: &[Arc<Target>]) {
    loop {
        let events = log.after(*at);
        let Some((last, _)) = events.last() else { return };
        *at = *last;
        for (_, event) in &events {
            for target in targets.iter().filter(|target| target.webhook.wants(&event.kind)) {
                target.put(event);
            }
        }
    }
}

impl Target {
    /// A letter that an earlier receiver left.
    fn find_again(&self, number: u64) {
        match self.outbox.read(number) {
            Ok(letter) => self.wait_for_turn(number, letter),
            Err(why) => tracing::warn!(to = self.webhook.url.origin(), number, "a letter cannot be read: {why}"),
        }
    }

    /// Something happened.
    fn put(&self, event: &Event) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let letter = Letter {
            to: self.webhook.url.origin(),
            tries: 0,
            last_error: None,
            event: event.clone(),
        };
        match self.outbox.keep(number, &letter) {
            Ok(()) => self.wait_for_turn(number, letter),
            Err(why) => {
                Counters::add(&self.counters.webhooks_dead, 1);
                let (to, event) = (self.webhook.url.origin(), &event.id);
                tracing::error!(to, event, "an event cannot be put into the outbox: {why}");
            }
        }
    }

    /// Gives a letter its place in the schedule, or gives it up.
    fn wait_for_turn(&self, number: u64, mut letter: Letter) {
        if self.schedule().put(number, letter.tries, Instant::now()) {
            self.more.notify_one();
        } else {
            letter.last_error = Some("too many others wait for this address".to_owned());
            self.bury(number, &letter);
        }
    }

    /// Delivers what is due, for ever.
    async fn serve(&self) {
        loop {
            let (due, deadline) = {
                let schedule = self.schedule();
                (schedule.due(Instant::now()), schedule.deadline())
            };
            match (due, deadline) {
                (Some(number), _) => self.deliver(number).await,
                (None, Some(deadline)) => tokio::select! {
                    () = self.more.notified() => {}
                    () = sleep_until(deadline.into()) => {}
                },
                (None, None) => self.more.notified().await,
            }
        }
    }

    /// Tries one letter.
    async fn deliver(&self, number: u64) {
        let mut letter = match self.outbox.read(number) {
            Ok(letter) => letter,
            Err(why) => {
                tracing::warn!(to = self.webhook.url.origin(), number, "a letter is gone: {why}");
                self.schedule().forget(number);
                return;
            }
        };
        let body = serde_json::to_vec(&letter.event).unwrap_or_default();
        let now = Timestamp::now().as_second();
        let headers = self.webhook.secret.headers(&letter.event.id, now, &body);
        let answer = self.webhook.url.post(self.trust.as_ref(), &headers, body).await;
        let outcome = match &answer {
            Ok(status) => Outcome::of_status(*status),
            Err(_) => Outcome::Failed,
        };
        letter.tries += 1;
        letter.last_error = match answer {
            Ok(status) => Some(format!("it answered with status {status}")),
            Err(why) => Some(why),
        };
        let step = self.schedule().tried(number, outcome, Instant::now());
        self.follow(number, &letter, step);
    }

    /// Writes down what became of a letter.
    fn follow(&self, number: u64, letter: &Letter, step: Step) {
        let (to, event) = (&letter.to, &letter.event.id);
        let why = letter.last_error.as_deref().unwrap_or_default();
        let written = match step {
            Step::Delivered => {
                Counters::add(&self.counters.webhooks_delivered, 1);
                self.outbox.remove(number)
            }
            Step::Again(after) => {
                Counters::add(&self.counters.webhooks_failed, 1);
                tracing::warn!(
                    to,
                    event,
                    tries = letter.tries,
                    "not delivered, again in {after:?}: {why}"
                );
                self.outbox.keep(number, letter)
            }
            Step::Dead => {
                tracing::error!(to, event, tries = letter.tries, "not delivered, given up: {why}");
                self.bury(number, letter);
                Ok(())
            }
        };
        if let Err(why) = written {
            tracing::error!(to, event, "the outbox cannot be changed: {why}");
        }
    }

    fn bury(&self, number: u64, letter: &Letter) {
        Counters::add(&self.counters.webhooks_dead, 1);
        if let Err(why) = self.outbox.bury(number, letter) {
            tracing::error!(
                to = letter.to,
                event = letter.event.id,
                "a dead letter cannot be kept: {why}"
            );
        }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
