//! The receiver as one thing that is started and stopped.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use api::{CoreSummary, EventLog};
use netdump::{AckPolicy, Session};

use crate::admission::{Admission, Limits};
use crate::allow::Cidr;
use crate::cores::LocalCores;
use crate::events::ProgressTeller;
use crate::explain::Explainer;
use crate::hooks::{HookRunner, Hooks};
use crate::ingest::{Beginning, Counters, Door, SessionRules, Shared, SpoolOrLinger};
use crate::limits::{HALF_OPEN_FORGOTTEN, SESSIONS_MAX};
use crate::os;
use crate::service::CoreCatalogue;
use crate::store::answered::Answered;
use crate::store::examine::Ending;
use crate::store::{self, Resumable, StoreError};
use crate::webhooks::{WebhookTeller, Webhooks};

/// What a receiver needs to know.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// Where cores are stored; made if its parent exists.
    pub dir: PathBuf,
    /// Addresses to take heralds on; port 0 asks for a free one.
    pub listen: Vec<SocketAddrV4>,
    /// Networks that may dump; loopback always may.
    pub allow: Vec<Cidr>,
    /// How much dumps may take, and how fast they may come.
    pub limits: Limits,
    /// Commands that are run when something happens to a dump.
    pub hooks: Hooks,
    /// Addresses that are told when something happens.
    pub webhooks: Webhooks,
    /// Program that explains a core that was kept, run as `PROGRAM explain-core DIRECTORY`; it prints the result of
    /// [`crate::explain()`]. Without it cores are not explained.
    pub explainer: Option<PathBuf>,
    /// How long sessions live, how many, and how they answer.
    pub rules: SessionRules,
}

impl ReceiverConfig {
    /// A receiver on 127.0.0.1, port 20023 (netdump(4)).
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            listen: vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, netdump::wire::HERALD_PORT)],
            allow: Vec::new(),
            limits: Limits::default(),
            hooks: Hooks::default(),
            webhooks: Webhooks::default(),
            explainer: None,
            rules: SessionRules {
                sessions_max: SESSIONS_MAX,
                silent_after: netdump::limits::SILENT_AFTER_STOCK,
                silent_after_ours: netdump::limits::SILENT_AFTER_OURS,
                linger: netdump::limits::LINGER,
                ack_policy: AckPolicy::default(),
            },
        }
    }
}

/// Why a receiver could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// It would be open to networks that nobody named.
    #[error("{listen} is not a loopback address: name the networks that may dump, with --allow")]
    AllowMissing {
        /// The address.
        listen: SocketAddrV4,
    },
    /// Its directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address cannot be listened on.
    #[error("cannot listen for dumps on UDP {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
}

/// A running receiver. Dropping it stops it.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddrV4>,
    heralds: Vec<JoinHandle<()>>,
    progress: ProgressTeller,
    webhooks: WebhookTeller,
}

/// A session that cannot go on in this receiver.
#[derive(Debug, thiserror::Error)]
enum ResumeError {
    #[error("its addresses cannot be read")]
    Addresses,
    #[error("nothing listens on {0} any more")]
    NoDoor(SocketAddrV4),
    #[error("its port cannot be had: {0}")]
    Port(#[from] io::Error),
}

impl Receiver {
    /// Opens the store, goes on with sessions that an earlier receiver left and whose senders may still be there, makes cores
    /// of the others, and starts to listen.
    ///
    /// # Errors
    /// See [`ReceiverError`].
    pub fn start(config: ReceiverConfig) -> Result<Self, ReceiverError> {
        let ReceiverConfig {
            dir,
            listen,
            allow,
            limits,
            hooks,
            webhooks,
            explainer,
            rules,
        } = config;
        if allow.is_empty()
            && let Some(listen) = listen.iter().find(|address| !address.ip().is_loopback())
        {
            return Err(ReceiverError::AllowMissing { listen: *listen });
        }
        os::raise_file_limit();
        let root = store::create(&dir)?;
        let admission = Arc::new(Admission::new(allow, limits));
        let left_over = store::recover_left_over(&root, rules.silent_after, &admission.ledger)?;
        let opened = Answered::open(&root, HALF_OPEN_FORGOTTEN);
        let (answered, heralds) = opened.map_err(|source| StoreError::Make {
            path: root.display().to_string(),
            source,
        })?;
        let cores = Arc::new(LocalCores::open(&root)?);
        admission.ledger.recount(cores.stored_bytes().into_iter());
        let counters = Arc::new(Counters::default());
        let hooks = HookRunner::start(&root, hooks, Arc::clone(&counters));
        let run = jiff::Timestamp::now().as_millisecond();
        let events = Arc::new(EventLog::new(format!("{run:x}")));
        let webhooks = WebhookTeller::start(&root, webhooks, Arc::clone(&events), &counters);
        let explainer = Explainer::start(explainer, Arc::clone(&cores), Arc::clone(&events));
        let progress = ProgressTeller::start(Arc::clone(&events), Arc::clone(&cores));
        let told = (hooks, explainer, events);
        let shared = Arc::new(Shared::new(root, admission, told, rules, cores, counters, answered));
        let mut doors = Vec::new();
        for address in listen {
            let door = Door::open(&shared, address).map_err(|source| ReceiverError::Listen {
                listen: address,
                source,
            })?;
            doors.push(door);
        }
        for kept in &left_over.kept {
            shared.core_kept(kept, &Ending::LeftOver);
        }
        for session in left_over.resumable {
            resume_or_keep(&shared, &doors, session);
        }
        for herald in heralds {
            if let Some(door) = doors.iter().find(|door| door.is_at(herald.dialled)) {
                door.remember(&herald);
            }
        }
        let mut receiver = Self {
            shared,
            addresses: doors.iter().map(|door| door.address()).collect(),
            heralds: Vec::new(),
            progress,
            webhooks,
        };
        for door in doors {
            let listen = door.address();
            let thread = door.serve();
            let thread = thread.map_err(|source| ReceiverError::Listen { listen, source })?;
            receiver.heralds.push(thread);
        }
        Ok(receiver)
    }

