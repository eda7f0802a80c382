//! The embedded receiver.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::CoreState;
use server::{Receiver, ReceiverConfig};
use tempfile::TempDir;

use crate::floor::Medium;

/// How long a core may take to be listed once its last byte was acknowledged.
const LISTED_WITHIN: Duration = Duration::from_secs(30);

/// A receiver on a free port, and its directory, which goes with it.
#[derive(Debug)]
pub(crate) struct TestReceiver {
    receiver: Receiver,
    seen: Cell<usize>,
    _dir: TempDir,
}

impl TestReceiver {
    /// Starts one that keeps its cores below `dir`.
    fn start(dir: &Path) -> Result<Self> {
        let dir = TempDir::with_prefix_in("cores-", dir)?;
        let receiver = Receiver::start(ReceiverConfig {
            listen: vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)],
            ..ReceiverConfig::new(dir.path())
        })?;
        Ok(Self {
            receiver,
            seen: Cell::new(0),
            _dir: dir,
        })
    }

    /// One on each medium.
    pub(crate) fn on_each(media: &[Medium]) -> Result<Vec<Self>> {
        media.iter().map(|medium| Self::start(medium.path())).collect()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.receiver.netdump_addr()
    }

    /// Fails unless exactly one more core came, whole: a fast loss is no figure. Its file is removed.
    pub(crate) fn expect_one_more_core(&self) -> Result<()> {
        let wanted = self.seen.get() + 1;
        let cores = self
            .receiver
            .wait_for_cores(wanted, LISTED_WITHIN)
            .context("the receiver lists no new core")?;
        ensure!(cores.len() == wanted, "{} cores instead of {wanted}", cores.len());
        let newest = cores.first().context("the list of cores is empty")?;
        ensure!(newest.state == CoreState::Complete, "the core is {}", newest.state);
        let stored = self.receiver.cores().vmcore(&newest.id).context("the core is gone")?;
        std::fs::remove_file(&stored.path)?;
        self.seen.set(wanted);
        Ok(())
    }
}
