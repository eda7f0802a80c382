//! A core's vmcore copied from the directory where it is stored.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use server::limits::CHUNK_BYTES;
use server::{LocalCores, StoredVmcore};

use super::source::refused;
use crate::cli_failure::{Exit, Failure};
use crate::output;

/// Copies the ranges that arrived, a chunk at a time, and holds each chunk against its digest.
pub(super) fn run(cores: &LocalCores, id: &str, to: &File) -> Result<(), Failure> {
    let stored = cores.vmcore(id).map_err(|why| refused(&why))?;
    let shown = stored.path.display().to_string();
    let from = File::open(&stored.path).with_context(|| format!("cannot open {shown}"))?;
    let bar = output::progress(stored.received.iter().map(|(_, length)| length).sum());
    let mut buffer = vec![0; usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX)];
    let mut proof = Proof::new(&stored);
    for (offset, length) in &stored.received {
        let mut at = *offset;
        let end = offset.saturating_add(*length);
        while at < end {
            let chunk_end = (at / CHUNK_BYTES + 1).saturating_mul(CHUNK_BYTES);
            let want = usize::try_from(end.min(chunk_end) - at).unwrap_or(usize::MAX);
            let part = buffer.get_mut(..want).unwrap_or_default();
            from.read_exact_at(part, at)
                .with_context(|| format!("cannot read {want} bytes of {shown} at offset {at}"))?;
            proof.take(at / CHUNK_BYTES, part)?;
            to.write_all_at(part, at).context("cannot write the copy")?;
            at += want as u64;
            bar.inc(want as u64);
        }
    }
    proof.end()?;
    bar.finish_and_clear();
    Ok(())
}

/// Holds chunks against their digests.
struct Proof<'s> {
    stored: &'s StoredVmcore,
    chunk: Option<u64>,
    hasher: blake3::Hasher,
}

impl<'s> Proof<'s> {
    fn new(stored: &'s StoredVmcore) -> Self {
        Self {
            stored,
            chunk: None,
            hasher: blake3::Hasher::new(),
        }
    }

    /// Takes the next bytes, which are in this chunk.
    fn take(&mut self, chunk: u64, bytes: &[u8]) -> Result<(), Failure> {
        if self.chunk != Some(chunk) {
            self.end()?;
            self.chunk = Some(chunk);
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Proves the chunk whose bytes came last.
    fn end(&mut self) -> Result<(), Failure> {
        let found = self.hasher.finalize();
        self.hasher.reset();
        let Some(chunk) = self.chunk.take() else {
            return Ok(());
        };
        let kept = self.stored.chunk_digests.get(&chunk);
        if kept.is_some_and(|digest| found == *digest) {
            return Ok(());
        }
        let (at, id) = (chunk.saturating_mul(CHUNK_BYTES), &self.stored.summary.id);
        let sentence = format!(
            "the bytes of the chunk at offset {at} do not have the digest that was stored for them; `coreferry cores verify {id}` \
             names all that have changed, and {} is the file as it is",
            self.stored.path.display()
        );
        Err(Failure::new(Exit::NotWhole, sentence))
    }
}
