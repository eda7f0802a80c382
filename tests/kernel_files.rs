//! The kernel file that a guest was started from: its build id, told by somebody else too.

mod common;
#[path = "common/testbed.rs"]
mod testbed;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use object::Object as _;
use testbed::testbed;
use vmm_agent::kernel::build_id;

/// Build id of an ELF file, by a reader that is not ours.
fn id_of(elf: &Path) -> String {
    let file = object::ReadCache::new(File::open(elf).expect("an ELF file"));
    let elf = object::File::parse(&file).expect("ELF headers");
    let id = elf.build_id().expect("notes").expect("an id");
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What we say of a kernel of the testbed.
fn ours(kernel: &Path) -> String {
    build_id::of(&File::open(kernel).expect("a kernel")).expect("an id")
}

/// A kernel has the build id of its own symbols, packed and as it is.
fn agrees_with_symbols(kernel: &str, symbols: &str) {
    let (Some(kernel), Some(symbols)) = (testbed(kernel), testbed(symbols)) else {
        return;
    };
    let id = id_of(&symbols);
    assert_eq!((ours(&kernel), ours(&symbols)), (id.clone(), id));
}

#[test]
fn debians_6_1_for_clouds_packed_by_lz4_has_the_build_id_of_its_symbols() {
    agrees_with_symbols("guests/6.1-cloud/vmlinuz", "vmlinux");
}

#[test]
#[ignore = "needs the symbols of the whole matrix"]
fn the_other_kernels_have_the_build_ids_of_their_symbols() {
    for kernel in ["6.1-generic", "6.12-cloud", "6.12-generic"] {
        agrees_with_symbols(
            &format!("guests/{kernel}/vmlinuz"),
            &format!("symbols/{kernel}/vmlinux"),
        );
    }
}

#[test]
fn debians_6_1_packed_by_xz_has_the_build_id_that_xz_itself_unpacks() {
    let (Some(kernel), Some(xz)) = (testbed("guests/6.1-generic/vmlinuz"), testbed("bin/xz")) else {
        return;
    };
    let image = fs::read(&kernel).expect("a kernel");
    // The .xz file format, 2.1.1.
    let at = image.windows(6).position(|window| window == b"\xfd7zXZ\0");
    let dir = tempfile::tempdir().expect("a folder");
    let (packed, unpacked) = (dir.path().join("packed"), dir.path().join("vmlinux"));
    fs::write(&packed, &image[at.expect("a payload")..]).expect("room");
    // It complains about what the kernel has behind its payload.
    Command::new(xz)
        .args(["--decompress", "--stdout"])
        .stdin(File::open(&packed).expect("what was written"))
        .stdout(File::create(&unpacked).expect("room"))
        .stderr(std::process::Stdio::null())
        .status()
        .expect("xz runs");
    assert_eq!(ours(&kernel), id_of(&unpacked));
}
