//! How whole a core is: its length, what is lost, and whether it agrees with its own trailer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use api::{ByteRange, CoreState};
use netdump::Extents;
use netdump::server::invariants::accounts_for_every_byte;
use vmcore::PAGE_LEN;
use vmcore::kernel_header::{Compression, ParityVerdict};
use vmcore::limits::FILE_LEN_MAX;
use vmcore::trailer::{Chunk, FOOTER_LEN, Footer, PageState, Trailer, TrailerError};

use super::chunks::{self, Digest};
use super::expected;
use super::facts::KernelHeader;
use crate::limits::{CHUNK_BYTES, EXTENTS_MAX, TRAILER_BYTES_MAX};

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The sender said that it has sent everything.
    Finished,
    /// The sender fell silent.
    Silent {
        /// For how long.
        silent_s: u64,
    },
    /// A receiver ended amid the dump; the next one found the session, and nobody went on with it.
    LeftOver,
    /// The bytes could not be stored.
    Storage(String),
    /// The receiver refused the dump.
    Refused(String),
}

/// The verdict.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Examined {
    /// Length of the file, holes included.
    pub(crate) file_len_bytes: u64,
    /// What is lost.
    pub(crate) lost: Vec<ByteRange>,
    /// Declared zero, not received.
    pub(crate) zero_bytes: u64,
    /// Declared left out, not received.
    pub(crate) excluded_bytes: u64,
    /// What became of the core.
    pub(crate) state: CoreState,
    /// Why it is not complete.
    pub(crate) reason: Option<String>,
}

/// What the file's own trailer says.
#[derive(Debug, Default)]
struct Declared {
    zero: Option<Extents>,
    excluded: Option<Extents>,
    /// Length of the file by a trailer that can be trusted.
    file_len: Option<u64>,
    /// What contradicts it.
    contradiction: Option<String>,
}

/// Examines a file of which `received` arrived. `digests` are those of the received bytes.
pub(crate) fn examine(
    file: &File,
    received: &Extents,
    header: Option<&KernelHeader>,
    digests: &BTreeMap<u64, Digest>,
    ending: &Ending,
) -> io::Result<Examined> {
    let announced = announced_len(header);
    // Without a header, a minidump's own beginning says how much is missing behind its end.
    let expected = match announced {
        None => expected::expected_len(file, received)?,
        announced => announced,
    };
    let declared = read_trailer(file, received, announced, digests)?;
    let file_len = declared
        .file_len
        .unwrap_or_else(|| expected.unwrap_or(0).max(received.end()));
    // Beyond the announced length nothing can be lost: old senders put a copy of the header there.
    let needed = declared.file_len.or(expected).unwrap_or_else(|| received.end());
    let nothing = Extents::new(0);
    let zero = declared.zero.as_ref().unwrap_or(&nothing);
    let excluded = declared.excluded.as_ref().unwrap_or(&nothing);
    let undeclared = received.gaps(0..needed).flat_map(|gap| zero.gaps(gap));
    let lost: Vec<ByteRange> = undeclared.flat_map(|gap| excluded.gaps(gap)).map(byte_range).collect();
    let length_is_known = declared.file_len.is_some() || announced.is_some();
    let (state, reason) = judge(ending, &declared, &lost, length_is_known, header);
    debug_assert!(
        state != CoreState::Complete || accounts_for_every_byte(needed, received, &union(zero, excluded)),
        "a core is complete although not every byte is accounted for"
    );
    Ok(Examined {
        file_len_bytes: file_len,
        zero_bytes: not_received(received, zero),
        excluded_bytes: not_received(received, excluded),
        lost,
        state,
        reason,
    })
}

/// What is in either set.
fn union(one: &Extents, other: &Extents) -> Extents {
    let mut both = Extents::new(usize::MAX);
    for range in one.iter().chain(other) {
        let _ = both.insert(range);
    }
    both
}

/// State and reason.
fn judge(
    ending: &Ending,
    declared: &Declared,
    lost: &[ByteRange],
    length_is_known: bool,
    header: Option<&KernelHeader>,
) -> (CoreState, Option<String>) {
    if let Some(contradiction) = &declared.contradiction {
        return (CoreState::Corrupt, Some(contradiction.clone()));
    }
    let lost_bytes: u64 = lost.iter().map(|range| range.length).sum();
    let reason = match ending {
        Ending::Refused(why) => return (CoreState::Aborted, Some(format!("refused: {why}"))),
        Ending::Silent { silent_s } => format!("the sender fell silent for {silent_s} s before it had finished"),
        Ending::LeftOver => "the receiver ended before the sender had finished".to_owned(),
        Ending::Storage(why) => format!("it could not be stored: {why}"),
        Ending::Finished if lost_bytes > 0 => {
            format!("{lost_bytes} bytes are lost, in {} ranges", lost.len())
        }
        Ending::Finished if !length_is_known => match header {
            None => "no kernel dump header came, so that its length is not known".to_owned(),
            Some(_) => "its kernel dump header is damaged, so that its length is not known".to_owned(),
        },
        Ending::Finished => return (CoreState::Complete, None),
    };
    (CoreState::Incomplete, Some(reason))
}

/// The length that a sound kernel dump header announces.
pub(crate) fn announced_len(header: Option<&KernelHeader>) -> Option<u64> {
    let (header, parity) = header?;
    let sound = *parity == ParityVerdict::Pass && header.dump_len_bytes <= FILE_LEN_MAX;
    sound.then_some(header.dump_len_bytes)
}

