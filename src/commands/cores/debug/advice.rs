//! What is missing, and where to get it.

use api::CoreInfo;

use super::Kernel;

/// A sentence or some that end in the way out.
pub(super) fn missing(info: &CoreInfo, kernel: &Kernel, looked_at: &[String]) -> String {
    let release = kernel.release.as_deref();
    let build_id = kernel.build_id.as_deref();
    let named = match (release, build_id) {
        (Some(release), Some(build_id)) => format!("kernel {release}, build id {build_id}"),
        (Some(release), None) => format!("kernel {release}, whose build id the core does not tell"),
        (None, Some(build_id)) => format!("the kernel with build id {build_id}"),
        (None, None) => format!(
            "core {}, which tells neither release nor build id of its kernel",
            info.summary.id
        ),
    };
    let mut text = format!("no symbols for {named}");
    for sentence in looked_at {
        text.push_str("\n  - ");
        text.push_str(sentence);
    }
    text.push_str("\nthe way out: ");
    text.push_str(&way_out(release));
    text.push_str("\n--symbols PATH names a vmlinux, or a folder of unpacked debug packages");
    text
}

/// Where distributions keep the symbols of a kernel, told from its release.
fn way_out(release: Option<&str>) -> String {
    let Some(release) = release else {
        return "the vmlinux that was built with this kernel".to_owned();
    };
    let debian = ["-amd64", "-cloud-amd64", "-rt-amd64"];
    let is_fedora = release.contains(".fc") || release.contains(".el");
    if release.contains("-generic") || release.contains("-azure") || release.contains("-aws") {
        format!(
            "Ubuntu's package linux-image-unsigned-{release}-dbgsym, or DEBUGINFOD_URLS=https://debuginfod.ubuntu.com"
        )
    } else if debian.iter().any(|end| release.ends_with(end)) {
        format!("Debian's package linux-image-{release}-dbg, or DEBUGINFOD_URLS=https://debuginfod.debian.net")
    } else if is_fedora {
        format!("`dnf debuginfo-install kernel-{release}`, or the DEBUGINFOD_URLS of that distribution")
    } else if release.ends_with("-default") {
        "the package kernel-default-debuginfo, or DEBUGINFOD_URLS=https://debuginfod.opensuse.org".to_owned()
    } else if release.contains("-RELEASE") || release.contains("-STABLE") || release.contains("-CURRENT") {
        "FreeBSD's kernel-dbg.txz, and kgdb instead of these debuggers: `kgdb kernel.debug vmcore`".to_owned()
    } else {
        "the debug package of this kernel, or the vmlinux that was built with it; DEBUGINFOD_URLS names servers"
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_that_of_the_distribution() {
        for (release, part) in [
            ("6.1.0-56-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64-dbg"),
            ("6.12.117+deb12-amd64", "linux-image-6.12.117+deb12-amd64-dbg"),
            ("6.8.0-45-generic", "linux-image-unsigned-6.8.0-45-generic-dbgsym"),
            ("5.14.0-427.el9.x86_64", "dnf debuginfo-install"),
            ("6.4.0-150600.21-default", "kernel-default-debuginfo"),
            ("14.1-RELEASE", "kgdb"),
            ("6.9.0-custom", "vmlinux"),
        ] {
            assert!(
                way_out(Some(release)).contains(part),
                "{release}: {}",
                way_out(Some(release))
            );
        }
    }
}
