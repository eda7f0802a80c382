//! Digests over chunks of 1 MiB of the file, made while the bytes come.
//!
//! A chunk's digest is BLAKE3 over its received bytes in file order, holes left out. As long as bytes of a chunk come in
//! ascending order they are hashed as they pass; a chunk that is touched again behind that point is read back later.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use netdump::Extents;

use crate::limits::{CHUNK_BYTES, OPEN_HASHERS_MAX};

/// A BLAKE3 digest.
pub(crate) type Digest = [u8; 32];

/// What is known of one chunk.
#[derive(Debug)]
enum Chunk {
    /// Bytes came in order, up to `next`.
    Open { hasher: Box<blake3::Hasher>, next: u64 },
    /// The digest of everything that came.
    Closed(Digest),
    /// Has to be read back.
    Dirty,
}

/// The digests of a file that grows.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    chunks: BTreeMap<u64, Chunk>,
    /// Chunks that have a hasher, oldest first; may name some that have none any more.
    open: VecDeque<u64>,
}

impl Chunks {
    /// Bytes have been written at `offset`.
    pub(crate) fn absorb(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let index = offset / CHUNK_BYTES;
            let room = CHUNK_BYTES - offset % CHUNK_BYTES;
            let take = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = bytes.split_at(take);
            self.absorb_part(index, offset, part);
            offset += len_u64(take);
            bytes = rest;
        }
    }

    /// Bytes of one chunk have been written.
    fn absorb_part(&mut self, index: u64, offset: u64, part: &[u8]) {
        let end = offset + len_u64(part.len());
        match self.chunks.get_mut(&index) {
            Some(Chunk::Open { hasher, next }) if *next <= offset => {
                hasher.update(part);
                *next = end;
            }
            Some(chunk) => *chunk = Chunk::Dirty,
            None => {
                let mut hasher = Box::new(blake3::Hasher::new());
                hasher.update(part);
                self.chunks.insert(index, Chunk::Open { hasher, next: end });
                self.open.push_back(index);
            }
        }
        if end.is_multiple_of(CHUNK_BYTES) {
            self.close(index);
        }
        if self.open.len() > OPEN_HASHERS_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            self.close(oldest);
        }
    }

    /// Bytes at `offset` have changed in a way that was not absorbed.
    pub(crate) fn touched(&mut self, offset: u64) {
        self.chunks.insert(offset / CHUNK_BYTES, Chunk::Dirty);
    }

    /// Ends the hashing of a chunk.
    fn close(&mut self, index: u64) {
        if let Some(chunk) = self.chunks.get_mut(&index)
            && let Chunk::Open { hasher, .. } = chunk
        {
            *chunk = Chunk::Closed(*hasher.finalize().as_bytes());
        }
    }

    /// Chunks seen so far.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// All digests, by index. Chunks that were touched again are read back from `file`.
    pub(crate) fn finish(self, file: &File, received: &Extents) -> io::Result<BTreeMap<u64, Digest>> {
        let mut digests = BTreeMap::new();
        for (index, chunk) in self.chunks {
            let digest = match chunk {
                Chunk::Open { hasher, .. } => *hasher.finalize().as_bytes(),
                Chunk::Closed(digest) => digest,
                Chunk::Dirty => match received_in(received, index) {
                    nothing if nothing.is_empty() => continue,
                    ranges => digest_of(file, &ranges)?,
                },
            };
            digests.insert(index, digest);
        }
        Ok(digests)
    }
}

/// Makes all digests anew from the file.
pub(crate) fn digest_file(file: &File, received: &Extents) -> io::Result<BTreeMap<u64, Digest>> {
    let mut digests = BTreeMap::new();
    for range in received {
        for index in range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES) {
            if let std::collections::btree_map::Entry::Vacant(entry) = digests.entry(index) {
                entry.insert(digest_of(file, &received_in(received, index))?);
            }
        }
    }
    Ok(digests)
}

/// The received ranges of one chunk.
pub(crate) fn received_in(received: &Extents, index: u64) -> Vec<Range<u64>> {
    let chunk = index * CHUNK_BYTES..(index + 1) * CHUNK_BYTES;
    let mut ranges = Vec::new();
    let mut at = chunk.start;
    for gap in received.gaps(chunk.clone()) {
        if at < gap.start {
            ranges.push(at..gap.start);
        }
        at = gap.end;
    }
    if at < chunk.end {
        ranges.push(at..chunk.end);
    }
    ranges
}

/// The digest over these ranges of a file, in this order.
pub(crate) fn digest_of(file: &File, ranges: &[Range<u64>]) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let want = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..want).unwrap_or_default();
            file.read_exact_at(part, at)?;
            hasher.update(part);
            at += len_u64(want);
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

/// A digest in hexadecimal.
pub(crate) fn hex(digest: &Digest) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

/// A digest from hexadecimal.
pub(crate) fn from_hex(text: &str) -> Option<Digest> {
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}

/// A length in memory as a length in a file.
fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes the pieces in their order, absorbs each, and compares with digests made from the file.
    fn check(pieces: &[(u64, Vec<u8>)]) {
        let file = tempfile::tempfile().unwrap();
        let mut chunks = Chunks::default();
        let mut received = Extents::new(1000);
        for (offset, bytes) in pieces {
            file.write_all_at(bytes, *offset).unwrap();
            received.insert(*offset..offset + bytes.len() as u64).unwrap();
            chunks.absorb(*offset, bytes);
        }
        let expected = digest_file(&file, &received).unwrap();
        assert_eq!(chunks.finish(&file, &received).unwrap(), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn digests_do_not_depend_on_the_order_of_arrival(
            pieces in prop::collection::vec((0_u64..4 << 20, 1_usize..200_000, any::<u8>()), 1..12)
        ) {
            let pieces: Vec<(u64, Vec<u8>)> =
                pieces.into_iter().map(|(offset, len, byte)| (offset, vec![byte; len])).collect();
            check(&pieces);
        }
    }

    #[test]
    fn bytes_in_order_are_never_read_back() {
        let nothing = tempfile::tempfile().unwrap();
        let mut chunks = Chunks::default();
        let mut received = Extents::new(10);
        for packet in 0..3000_u64 {
            chunks.absorb(packet * 1448, &[7; 1448]);
        }
        received.insert(0..3000 * 1448).unwrap();
        // The file is empty: reading any of it back would fail.
        assert_eq!(chunks.finish(&nothing, &received).unwrap().len(), 5);
    }

    #[test]
    fn many_chunks_with_holes_at_their_end_keep_few_hashers() {
        let mut chunks = Chunks::default();
        for index in 0..1000 {
            chunks.absorb(index * CHUNK_BYTES, &[1; 4096]);
        }
        let open = chunks
            .chunks
            .values()
            .filter(|chunk| matches!(chunk, Chunk::Open { .. }))
            .count();
        assert!(open <= OPEN_HASHERS_MAX, "{open}");
    }
}
