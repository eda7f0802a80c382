//! What a session keeps: its storage from the first bytes on, and the core at its end.

use jiff::Timestamp;

use super::super::endings::Failed;
use super::SessionThread;
use super::batch::Run;
use crate::admission::{Refused, Short};
use crate::hooks::{Happened, HookEvent};
use crate::store::examine::Ending;
use crate::store::journal::SessionHead;
use crate::store::layout;
use crate::store::spool::{Spool, SpoolError};
use crate::{escape, events};

impl SessionThread {
    /// Ends the session and keeps what came.
    pub(super) fn end(&mut self, ending: Ending) {
        if let Some(spool) = self.spool.take() {
            let ending = match (ending, self.last_refusal.take()) {
                // A sender that was refused something falls silent because of it.
                (Ending::Silent { .. }, Some(why)) => Ending::Refused(why),
                (ending, _) => ending,
            };
            self.commit(spool, ending);
        }
    }

    /// Makes a core; whether everything that came is on disk.
    pub(super) fn commit(&self, spool: Spool, ending: Ending) -> bool {
        let duplicates = self.session.stats().duplicate_messages;
        let ended = ending.clone();
        match spool.commit(ending, duplicates) {
            Ok(kept) => {
                self.shared.core_kept(&kept, &ended);
                kept.durable
            }
            Err(why) => {
                self.shared.counters.endings.failed_by(Failed::Storage);
                tracing::error!(session = %self.handle.id, "no core could be made, the spool is left: {why}");
                false
            }
        }
    }

    /// The session's storage, made when the first bytes come: heralds alone leave no trace on disk.
    pub(super) fn spool(&mut self) -> Result<&mut Spool, Ending> {
        let spool = match self.spool.take() {
            Some(spool) => spool,
            None => {
                let spool = self.make_spool()?;
                // From here on the journal says who it is.
                self.forget_herald();
                spool
            }
        };
        Ok(self.spool.insert(spool))
    }

    /// The answered herald need not be found again.
    pub(super) fn forget_herald(&mut self) {
        if let Some(place) = self.answered_at.take() {
            self.shared.answered.clear(place);
        }
    }

    /// Makes the session's storage.
    pub(super) fn make_spool(&self) -> Result<Spool, Ending> {
        let make = || {
            let account = self.shared.admission.ledger.open(*self.handle.peer.ip());
            Spool::create(&self.shared.root, &self.head(), self.session.resume_point(), account)
        };
        let made = match make() {
            Err(SpoolError::Short(_)) if self.shared.recount() => make(),
            made => made,
        };
        let spool = made.map_err(|why| {
            tracing::error!(session = %self.handle.id, "dump refused: {why}");
            self.storage(why)
        })?;
        self.shared.hooks.happened(|| self.hook_event(Happened::Start));
        events::tell(
            &self.shared.events,
            "dump.started",
            self.hook_event(Happened::Start).as_data(),
        );
        Ok(spool)
    }

    /// Stores a run of bytes.
    pub(super) fn write_run(&mut self, run: &Run<'_>) -> Result<(), Ending> {
        let stored = match self.spool()?.write_run(run.offset, &run.slices) {
            // Cores may have been removed since they were counted.
            Err(SpoolError::Short(_)) if self.shared.recount() => self.spool()?.write_run(run.offset, &run.slices),
            stored => stored,
        };
        stored.map_err(|why| self.storage(why))
    }

    /// The ending of a session whose bytes cannot be stored.
    pub(super) fn storage(&self, why: SpoolError) -> Ending {
        if let SpoolError::Short(short) = &why {
            let (peer, reason) = (self.handle.peer, short.refused());
            self.shared.admission.refuse(peer, reason, &short.to_string());
        }
        if why.is_no_space() {
            self.tell_no_space(&why.to_string(), 0);
        }
        storage(why)
    }

    /// As soon as the length of the dump is known: one that is too long is refused, and somebody is told of one for which
    /// there is no room now. There may be in time.
    pub(super) fn look_at_expected_len(&mut self) -> Result<(), Ending> {
        let Some(spool) = self.spool.as_mut().filter(|_| !self.expected_len_seen) else {
            return Ok(());
        };
        let Some(len_bytes) = spool.expected_len() else {
            return Ok(());
        };
        self.expected_len_seen = true;
        let max = self.shared.admission.file_len_max(&self.shared.root);
        if len_bytes > max {
            let sentence = format!("the dump will have {len_bytes} bytes, and {max} is what one may (dump-max)");
            let peer = self.handle.peer;
            self.shared.admission.refuse(peer, Refused::DumpBytes, &sentence);
            return Err(Ending::Refused(sentence));
        }
        let mut set_aside = spool.set_aside(len_bytes);
        if set_aside.is_err() && self.shared.recount() {
            set_aside = spool.set_aside(len_bytes);
        }
        if let Err(short) = set_aside {
            tracing::warn!(session = %self.handle.id, len_bytes, "no room for all of the dump: {short}");
            self.tell_no_space(&short.to_string(), len_bytes);
        }
        Ok(())
    }

    /// Runs the command for a lack of space, once in a session.
    pub(super) fn tell_no_space(&self, why: &str, file_len_bytes: u64) {
        if !self.no_space_told.replace(true) {
            self.shared.hooks.happened(|| HookEvent {
                reason: Some(why.to_owned()),
                file_len_bytes,
                ..self.hook_event(Happened::NoSpace)
            });
        }
    }

    /// What a command is told of this session.
    pub(super) fn hook_event(&self, happened: Happened) -> HookEvent {
        let handle = &self.handle;
        let label = label(self.session.herald_payload());
        let dir = layout::session_dir(&self.shared.root, &handle.id);
        HookEvent::of_session(happened, &handle.id, label.as_deref(), &handle.peer.to_string(), dir)
    }

    /// What is known of the session now.
    pub(super) fn head(&self) -> SessionHead {
        let age = self.handle.started.elapsed();
        let started = Timestamp::now() - jiff::SignedDuration::try_from(age).unwrap_or_default();
        SessionHead {
            id: self.handle.id.clone(),
            client_addr: self.handle.peer.to_string(),
            server_addr: self.handle.dialled.to_string(),
            session_addr: self.handle.local.to_string(),
            herald_label: label(self.session.herald_payload()),
            started_at: format!("{started:.3}"),
        }
    }
}

/// The herald's path as a label: text up to the first NUL, escaped.
pub(crate) fn label(herald: &[u8]) -> Option<String> {
    let text = herald.split(|byte| *byte == 0).next()?;
    escape::some_line(&String::from_utf8_lossy(text))
}

/// The ending of a session whose bytes cannot be stored.
#[expect(clippy::needless_pass_by_value, reason = "used as a function of the error")]
fn storage(why: SpoolError) -> Ending {
    match why {
        SpoolError::TooFragmented | SpoolError::Short(Short::Guest { .. } | Short::Total { .. }) => {
            Ending::Refused(why.to_string())
        }
        SpoolError::Io { .. } | SpoolError::Short(Short::Free { .. }) => Ending::Storage(why.to_string()),
    }
}
