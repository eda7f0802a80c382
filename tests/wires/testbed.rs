//! Programs of the testbed that `cargo xtask testbed` makes.

use std::env;
use std::path::PathBuf;

/// The program of this name, if the testbed has it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let cache = env::var_os("COREFERRY_CACHE").map_or_else(|| PathBuf::from("target/cache"), PathBuf::from);
    let testbed = env::var_os("COREFERRY_TESTBED").map_or_else(|| cache.join("testbed"), PathBuf::from);
    let places = [format!("bin/{name}"), format!("pkgs/usr/bin/{name}")];
    places
        .into_iter()
        .map(|place| testbed.join(place))
        .find(|path| path.is_file())
}
