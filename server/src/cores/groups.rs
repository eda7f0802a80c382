//! Cores of the same fault: groups by signature.

use std::collections::{BTreeMap, BTreeSet};

use api::{CoreGroup, CoreSummary, GroupPlace, GroupQuery, Page, SCHEMA_VERSION, ServiceError};

use super::list::{decode_cursor, encode_cursor};
use super::{LocalCores, key};
use crate::limits::GROUP_NAMES_MAX;

impl LocalCores {
    /// The place of a core among those with its signature; nothing if it has none.
    pub(crate) fn place_in_group(&self, core: &CoreSummary) -> Option<GroupPlace> {
        let signature = core.signature.as_ref()?;
        let entries = self.entries();
        let others = entries.iter().map(|entry| &entry.summary);
        // Newest first, as the index is; whether this core's signature is in the index yet does not matter.
        let others: Vec<&CoreSummary> = others
            .filter(|other| other.signature.as_ref() == Some(signature) && other.id != core.id)
            .collect();
        let before = others.iter().filter(|other| key(other) < key(core)).count();
        let first = others.last().filter(|_| before > 0).copied().unwrap_or(core);
        Some(GroupPlace {
            ordinal: before as u64 + 1,
            count: others.len() as u64 + 1,
            first_id: first.id.clone(),
            first_seen: first.received_at.clone(),
            first_guest: first.guest.clone(),
            first_kernel: first.kernel.clone(),
        })
    }

    /// A page of the groups; the one whose last core is the newest comes first.
    ///
    /// # Errors
    /// As [`api::CoreService::groups`].
    pub fn group_page(&self, query: &GroupQuery) -> Result<Page<CoreGroup>, ServiceError> {
        let after = query.cursor.as_deref().map(decode_cursor).transpose()?;
        let cores: Vec<CoreSummary> = self.entries().into_iter().map(|entry| entry.summary).collect();
        let mut items = groups(&cores);
        items.retain(|group| after.as_ref().is_none_or(|after| place(group) < *after));
        let more = items.len() > query.limit;
        items.truncate(query.limit);
        let next_cursor = items.last().filter(|_| more).map(|last| encode_cursor(&place(last)));
        Ok(Page {
            schema_version: SCHEMA_VERSION,
            items,
            next_cursor,
        })
    }
}

/// What groups are sorted by; an id is in one group only.
fn place(group: &CoreGroup) -> String {
    format!("{} {}", group.last_seen, group.last_id)
}

/// The groups of these cores, which come newest first.
fn groups(cores: &[CoreSummary]) -> Vec<CoreGroup> {
    let kernels = kernels(cores);
    let mut members: BTreeMap<&str, Vec<&CoreSummary>> = BTreeMap::new();
    for core in cores {
        if let Some(signature) = &core.signature {
            members.entry(signature).or_default().push(core);
        }
    }
    let mut groups: Vec<CoreGroup> = members
        .into_iter()
        .filter_map(|(signature, members)| group(signature, &members, &kernels))
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(place(group)));
    groups
}

/// One group of cores, newest first.
fn group(signature: &str, members: &[&CoreSummary], kernels: &[&str]) -> Option<CoreGroup> {
    let (last, first) = (members.first()?, members.last()?);
    let guests: BTreeSet<&str> = members.iter().map(|core| core.guest.as_str()).collect();
    let with: BTreeSet<&str> = members
        .iter()
        .filter_map(|core| core.kernel.as_deref())
        .map(release)
        .collect();
    let seen: Vec<bool> = kernels.iter().map(|kernel| with.contains(release(kernel))).collect();
    let seen_with = kernels.iter().filter(|kernel| with.contains(release(kernel)));
    Some(CoreGroup {
        signature: signature.to_owned(),
        count: members.len() as u64,
        guest_count: guests.len() as u64,
        guests: guests.into_iter().take(GROUP_NAMES_MAX).map(str::to_owned).collect(),
        kernels: seen_with
            .take(GROUP_NAMES_MAX)
            .map(|kernel| (*kernel).to_owned())
            .collect(),
        first_seen: first.received_at.clone(),
        first_id: first.id.clone(),
        last_seen: last.received_at.clone(),
        last_id: last.id.clone(),
        regressed: came_back(&seen),
    })
}

