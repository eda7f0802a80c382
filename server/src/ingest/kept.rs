//! What follows when a core was kept, whoever made it: a session, or a receiver that found what another one left.

use std::time::Duration;

use api::{CoreState, EventData};
use jiff::Timestamp;

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
        let (manifest, shapes) = (&kept.manifest, &self.counters.shapes);
        shapes.core_logical.add(manifest.file_len_bytes);
        shapes.core_stored.add(manifest.stored_bytes);
        let times = [&manifest.started_at, &manifest.received_at].map(|text| text.parse::<Timestamp>());
        if let [Ok(started), Ok(received)] = times {
            let took = Duration::try_from(received.duration_since(started));
            shapes.receive.add_time(took.unwrap_or_default());
        }
        let endings = &self.counters.endings;
        if summary.state != CoreState::Complete {
            endings.failed(ending);
        }
        if manifest.format != crate::CANARY_FORMAT {
            endings.crashed(manifest.kernel.as_deref());
        }
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
