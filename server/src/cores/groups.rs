//! Cores of the same fault: groups by signature.

use api::{CoreSummary, GroupPlace};

use super::{LocalCores, key};

impl LocalCores {
    /// The place of a core among those with its signature; nothing if it has none.
    pub(crate) fn place_in_group(&self, core: &CoreSummary) -> Option<GroupPlace> {
        let signature = core.signature.as_ref()?;
        let entries = self.entries();
        let members = entries.iter().map(|entry| &entry.summary);
        // Newest first, as the index is.
        let members: Vec<&CoreSummary> = members
            .filter(|other| other.signature.as_ref() == Some(signature))
            .collect();
        let first = members.last()?;
        let before = members.iter().filter(|other| key(other) < key(core)).count();
        Some(GroupPlace {
            ordinal: before as u64 + 1,
            count: members.len() as u64,
            first_id: first.id.clone(),
            first_seen: first.received_at.clone(),
            first_guest: first.guest.clone(),
            first_kernel: first.kernel.clone(),
        })
    }
}
