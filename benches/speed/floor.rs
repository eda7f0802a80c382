//! What memory and files can do at all.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use tempfile::TempDir;

use crate::table::{Case, Sample};

/// Bytes of one read and write of a file copy, as `cp` uses.
const COPY_LEN: usize = 256 * 1024;

/// Two buffers of the same length, both with pages.
#[derive(Debug)]
pub(crate) struct TwoBuffers(Vec<u8>, Vec<u8>);

impl TwoBuffers {
    /// Buffers for so many bytes.
    pub(crate) fn new(bytes: u64) -> Result<Self> {
        let len = usize::try_from(bytes)?;
        Ok(Self(vec![0x5a; len], vec![0xa5; len]))
    }

    /// How long copying one to the other takes.
    pub(crate) fn copy(&mut self) -> Duration {
        let start = Instant::now();
        self.1.copy_from_slice(black_box(&self.0));
        black_box(&mut self.1);
        start.elapsed()
    }

    /// The case that every group begins with.
    pub(crate) fn case(mut self) -> Case<'static> {
        Case::new("memcpy", "memory", move || {
            Ok(Sample {
                bytes: self.0.len() as u64,
                took: self.copy(),
            })
        })
    }
}

/// Copies the first `bytes` of a file in memory into a file below `dir`, and syncs it.
pub(crate) fn copy_file(from: &File, bytes: u64, dir: &Path) -> Result<Sample> {
    let path = dir.join("copy");
    let mut buffer = vec![0; COPY_LEN];
    let start = Instant::now();
    let mut to = File::create(&path)?;
    let mut at = 0;
    while at < bytes {
        let len = usize::try_from(bytes - at)?.min(COPY_LEN);
        let part = buffer.get_mut(..len).unwrap_or_default();
        from.read_exact_at(part, at)?;
        to.write_all(part)?;
        at += len as u64;
    }
    to.sync_all()?;
    let took = start.elapsed();
    std::fs::remove_file(&path)?;
    Ok(Sample { bytes, took })
}

/// Somewhere to keep files.
#[derive(Debug)]
pub(crate) struct Medium {
    /// What it is.
    pub(crate) name: &'static str,
    dir: TempDir,
}

impl Medium {
    /// Memory, where there is `/dev/shm`, and whatever the build directory lies on.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let mut media = Vec::new();
        match TempDir::with_prefix_in("coreferry-bench-", "/dev/shm") {
            Ok(dir) => media.push(Self { name: "tmpfs", dir }),
            Err(why) => println!("skipped: all rows on tmpfs ({why})"),
        }
        let dir = TempDir::with_prefix_in("bench-", env!("CARGO_TARGET_TMPDIR"))?;
        media.push(Self { name: "disk", dir });
        Ok(media)
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Name of the file copy on it.
    pub(crate) fn copy_name(&self) -> String {
        format!("file copy and fsync, {}", self.name)
    }
}