    /// The addresses that heralds are taken on, with their real ports.
    #[must_use]
    pub fn netdump_addrs(&self) -> &[SocketAddrV4] {
        &self.addresses
    }

    /// The first of [`Receiver::netdump_addrs`].
    #[must_use]
    pub fn netdump_addr(&self) -> SocketAddrV4 {
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        self.addresses.first().copied().unwrap_or(nowhere)
    }

    /// The cores, as they are listed now.
    #[must_use]
    pub fn cores(&self) -> Arc<LocalCores> {
        Arc::clone(&self.shared.cores)
    }

    /// What the API serves.
    #[must_use]
    pub fn service(&self) -> Arc<CoreCatalogue> {
        Arc::new(CoreCatalogue::new(
            self.shared.root.clone(),
            self.cores(),
            Arc::clone(&self.shared.counters),
            Arc::clone(&self.shared.admission),
            Arc::clone(&self.shared.events),
        ))
    }

    /// Waits for the core that is made of the dump with this id at its sender (the id in the core's own note).
    #[must_use]
    pub fn wait_for_dump(&self, dump_id: &str, patience: Duration) -> Option<CoreSummary> {
        self.shared.wait(patience, || self.shared.cores.by_dump_id(dump_id))
    }

    /// Waits until at least `count` cores are stored, and gives them, newest first.
    #[must_use]
    pub fn wait_for_cores(&self, count: usize, patience: Duration) -> Option<Vec<CoreSummary>> {
        self.shared.wait(patience, || {
            let mut cores = self.shared.cores.all();
            cores.retain(|core| core.state != api::CoreState::Receiving);
            (cores.len() >= count).then_some(cores)
        })
    }

    /// Leaves all sessions to the next receiver of the same store, and waits for the threads.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.heralds.drain(..) {
            let _ = thread.join();
        }
        self.shared.join_sessions();
        self.shared.explainer.stop();
        self.progress.stop();
        self.shared.hooks.stop();
        self.webhooks.stop();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Goes on with a session; what cannot go on becomes a core now.
fn resume_or_keep(shared: &Arc<Shared>, doors: &[Arc<Door>], mut left_over: Resumable) {
    let id = left_over.head.id.clone();
    let why = match addresses(&left_over).and_then(|addresses| resume(shared, doors, &mut left_over, addresses)) {
        Ok(()) => return,
        Err(why) => why,
    };
    tracing::warn!(session = %id, "session cannot go on: {why}");
    match left_over.spool.map(|spool| spool.commit(Ending::LeftOver, 0)) {
        Some(Ok(kept)) => shared.core_kept(&kept, &Ending::LeftOver),
        Some(Err(why)) => tracing::error!(session = %id, "no core could be made, the spool is left: {why}"),
        None => {}
    }
    store::forget_lingering(&shared.root, &id);
}

/// Peer, dialled address and the session's own.
fn addresses(left_over: &Resumable) -> Result<[SocketAddrV4; 3], ResumeError> {
    let head = &left_over.head;
    let parse = |text: &str| text.parse().map_err(|_| ResumeError::Addresses);
    Ok([
        parse(&head.client_addr)?,
        parse(&head.server_addr)?,
        parse(&head.session_addr)?,
    ])
}

/// Binds the session's port again, and starts its thread.
fn resume(
    shared: &Arc<Shared>,
    doors: &[Arc<Door>],
    left_over: &mut Resumable,
    [peer, dialled, local]: [SocketAddrV4; 3],
) -> Result<(), ResumeError> {
    let at_door = dialled.port() == local.port();
    let door = doors.iter().find(|door| door.is_at(dialled)).filter(|_| at_door);
    if at_door && door.is_none() {
        return Err(ResumeError::NoDoor(dialled));
    }
    let socket = os::session_socket(local, peer, at_door)?;
    let state = left_over.state.clone();
    let what = match left_over.spool.take() {
        Some(spool) => SpoolOrLinger::Spool(Box::new(spool)),
        None => SpoolOrLinger::Linger(left_over.lock.take()),
    };
    let beginning = Beginning {
        id: left_over.head.id.clone(),
        peer,
        dialled,
        session: Session::resumed(shared.session_limits(), state, shared.now()),
        socket,
        door: door.map(Arc::clone),
        answered_at: None,
        left_over: Some(what),
    };
    beginning.begin(shared)?;
    Ok(())
}
