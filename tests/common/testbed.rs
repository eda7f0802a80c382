//! What `cargo xtask testbed` fetched.

use std::path::PathBuf;

use crate::common::skip;

/// A program or a file of the testbed; if it is not there, says so, and in CI fails.
pub(crate) fn testbed(part: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("COREFERRY_CACHE").map_or_else(|| PathBuf::from("target/cache"), PathBuf::from);
    let dir = std::env::var_os("COREFERRY_TESTBED").map_or_else(|| cache.join("testbed"), PathBuf::from);
    let path = std::path::absolute(&dir).unwrap_or(dir).join(part);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("there is no {} (cargo xtask testbed)", path.display()));
    None
}
