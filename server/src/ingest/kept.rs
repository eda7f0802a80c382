//! What follows when a core was kept, whoever made it: a session, or a receiver that found what another one left.

use api::{CoreState, EventData};

use super::Shared;
use crate::events;
use crate::hooks::HookEvent;
use crate::store::Kept;
use crate::store::examine::Ending;

impl Shared {
    /// Lists the core, tells of it, and has it explained.
    pub(crate) fn core_kept(&self, kept: &Kept, ending: &Ending) {
        let event = || HookEvent::of_core(kept.dir.clone(), &kept.manifest, ending);
        self.hooks.happened(event);
        let summary = kept.manifest.summary();
        let reason = kept.manifest.reason.as_deref().unwrap_or_default();
        tracing::info!(core = %summary.id, guest = %summary.guest, state = %summary.state, reason, "core kept");
        self.cores.insert(kept.dir.clone(), &kept.manifest);
        let kind = match summary.state {
            CoreState::Complete => "core.complete",
            _ => "core.incomplete",
        };
        let data = EventData {
            reason: kept.manifest.reason.clone(),
            ..events::of_core(&summary)
        };
        events::tell(&self.events, kind, data);
        self.explainer.kept(&kept.dir);
        self.announce();
    }
}
