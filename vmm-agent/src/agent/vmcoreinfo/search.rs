//! Every VMCOREINFO note that starts at a page of the guest's memory.

use vmcore::MemoryRange;
use vmcore::notes::vmcoreinfo::{self, NoteAtPage};

use super::candidate::Candidate;
use crate::dump::limits::EXTENT_QUERY_LEN;
use crate::memory::GuestMemory;

/// How much memory is read at once.
const READ_LEN: u64 = 1 << 20;
const PAGE_LEN: usize = 4096;

/// Gives all notes to `take`, lowest first, until `go_on` says no.
pub(super) fn notes(memory: &GuestMemory, go_on: &dyn Fn() -> bool, take: &mut dyn FnMut(Candidate)) {
    let mut buf = vec![0; usize::try_from(READ_LEN).unwrap_or(PAGE_LEN)];
    // A guest can make as many extents as it has pages, so they are asked for piece by piece.
    let queries = memory
        .ranges()
        .iter()
        .flat_map(|range| pieces(*range, EXTENT_QUERY_LEN));
    for query in queries {
        let extents = memory.data_extents(query).unwrap_or_else(|error| {
            tracing::warn!(%error, "memory that cannot be searched for VMCOREINFO");
            Vec::new()
        });
        for piece in extents.into_iter().flat_map(|extent| pieces(extent, READ_LEN)) {
            if !go_on() {
                return;
            }
            let chunk = usize::try_from(piece.len_bytes).ok().and_then(|len| buf.get_mut(..len));
            if let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty())
                && memory.read_at(piece.gpa, chunk).is_ok()
            {
                notes_in(memory, piece.gpa, chunk).for_each(&mut *take);
            }
        }
    }
}

/// `range` in pieces of at most `len_max` bytes.
fn pieces(range: MemoryRange, len_max: u64) -> impl Iterator<Item = MemoryRange> {
    (0..range.len_bytes.div_ceil(len_max)).map(move |index| {
        let done = index * len_max;
        MemoryRange {
            gpa: range.gpa + done,
            len_bytes: len_max.min(range.len_bytes - done),
        }
    })
}

/// The notes that start at a page of `chunk`.
fn notes_in<'a>(memory: &'a GuestMemory, gpa: u64, chunk: &'a [u8]) -> impl Iterator<Item = Candidate> + 'a {
    let pages = (gpa..).step_by(PAGE_LEN).zip(chunk.chunks(PAGE_LEN));
    pages.filter_map(move |(gpa, page)| {
        let text = match vmcoreinfo::at_page(page) {
            NoteAtPage::No => return None,
            NoteAtPage::Text(text) => text.to_vec(),
            NoteAtPage::Longer(len) => {
                let mut whole = vec![0; len];
                memory.read_at(gpa, &mut whole).ok()?;
                match vmcoreinfo::at_page(&whole) {
                    NoteAtPage::Text(text) => text.to_vec(),
                    _ => return None,
                }
            }
        };
        Some(Candidate {
            source: "search",
            gpa,
            text,
        })
    })
}
