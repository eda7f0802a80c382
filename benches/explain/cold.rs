//! Files that are not in the page cache.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Advice, fadvise};

/// Times that it is asked for: pages that are just being looked at stay.
const TRIES: usize = 20;

/// Has the kernel forget what it keeps of these files, and looks whether it did (fincore(1)).
pub(crate) fn forget(files: &[&Path]) -> Result<()> {
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        let mut left = 0;
        for _ in 0..TRIES {
            fadvise(&file, 0, None, Advice::DontNeed)?;
            left = cached_bytes(path)?;
            if left == 0 {
                break;
            }
        }
        ensure!(left == 0, "{left} bytes of {} stay in the page cache", path.display());
    }
    Ok(())
}

/// How much of a file is in the page cache.
pub(crate) fn cached_bytes(path: &Path) -> Result<u64> {
    let output = Command::new("fincore")
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(path)
        .output()
        .context("fincore, of util-linux, is needed")?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().parse().with_context(|| format!("fincore said {said:?}"))
}
