//! Proves a stored core: its bytes against the manifest's digests, and its records against theirs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use api::{ByteRange, CoreState};
use serde::Serialize;

use super::chunks;
use super::examine::{self, Ending};
use super::layout;
use super::manifest::{self, Manifest};
use crate::limits::CHUNK_BYTES;

/// What verifying a core found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Version of this object.
    pub schema_version: u32,
    /// Id of the core.
    pub id: String,
    /// The state that the core has now.
    pub state: CoreState,
    /// Whether the core is complete and every byte is what arrived.
    pub ok: bool,
    /// Bytes that were read and agree with their digests.
    pub verified_bytes: u64,
    /// Everything that is wrong, each in a sentence.
    pub problems: Vec<String>,
    /// What was lost before it arrived.
    pub holes: Vec<ByteRange>,
}

/// Problems that are listed one by one; beyond that they are counted.
const PROBLEMS_MAX: usize = 20;

/// Verifies the core in `dir`.
///
/// # Errors
/// When the file cannot be read at all.
pub(crate) fn verify(dir: &Path, manifest: &Manifest) -> io::Result<Verified> {
    let mut verified = Verified {
        schema_version: api::SCHEMA_VERSION,
        id: manifest.id.clone(),
        state: manifest.state,
        ok: false,
        verified_bytes: 0,
        problems: Vec::new(),
        holes: manifest.coverage.lost.clone(),
    };
    let file = match File::open(dir.join(layout::VMCORE)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            verified.state = CoreState::Missing;
            verified.problems.push("the file vmcore is not there".to_owned());
            return Ok(verified);
        }
        opened => opened?,
    };
    check_file(&file, manifest, &mut verified)?;
    check_small_files(dir, manifest, &mut verified);
    if !verified.problems.is_empty() {
        verified.state = CoreState::Corrupt;
    }
    if let Some(reason) = &manifest.reason {
        verified.problems.push(reason.clone());
    }
    verified.ok = verified.problems.is_empty() && manifest.state == CoreState::Complete;
    Ok(verified)
}

/// Checks length, digests and trailer of the memory image.
fn check_file(file: &File, manifest: &Manifest, verified: &mut Verified) -> io::Result<()> {
    let len = file.metadata()?.len();
    if len != manifest.file_len_bytes {
        let expected = manifest.file_len_bytes;
        verified
            .problems
            .push(format!("vmcore has {len} bytes, {expected} were stored"));
    }
    let received = manifest.received();
    let kept = manifest.chunk_digests();
    if manifest::root(manifest.file_len_bytes, &received, &kept) != manifest.digests.root {
        verified
            .problems
            .push("the manifest's digests contradict each other".to_owned());
    }
    let on_disk = examine::cut(&received, len);
    let mut found = BTreeMap::new();
    let mut wrong = 0_usize;
    for (index, expected) in &kept {
        let ranges = chunks::received_in(&on_disk, *index);
        let digest = chunks::digest_of(file, &ranges)?;
        found.insert(*index, digest);
        if digest == *expected {
            verified.verified_bytes += ranges.iter().map(|range| range.end - range.start).sum::<u64>();
        } else {
            wrong += 1;
            if wrong <= PROBLEMS_MAX {
                let at = index * CHUNK_BYTES;
                verified
                    .problems
                    .push(format!("the bytes of the chunk at offset {at} have changed"));
            }
        }
    }
    if wrong > PROBLEMS_MAX {
        verified
            .problems
            .push(format!("{} more chunks have changed", wrong - PROBLEMS_MAX));
    }
    let examined = examine::examine(file, &on_disk, None, &found, &Ending::Finished)?;
    if examined.state == CoreState::Corrupt && wrong == 0 {
        verified.problems.extend(examined.reason);
    }
    Ok(())
}

/// Checks the digests of the small files.
fn check_small_files(dir: &Path, manifest: &Manifest, verified: &mut Verified) {
    for listed in manifest.files.iter().filter(|listed| listed.name != layout::VMCORE) {
        if !matches!(listed.name.as_str(), layout::INFO | layout::KERNEL_HEADER | layout::KEY) {
            continue;
        }
        match std::fs::read(dir.join(&listed.name)) {
            Ok(bytes) if format!("blake3:{}", blake3::hash(&bytes).to_hex()) == listed.digest => {}
            Ok(_) => verified.problems.push(format!("{} has changed", listed.name)),
            Err(why) => verified.problems.push(format!("cannot read {}: {why}", listed.name)),
        }
    }
}
