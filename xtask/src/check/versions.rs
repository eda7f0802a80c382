//! Crates of which there must be one version only.
//!
//! Two versions of vm-memory give two types of the same name that do not fit together; the errors then point anywhere but
//! at the cause. The rust-vmm crates are bumped together for this reason.

/// The crates whose types pass between other crates.
const SINGLE: &[&str] = &["vm-memory", "vmm-sys-util", "kvm-bindings", "virtio-queue"];

/// Which of those crates the lock file has twice.
pub(crate) fn doubles(lock: &str) -> Vec<String> {
    let found = SINGLE.iter().map(|name| (name, versions(lock, name)));
    let twice = found.filter(|(_, versions)| versions.len() > 1);
    twice
        .map(|(name, versions)| format!("{name} is in Cargo.lock as {}", versions.join(" and ")))
        .collect()
}

/// The versions of one crate in a lock file, where each package is a `name = "…"` line followed by `version = "…"`.
fn versions<'l>(lock: &'l str, name: &str) -> Vec<&'l str> {
    let wanted = format!("name = \"{name}\"");
    let after_name = lock
        .lines()
        .zip(lock.lines().skip(1))
        .filter(|(line, _)| *line == wanted);
    after_name
        .filter_map(|(_, next)| next.strip_prefix("version = \"")?.strip_suffix('"'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
[[package]]
name = "vm-memory"
version = "0.17.0"

[[package]]
name = "vm-memory"
version = "0.18.0"

[[package]]
name = "vm-memory-more"
version = "1.0.0"

[[package]]
name = "kvm-bindings"
version = "0.14.2"
"#;

    #[test]
    fn two_versions_of_one_crate_are_told_with_both_numbers() {
        assert_eq!(doubles(LOCK), ["vm-memory is in Cargo.lock as 0.17.0 and 0.18.0"]);
    }
}