/// All kernels, in the order in which they were first seen. Cores come newest first.
fn kernels(cores: &[CoreSummary]) -> Vec<&str> {
    let mut known = BTreeSet::new();
    let oldest_first = cores.iter().rev().filter_map(|core| core.kernel.as_deref());
    oldest_first.filter(|kernel| known.insert(release(kernel))).collect()
}

/// What is the same of a kernel whoever told it: an agent's note, VMCOREINFO or the header of another writer's file.
fn release(kernel: &str) -> &str {
    let linux = ["linux ", "Linux "].iter().find_map(|name| kernel.strip_prefix(name));
    linux.unwrap_or(kernel)
}

/// Whether a fault that was there was away and is there again.
fn came_back(seen: &[bool]) -> bool {
    let since_first = seen.iter().skip_while(|seen| !**seen);
    since_first.skip_while(|seen| **seen).any(|seen| *seen)
}

#[cfg(test)]
mod tests {
    use api::CoreState;

    use super::*;

    /// A core that was received at this second of a minute.
    fn core(second: u32, guest: &str, kernel: &str, signature: Option<&str>) -> CoreSummary {
        CoreSummary {
            id: format!("id-{second:02}"),
            guest: guest.to_owned(),
            client_addr: "192.0.2.1:20024".to_owned(),
            received_at: format!("2026-01-31T12:00:{second:02}.000Z"),
            state: CoreState::Complete,
            panic: None,
            signature: signature.map(str::to_owned),
            format: "elf".to_owned(),
            file_len_bytes: 0,
            stored_bytes: 0,
            holes: Vec::new(),
            kernel: (!kernel.is_empty()).then(|| kernel.to_owned()),
            pinned: false,
        }
    }

    #[test]
    fn cores_group_by_signature_and_a_fault_that_came_back_has_regressed() {
        let (a, b) = (Some("bug in a"), Some("bug in b"));
        let mut cores = [
            core(1, "web", "6.1.1", a),
            core(2, "db", "6.1.2", b),
            core(3, "db", "6.1.2", b),
            core(4, "mail", "", a),
            core(5, "web", "6.1.2", None),
            core(6, "dns", "6.1.3", a),
        ];
        cores.reverse();
        let groups = groups(&cores);
        let [first, second] = groups.as_slice() else {
            panic!("{groups:?}")
        };
        assert_eq!(
            (first.signature.as_str(), first.count, first.guest_count),
            ("bug in a", 3, 3)
        );
        assert_eq!(first.guests, ["dns", "mail", "web"]);
        assert_eq!(first.kernels, ["6.1.1", "6.1.3"]);
        assert_eq!((first.first_id.as_str(), first.last_id.as_str()), ("id-01", "id-06"));
        assert!(first.regressed, "6.1.2 crashed, but not by this fault");
        assert_eq!((second.count, second.guest_count, second.regressed), (2, 1, false));
        assert!(second.first_seen < second.last_seen);
    }

    #[test]
    fn a_kernel_is_the_same_however_its_core_came() {
        let (a, b) = (Some("bug in a"), Some("bug in b"));
        let mut cores = [
            core(1, "web", "linux 6.1.1", a),
            core(2, "web", "Linux 6.1.1", b),
            core(3, "web", "6.1.1", a),
        ];
        cores.reverse();
        for group in groups(&cores) {
            assert_eq!(group.kernels, ["linux 6.1.1"], "{}", group.signature);
            assert!(!group.regressed, "there is one kernel only");
        }
    }

    #[test]
    fn a_fault_of_the_newest_kernels_only_has_not_regressed() {
        for (seen, expected) in [
            (&[][..], false),
            (&[true], false),
            (&[false, true, true], false),
            (&[true, true, false], false),
            (&[false, true, false, true], true),
        ] {
            assert_eq!(came_back(seen), expected, "{seen:?}");
        }
    }
}
