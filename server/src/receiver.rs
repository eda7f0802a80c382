//! The receiver as one thing that is started and stopped.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use api::CoreSummary;
use netdump::AckPolicy;

use crate::admission::{Admission, Limits};
use crate::allow::Cidr;
use crate::cores::LocalCores;
use crate::ingest::{self, Counters, SessionRules, Shared};
use crate::limits::SESSIONS_MAX;
use crate::service::CoreCatalogue;
use crate::store::{self, StoreError};

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
}

impl Receiver {
    /// Opens the store, makes cores of sessions that an earlier receiver left, and starts to listen.
    ///
    /// # Errors
    /// See [`ReceiverError`].
    pub fn start(config: ReceiverConfig) -> Result<Self, ReceiverError> {
        let ReceiverConfig {
            dir,
            listen,
            allow,
            limits,
            rules,
        } = config;
        if allow.is_empty()
            && let Some(listen) = listen.iter().find(|address| !address.ip().is_loopback())
        {
            return Err(ReceiverError::AllowMissing { listen: *listen });
        }
        let root = store::create(&dir)?;
        let left_over = store::recover_left_over(&root)?;
        if left_over > 0 {
            tracing::info!("{left_over} sessions of an earlier receiver kept");
        }
        let cores = Arc::new(LocalCores::open(&root)?);
        let admission = Arc::new(Admission::new(allow, limits));
        admission.ledger.recount(cores.stored_bytes().into_iter());
        let shared = Arc::new(Shared::new(
            root,
            admission,
            rules,
            cores,
            Arc::new(Counters::default()),
        ));
        let mut receiver = Self {
            shared,
            addresses: Vec::new(),
            heralds: Vec::new(),
        };
        for address in listen {
            let started = ingest::listen(&receiver.shared, address);
            let (real, thread) = started.map_err(|source| ReceiverError::Listen {
                listen: address,
                source,
            })?;
            receiver.addresses.push(real);
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

    /// Ends all sessions, keeping what came, and waits for the threads.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.heralds.drain(..) {
            let _ = thread.join();
        }
        self.shared.join_sessions();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.halt();
    }
}
