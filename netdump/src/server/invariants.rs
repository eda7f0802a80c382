//! What always holds of a session: checked by the simulator over whole runs, and by debug assertions at each step.

use super::{Extents, Instant, Session, SessionState};
use crate::wire::Kind;

/// Whether a message may be acknowledged: its bytes were handed to storage, and FINISHED only when everything is durable.
#[must_use]
pub const fn may_acknowledge(kind: Kind, is_stored: bool, is_durable: bool) -> bool {
    match kind {
        Kind::Herald => true,
        Kind::Finished => is_durable,
        Kind::Vmcore | Kind::KernelHeader | Kind::Key => is_stored,
    }
}

/// Whether a dump of `file_len` bytes may be called complete: each of them was received or declared to be no data.
#[must_use]
pub fn accounts_for_every_byte(file_len: u64, received: &Extents, declared: &Extents) -> bool {
    received.lost(file_len, declared).next().is_none()
}

/// Whether a session will end without another word of its sender: it has a deadline, or waits for its own storage.
#[must_use]
pub const fn is_bound_to_end(state: SessionState, deadline: Option<Instant>) -> bool {
    deadline.is_some() || matches!(state, SessionState::Committing | SessionState::Ended)
}

impl Session {
    /// Whether the session's own state keeps the rules; what it acknowledges is looked at where that happens.
    pub(super) fn keeps_the_rules(&self) -> bool {
        is_bound_to_end(self.state, self.poll_timeout())
    }
}
