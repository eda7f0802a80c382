//! Whether the installed crash is too old for a kernel.

use std::process::{Command, Stdio};

/// The first kernel that older versions of crash do not open: it dropped the symbol `module_load_offset`, by which they tell that
/// KASLR moved it.
const NEW_KERNEL: [u64; 2] = [6, 10];
/// The first version of crash that may know it: 8.0.5 ends with "seek error … page_offset_base" (crash-utility/crash, issue 194).
const CRASH_THAT_MAY: [u64; 3] = [8, 0, 6];

/// A sentence, if the crash in `PATH` does not open cores of this kernel.
pub(super) fn crash_is_too_old(release: Option<&str>) -> Option<String> {
    let release = release.filter(|release| is_new_linux(release))?;
    let asked = Command::new("crash")
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let version = version_of(&String::from_utf8_lossy(&asked.stdout))?;
    (version < CRASH_THAT_MAY).then(|| {
        let [major, minor, patch] = version;
        format!(
            "crash {major}.{minor}.{patch} does not open cores of Linux {release}: kernels from 6.10 on need a newer one; \
             drgn opens them (--with drgn)"
        )
    })
}

/// Whether a release is that of a Linux that old versions of crash do not know.
fn is_new_linux(release: &str) -> bool {
    let is_freebsd = ["-RELEASE", "-STABLE", "-CURRENT"];
    let [major, minor, _] = numbers(release).unwrap_or_default();
    !is_freebsd.iter().any(|end| release.contains(end)) && [major, minor] >= NEW_KERNEL
}

/// `[8, 0, 2]` of `crash 8.0.2`, the first line that has that form.
fn version_of(said: &str) -> Option<[u64; 3]> {
    said.lines()
        .find_map(|line| numbers(line.trim().strip_prefix("crash ")?))
}

/// Three numbers at the beginning of a text; the last one may be missing.
fn numbers(text: &str) -> Option<[u64; 3]> {
    let mut parts = text.splitn(3, '.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end)?.parse::<u64>().ok()
    });
    let (major, minor) = (parts.next()??, parts.next()??);
    Some([major, minor, parts.next().flatten().unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_versions_are_told_apart() {
        for (release, is_new) in [
            ("6.1.0-56-cloud-amd64", false),
            ("6.9.12", false),
            ("6.10.0-rc1", true),
            ("6.12.117+deb12-amd64", true),
            ("7.0-custom", true),
            ("14.1-RELEASE-p3", false),
            ("unknown", false),
        ] {
            assert_eq!(is_new_linux(release), is_new, "{release}");
        }
        assert_eq!(version_of("\ncrash 8.0.2\nCopyright (C)\n"), Some([8, 0, 2]));
        assert_eq!(version_of("crash 9.1++\n"), Some([9, 1, 0]));
        assert_eq!(version_of("crash --version\n"), None);
    }
}
