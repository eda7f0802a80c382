//! Pages whose content stands in the file already: it is stored once.
//!
//! Only what has been taken in order is known, and nothing known is forgotten, so that the file does not depend on which thread was
//! faster. Two pages are the same if their bytes are: a checksum only says where to look, since a guest can make checksums meet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::RwLock;

use vmcore::kdump::Place;
use vmcore::limits::PAGE_LEN_USIZE;

use super::Pages;
use crate::limits::KNOWN_PAGES_MAX;

/// By the checksum of the first page that has it.
#[derive(Debug, Default)]
pub(super) struct KnownPages(RwLock<HashMap<u32, Known>>);

#[derive(Debug, Clone, Copy)]
struct Known {
    gpa: u64,
    place: Place,
}

impl KnownPages {
    /// Where the content of a page stands.
    pub(super) fn find(&self, core: &dyn Pages, checksum: u32, page: &[u8]) -> Option<Place> {
        let known = *self.0.read().ok()?.get(&checksum)?;
        let mut earlier = [0; PAGE_LEN_USIZE];
        core.read(known.gpa, &mut earlier).ok()?;
        (earlier == page).then_some(known.place)
    }

    /// The same of a page that is at hand no more. If its content is new, it is known to stand at `place` from now on.
    pub(super) fn settle(&self, core: &dyn Pages, checksum: u32, gpa: u64, place: Place) -> Option<Place> {
        let mut known = self.0.write().ok()?;
        let is_full = known.len() >= KNOWN_PAGES_MAX;
        match known.entry(checksum) {
            Entry::Occupied(_) => {}
            Entry::Vacant(vacant) => {
                if !is_full {
                    vacant.insert(Known { gpa, place });
                }
                return None;
            }
        }
        drop(known);
        let mut page = [0; PAGE_LEN_USIZE];
        core.read(gpa, &mut page).ok()?;
        self.find(core, checksum, &page)
    }
}
