//! Doors for the fuzz targets to what is private here; not part of the library.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use crate::escape;
use crate::store::manifest::Manifest;
use crate::store::{answered, journal, layout};

/// A herald's payload: as a label it is one line that can be shown, and never a path.
pub fn herald_path(bytes: &[u8]) {
    if let Some(label) = crate::ingest::label(bytes) {
        assert!(
            !label.is_empty() && !label.chars().any(char::is_control),
            "{label:?} cannot be shown"
        );
        assert_eq!(escape::one_line(&label), label, "escaping twice changes nothing");
    }
}

/// A session's journal, and a place of the file of answered heralds.
pub fn journal(bytes: &[u8]) {
    if let Ok((recovered, point_at, end)) = journal::parse(bytes, "this boot") {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        assert!(
            point_at < end && end <= len,
            "the next record goes behind what was read"
        );
        assert!(recovered.received.covered_bytes() <= recovered.received.end());
    }
    let _ = answered::parse(bytes, SystemTime::UNIX_EPOCH, Duration::from_secs(15));
}

/// A core's manifest.
pub fn manifest(bytes: &[u8]) {
    let Ok(dir) = tempdir() else { return };
    let path = dir.join(layout::MANIFEST);
    let written = std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes));
    if written.is_err() {
        return;
    }
    if let Ok(manifest) = Manifest::read(&dir) {
        let received = manifest.received();
        assert!(received.covered_bytes() <= received.end());
        let (summary, info) = (manifest.summary(), manifest.info());
        assert_eq!(summary.id, info.summary.id);
        let _ = manifest.chunk_digests();
    }
}

/// One folder for this process, in memory where there is such a place.
fn tempdir() -> std::io::Result<std::path::PathBuf> {
    let shm = std::path::Path::new("/dev/shm");
    let base = if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    };
    let dir = base.join(format!("coreferry-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