/// The length to which a file is cut. Compressed dumps are sent in whole blocks, and what fills the last one upsets
/// decompressors (netdumpd cuts it off too); old senders put a copy of the header behind the data. More than that is
/// kept: it is evidence.
pub(crate) fn cut_len(header: Option<&KernelHeader>, received: &Extents) -> Option<u64> {
    let announced = announced_len(header)?;
    let compressed = header.is_some_and(|(header, _)| header.compression != Compression::None);
    let excess_bytes = received.end().checked_sub(announced).filter(|excess| *excess > 0)?;
    (compressed || excess_bytes <= BLOCK_BYTES).then_some(announced)
}

/// The part of `received` below `len`.
pub(crate) fn cut(received: &Extents, len: u64) -> Extents {
    let mut kept = Extents::new(EXTENTS_MAX);
    for range in received {
        let _ = kept.insert(range.start.min(len)..range.end.min(len));
    }
    kept
}

/// Reads the trailer, if the file has one that arrived whole, and holds the digests against it.
fn read_trailer(
    file: &File,
    received: &Extents,
    announced: Option<u64>,
    digests: &BTreeMap<u64, Digest>,
) -> io::Result<Declared> {
    let end = announced.unwrap_or_else(|| received.end());
    let mut declared = Declared::default();
    let Some(footer_at) = end.checked_sub(FOOTER_LEN as u64) else {
        return Ok(declared);
    };
    if !received.contains(&(footer_at..end)) {
        return Ok(declared);
    }
    let mut bytes = [0; FOOTER_LEN];
    file.read_exact_at(&mut bytes, footer_at)?;
    let footer = match Footer::parse(&bytes) {
        Ok(footer) if footer.file_len == end => footer,
        Ok(footer) => {
            let len = footer.file_len;
            declared.contradiction = Some(format!("the trailer says {len} bytes, the file has {end}"));
            return Ok(declared);
        }
        Err(TrailerError::NotFound) => return Ok(declared),
        Err(why) => {
            declared.contradiction = Some(why.to_string());
            return Ok(declared);
        }
    };
    let place = footer.trailer_offset..footer.trailer_offset.saturating_add(footer.body_len);
    if footer.body_len > TRAILER_BYTES_MAX || !received.contains(&place) {
        return Ok(declared);
    }
    let mut body = vec![0; usize::try_from(footer.body_len).unwrap_or(0)];
    file.read_exact_at(&mut body, place.start)?;
    let trailer = match Trailer::parse(&footer, &body) {
        Ok(trailer) => trailer,
        Err(why) => {
            declared.contradiction = Some(why.to_string());
            return Ok(declared);
        }
    };
    let mut zero = Extents::new(EXTENTS_MAX);
    let mut excluded = Extents::new(EXTENTS_MAX);
    for (range, state) in trailer.declared() {
        let set = if state == PageState::Excluded {
            &mut excluded
        } else {
            &mut zero
        };
        let _ = set.insert(range);
    }
    declared.contradiction = check_chunks(file, received, &trailer, digests)?;
    declared.zero = Some(zero);
    declared.excluded = Some(excluded);
    declared.file_len = Some(footer.file_len);
    Ok(declared)
}

/// Holds the chunks against the trailer: where exactly the stored pages arrived, their digest is at hand already;
/// elsewhere the chunk is read. Chunks with lost pages are left to the list of lost ranges.
fn check_chunks(
    file: &File,
    received: &Extents,
    trailer: &Trailer<'_>,
    digests: &BTreeMap<u64, Digest>,
) -> io::Result<Option<String>> {
    let mut buffer = Vec::new();
    for chunk in trailer.chunks() {
        let stored = stored_ranges(&chunk);
        if stored.iter().any(|range| !received.contains(range)) {
            continue;
        }
        let arrived = chunks::received_in(received, chunk.index);
        // A chunk of ours is a chunk of the trailer, but the last one may go on with the trailer itself.
        if arrived == stored {
            let digest = digests.get(&chunk.index).copied();
            let found = digest.unwrap_or_else(|| *blake3::hash(&[]).as_bytes());
            if chunk.record.digest().as_bytes() != &found {
                return Ok(Some(format!(
                    "chunk {} at offset {} does not have the digest that the trailer gives",
                    chunk.index, chunk.file_offset
                )));
            }
            continue;
        }
        buffer.resize(usize::try_from(chunk.len_bytes).unwrap_or(0), 0);
        file.read_exact_at(&mut buffer, chunk.file_offset)?;
        if let Err(why) = chunk.record.verify(&buffer) {
            let at = chunk.file_offset;
            return Ok(Some(format!(
                "chunk {} at offset {at} contradicts the trailer: {why}",
                chunk.index
            )));
        }
    }
    Ok(None)
}

/// The stored pages of a chunk as ranges of the file.
fn stored_ranges(chunk: &Chunk) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let pages = usize::try_from(chunk.len_bytes / PAGE_LEN).unwrap_or(0);
    let mut at = chunk.file_offset;
    for page in 0..pages {
        let end = at + PAGE_LEN;
        if chunk.record.state(page) == PageState::Stored {
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => ranges.push(at..end),
            }
        }
        at = end;
    }
    ranges
}

/// Bytes of `declared` that did not arrive.
fn not_received(received: &Extents, declared: &Extents) -> u64 {
    let parts = declared.iter().flat_map(|range| received.gaps(range));
    parts.map(|part| part.end - part.start).sum()
}

/// Block of every netdump sender (NETDUMP_DATASIZE).
const BLOCK_BYTES: u64 = 4096;

/// A range as the contract writes it.
fn byte_range(range: Range<u64>) -> ByteRange {
    ByteRange {
        offset: range.start,
        length: range.end - range.start,
    }
}

/// One chunk of the digests is one of the trailer.
const _: () = assert!(CHUNK_BYTES == vmcore::limits::CHUNK_LEN);
